"""Fetches released files into the checkpoint folder: `python -m utils.fetch mepo`.

The authors' MePo folder on the Hugging Face hub (long2333/MePo, MIT licence, about 2.1 GB): refined backbones,
covariances and MISA prompts. The hub's own client resumes and checks sizes.
"""

from __future__ import annotations

from utils import door

if __name__ == "__main__":
    door.begin(packages=False)  # --help needs none of them

import sys
from pathlib import Path

from utils import requirements, signals
from utils.args import Parser
from utils.errors import UsageError, reason
from utils.files import writable_folder

REPOSITORIES = {"mepo": "long2333/MePo"}


def fetch(name: str, checkpoint_dir: Path) -> Path:
    """The folder with the released files of `name`. Raises UsageError if they cannot be fetched."""
    from huggingface_hub import snapshot_download

    folder = writable_folder(checkpoint_dir / f"{name}_released", "--checkpoint_dir")
    try:
        snapshot_download(REPOSITORIES[name], local_dir=folder, allow_patterns=["*.pth", "*.pt", "*.npy", "*.md"])
    except Exception as error:  # the hub's client raises many types, those of its network library too
        where = f"https://huggingface.co/{REPOSITORIES[name]}"
        raise UsageError(f"{where}: {reason(error)}; run again to go on, or put its files into {folder}") from None
    return folder


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m utils.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=REPOSITORIES)
    parser.add_argument("--checkpoint_dir", default="checkpoints", help="folder to put them in [checkpoints]")
    return door.answer(lambda: command(parser.parse(argv)))


def command(options) -> None:
    requirements.check()
    with signals.obeyed():
        print(fetch(options.name, Path(options.checkpoint_dir)))


if __name__ == "__main__":
    door.leave(main(sys.argv[1:]))
