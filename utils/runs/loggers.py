"""Optional loggers: imported only when asked for; a logger that fails is reported once and the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from utils.training.history import ERROR, TRAIN

Row = dict


def make(name: str | None, folder: Path, config: dict) -> list[Callable[[Row], None]]:
    """The logger named by `--logger` as functions of a row of `metrics.csv`; empty if none or if it cannot start."""
    if name is None:
        return []
    try:
        write = {"tensorboard": _tensorboard, "wandb": _wandb}[name](folder, config)
    except Exception as error:  # a missing package or a service that cannot be reached must not cost the run
        print(
            f"warning: --logger {name} cannot start ({error}); the run's files are written as always", file=sys.stderr
        )
        return []
    return [_soft(name, write)]


def _soft(name: str, write: Callable[[Row], None]) -> Callable[[Row], None]:
    failed = False

    def guarded(row: Row) -> None:
        nonlocal failed
        if failed:
            return
        try:
            write(row)
        except Exception as error:
            failed = True
            print(f"warning: --logger {name} failed ({error}) and is switched off for this run", file=sys.stderr)

    return guarded


def _numbers(row: Row) -> dict[str, float]:
    known = ("accuracy", ERROR, TRAIN, "loss", "classes_exposed")
    return {f"{row['kind']}/{key}": row[key] for key in known if row.get(key) is not None}


def _tensorboard(folder: Path, config: dict) -> Callable[[Row], None]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def write(row: Row) -> None:
        for key, value in _numbers(row).items():
            writer.add_scalar(key, value, row["samples_seen"])
        writer.flush()

    return write


def _wandb(folder: Path, config: dict) -> Callable[[Row], None]:
    import wandb

    run = wandb.init(project="gcl", dir=str(folder), config=config)
    return lambda row: run.log(_numbers(row) | {"samples_seen": row["samples_seen"]})
