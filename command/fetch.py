"""Fetches released files into the checkpoint folder: `python main.py fetch mepo`.

The authors' MePo folder on the Hugging Face hub (long2333/MePo, MIT licence, about 2.1 GB): refined backbones,
covariances and MISA prompts. The hub's own client resumes and checks sizes.
"""

from __future__ import annotations

from pathlib import Path

from utils import requirements
from utils.args import Parser
from utils.errors import UsageError, reason
from utils.files.disk import writable_folder
from utils.runs import signals

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


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py fetch", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=REPOSITORIES)
    parser.add_argument("--checkpoint_dir", default="checkpoints", help="folder to put them in [checkpoints]")
    options = parser.parse(argv)
    requirements.check()
    with signals.obeyed():
        print(fetch(options.name, Path(options.checkpoint_dir)))


if __name__ == "__main__":
    raise SystemExit("python main.py fetch does this")
