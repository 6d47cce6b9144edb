"""Which run a command goes on with: the folder that `--resume` names or finds, and the state that lies in it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.args import SEEDS, RunArgs
from utils.errors import UsageError, reason
from utils.files.disk import claim
from utils.runs import checkpoint, identity
from utils.runs.folder import LOCK, RunFolder
from utils.runs.reading import read_config, read_run, refusal
from utils.training.loop import Trainer

Config = dict[str, Any]  # content of `config.yaml`


def refuse_another(folder: Path, here: Config, what: str = "is another one") -> None:
    """Raises UsageError if the run in `folder`, named by somebody, is not the one of `here`. what: is said of it."""
    if different := identity.differences(config_of(folder), here):
        raise UsageError(f"--resume {folder}: that run {what}: {'; '.join(different)}")


def config_of(folder: Path) -> dict[str, Any]:
    """`read_config` of a folder that `--resume` names."""
    try:
        return read_config(folder)
    except UsageError as error:
        raise UsageError(f"--resume {folder}: no run to go on with: {error}") from None


def candidates(results: str, here: Config) -> list[tuple[Path, Config]]:
    """Runs below `results` with the options and seeds of the one that is to begin with the config `here`, whatever they
    read, and their configs; newest first."""
    parent, found = os.path.join(results, here["run"]["dataset"], here["run"]["model"]), []
    options, seeds = identity.without_content(here), {name: here["run"].get(name) for name in SEEDS}
    folders: list[str] = []
    with contextlib.suppress(OSError):  # there is none
        folders = [entry.name for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    for name in sorted(folders, reverse=True):
        with contextlib.suppress(OSError, UsageError):  # somebody else's, or cut off
            folder = os.path.join(parent, name)
            now = os.stat(os.path.join(folder, "config.yaml"))
            config = _config_as_of(folder, (now.st_ino, now.st_size, now.st_mtime_ns))
            # Seeds, which tell most of many runs apart, are looked at first.
            if any(None not in (seed, own := config["run"].get(key)) and own != seed for key, seed in seeds.items()):
                continue
            if not identity.differences(config, options):
                found.append((Path(folder), config))
    return found


@functools.lru_cache(maxsize=2**14)
def _config_as_of(folder: str, state: tuple[int, int, int]) -> Config:
    """`read_config`, once for a file that is not changed: a command searches several times, and each time looks which
    runs are there. state: what tells of a change; a run writes whole files, so each is another one."""
    return read_config(Path(folder))


def has_ended(folder: Path) -> bool:
    """Whether a run is complete. Says it of one that is, but not as it was left."""
    if not (folder / "summary.json").exists():
        return False
    try:
        summary = read_run(folder).summary
        if gone := [name for name in (summary.sha256 if summary else ()) if not (folder / name).exists()]:
            raise refusal(folder / gone[0], "is gone")
        return summary is not None
    except UsageError as error:
        print(f"warning: {error}", file=sys.stderr)
        return False


def is_held(folder: Path) -> bool:
    """Whether a process is at work on a run."""
    lock = claim(folder / LOCK)
    if lock is not None:
        lock.release()
    return lock is None


def complete_run(options: RunArgs, here: Config, read: Callable[[], Config]) -> Path | None:
    """The folder of this run if `--resume` asks for one that has ended. Raises UsageError if it names another run.

    here: the config of the run but for what it reads. read: all of it; reads the data.
    """
    if options.resume == "never":
        return None
    if options.resume != "auto":
        folder = Path(options.resume)
        refuse_another(folder, read())
        if identity.read(config_of(folder)) is None:
            print(
                f"note: {folder} does not say which data and weights it read; nobody can compare them", file=sys.stderr
            )
        return folder if read_run(folder).summary else None
    ended = [run for run in candidates(options.results, here) if has_ended(run[0])]
    if not ended:  # so that nothing has to be read for it
        return None
    if (same := identity.same_run(ended, here := read())) is None:
        folder, config = ended[0]
        print(f"{folder} is not this run: {identity.why_another(config, here)}", file=sys.stderr)
    return same


def begun_run(options: RunArgs, here: Config, stage: bool = False) -> Path | None:
    """The run that has not ended and that `--resume` asks for, if any. Raises UsageError if it read something else.

    stage: one that reads something else is passed over, as its caller has no word for it.
    """
    if options.resume not in ("auto", "never"):
        refuse_another(Path(options.resume), here)
        return Path(options.resume)
    found = candidates(options.results, here) if options.resume == "auto" else []
    begun = [run for run in found if (run[0] / "checkpoints").is_dir() and not has_ended(run[0])]
    if (same := identity.same_run(begun, here)) is not None:
        return same
    begun = [run for run in begun if not is_held(run[0])]  # one at work beside this one did not stop
    if not begun:
        return None
    folder, config = begun[0]
    why = f"{folder}: a run of these options that has not ended is not this run: {identity.why_another(config, here)}"
    if stage:
        print(f"{why}; a new one begins", file=sys.stderr)
        return None
    known = identity.read(config) is not None
    raise UsageError(
        f"{why}; --resume {'never' if known else folder} {'begins a new one' if known else 'goes on with it'}"
    )


def open_run(
    options: RunArgs, here: Config, device: torch.device, stage: bool
) -> tuple[RunFolder, dict[str, Any] | None]:
    """The folder of a run, and the state that it goes on from, None for a new one. stage: as in `begun_run`."""
    old = begun_run(options, here, stage)
    if old is None:
        folder = RunFolder.new(options.results, options.dataset, options.model, options.seed)
        folder.write_config(here | identity.code())
        return folder, None
    folder, now = RunFolder(old), identity.code()
    config = config_of(old)
    if changed := identity.code_changes(config, now):
        print(f"{old}: since this run was last at work, there changed: {', '.join(changed)}", file=sys.stderr)
        folder.write_config(config | {"resumed": now})
    return folder, checkpoint.load(folder.checkpoints, device)


def go_on(trainer: Trainer, state: dict[str, Any], folder: RunFolder) -> None:
    """Puts a trainer where another stood, and says so. Raises UsageError if the state is not that of such a run."""
    trainer.eval_period = folder.eval_period()  # the one that it began with, whatever this version would choose
    try:
        trainer.load_state_dict(state)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder.path}: its checkpoint does not fit this run ({reason(error)}); use --resume never"
        ) from error
    print(f"{folder.path} goes on after {trainer.images_met} images", file=sys.stderr)
