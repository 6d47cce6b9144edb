"""The folder a run leaves: settings, metrics, weights and pictures, each file whole at any time."""

from __future__ import annotations

import contextlib
import errno
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from torch import Tensor

from utils.classes import class_of
from utils.contracts import Learner
from utils.errors import UsageError, reason
from utils.files.atomic import written_whole
from utils.files.disk import claim, writable_folder
from utils.files.manifest import sha256
from utils.files.tensors import export_pth, read_tensors, write_tensors
from utils.files.text import parse_json, parse_yaml, read_text
from utils.runs import checkpoint
from utils.runs.description import FILE as LEARNER
from utils.runs.description import Description
from utils.runs.summary import Summary
from utils.streams.base import TaskList
from utils.streams.si_blurry import SiBlurry
from utils.training.history import ERROR, History

LOCK = ".lock"  # of a run that a process is on
STATE = (checkpoint.TENSORS, checkpoint.TREE)  # of the learner, beside its weights


class RunFolder:
    """`<results>/<dataset>/<model>/<timestamp>-seed<k>/`; only one process at a time has it open."""

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, path / "checkpoints"
        self._task_ends = -1  # of the history as `per_class.csv` has it
        lock = claim(path / LOCK)
        if lock is None:
            raise UsageError(f"{path}: another process is on this run; wait for it, or use other --results")
        self._lock = lock
        for old in path.glob(".*.part"):  # of a process that was killed
            old.unlink(missing_ok=True)

    @classmethod
    def new(cls, results: str, dataset: str, model: str, seed: int) -> RunFolder:
        parent = writable_folder(Path(results) / dataset / model, "--results")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
        for attempt in itertools.count():  # two runs may start within one second
            path = parent / (f"{name}-{attempt}" if attempt else name)
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
        return cls(path)

    def close(self) -> None:
        """Lets another process have the run."""
        self._lock.release()

    def write_config(self, config: dict[str, Any]) -> None:
        """`config.yaml`: every setting with its origin, what was read, package versions and the code's commit."""
        self._write_text("config.yaml", yaml.safe_dump(config, sort_keys=False))

    def eval_period(self) -> int:
        """The `--eval_period` that the run began with."""
        return int(parse_yaml(read_text(self.path / "config.yaml"))["run"]["eval_period"])

    def threads(self) -> int | None:
        """How many the run began with, whatever is free now; None for one on a GPU, and of an older version."""
        return parse_yaml(read_text(self.path / "config.yaml")).get("threads")

    def write_stream(self, stream: TaskList, raw_labels: Tensor) -> None:
        """`stream.csv` (task, index, label in order of arrival) and `stream.png`. raw_labels: of the training part."""
        from utils.runs.plots import draw_stream

        of_all = class_of(raw_labels, stream.num_classes)
        labels = [of_all[task].tolist() for task in stream.tasks]
        rows = [(t, i, y) for t, task in enumerate(stream.tasks) for i, y in zip(task.tolist(), labels[t])]
        self._write_table("stream.csv", pd.DataFrame(rows, columns=["task", "index", "label"]))
        order = list(dict.fromkeys(label for task in labels for label in task))
        blurry = {label for part in stream.blurry for label in part} if isinstance(stream, SiBlurry) else None
        draw_stream(self.path / "stream.png", labels, stream.num_classes, order, blurry)

    def write_history(self, history: History) -> None:
        """`metrics.csv`, `per_class.csv` and, where tasks are measured, `per_task.csv` as they stand."""
        self._write_table("metrics.csv", history.metrics())
        # The other tables change at task ends alone.
        if len(history.class_rows) != self._task_ends or not (self.path / "per_class.csv").exists():
            for name, text in history.tables().items():
                self._write_text(name, text)
            self._task_ends = len(history.class_rows)

    def write_end(
        self,
        summary: Summary,
        history: History,
        model: Learner,
        export: str | None,
        description: Description | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """The history, `model.safetensors`, `curve.png` and, last, `summary.json`, which makes the run complete.

        export: "pth" for `backbone.pth` as well, the bare ViT as the scripts of the GCL repositories load it.
        description: for `learner.json`. state: from which the learner can go on beside its weights; None: not kept.
        """
        from utils.runs.plots import draw_curve

        if not (self.path / "config.yaml").exists():
            raise OSError(errno.ENOENT, "the folder of the run was removed before its end", str(self.path))
        self.write_history(history)
        write_tensors(self.path / "model.safetensors", model.state_dict())
        if export == "pth":
            export_pth(model.backbone.state_dict(), self.path / "backbone.pth")
        if history.metrics().filter(["accuracy", ERROR]).notna().any(axis=None):
            title = f"{summary.label}, {summary.dataset}, seed {summary.seed}"
            draw_curve(self.path / "curve.png", history.metrics(), title)
        if description is not None:
            self._write_text(LEARNER, description.as_json())
        self._write_state(state)
        written = ("config.yaml", "metrics.csv", "per_class.csv", "per_task.csv", "model.safetensors", LEARNER, *STATE)
        digests = {name: sha256(self.path / name) for name in written if (self.path / name).exists()}
        self._write_text("summary.json", summary.as_json(digests))
        checkpoint.remove(self.checkpoints)
        with contextlib.suppress(PermissionError):  # Windows removes nothing that is open
            (self.path / LOCK).unlink(missing_ok=True)

    def _write_state(self, state: dict[str, Any] | None) -> None:
        """One that cannot be written costs a warning, as a checkpoint does."""
        for name in STATE:
            (self.path / name).unlink(missing_ok=True)
        try:
            if state is not None:
                checkpoint.write_state(self.path, state)
        except OSError as error:
            for name in STATE:
                (self.path / name).unlink(missing_ok=True)
            print(f"warning: the state is not kept ({error.strerror or error}); `learn` cannot go on", file=sys.stderr)

    def _write_text(self, name: str, text: str) -> None:
        with written_whole(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        with written_whole(self.path / name) as temporary:
            table.to_csv(temporary, index=False)


def export_complete(folder: Path, names: list[str]) -> None:
    """`backbone.pth` of a complete run that left none, from its `model.safetensors`. names: of the backbone's tensors.

    Raises UsageError if the weights are not those that the run left, or the backbone's are not all among them.
    """
    file = folder / "model.safetensors"
    try:
        expected = parse_json(read_text(folder / "summary.json"))["sha256"][file.name]
        intact = sha256(file) == expected
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--export pth: {file} cannot be read ({reason(error)}); use --resume never") from None
    if not intact:
        raise UsageError(f"--export pth: {file} is not as the run left it; use --resume never")
    tensors = read_tensors(file)
    # Under this name in every method, a wrapper included: a tensor of two names is stored under the first.
    missing = [name for name in names if f"backbone.{name}" not in tensors]
    if missing:
        raise UsageError(f"--export pth: {file} has no {missing[0]} of the backbone; use --resume never")
    export_pth({name: tensors[f"backbone.{name}"] for name in names}, folder / "backbone.pth")
