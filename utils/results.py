"""The folder a run leaves: settings, metrics, weights and pictures, each file whole at any time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import itertools
import json
import math
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from utils import checkpoint
from utils.args import INCIDENTAL, SEEDS
from utils.errors import UsageError
from utils.files import parse_yaml, read_text, sha256, writable_folder, written_whole
from utils.history import History
from utils.streams import SiBlurry, TaskList
from utils.tensors import export_pth, write_tensors

ORIGIN = ("stream_sha256", "backbone_sha256")  # settings that come from data and weights
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas")


class RunFolder:
    """`<results>/<dataset>/<model>/<timestamp>-seed<k>/`; only one process at a time has it open."""

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, path / "checkpoints"
        # Freed by the end of the process at the latest.
        self._lock = os.open(path / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(f"{path}: another process is on this run; wait for it, or use other --results") from None
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
                return cls(path)

    def close(self) -> None:
        """Lets another process have the run."""
        os.close(self._lock)

    def write_config(self, config: dict[str, Any]) -> None:
        """`config.yaml`: every setting with its origin, package versions and the code's commit."""
        text = yaml.safe_dump(config | {"versions": versions(), "git_commit": git_commit()}, sort_keys=False)
        self._write_text("config.yaml", text)

    def write_stream(self, stream: TaskList, labels: list[list[int]]) -> None:
        """`stream.csv` (task, index, label in order of arrival) and `stream.png`. labels: per task, in stream order."""
        from utils.plots import draw_stream

        rows = [(t, i, y) for t, task in enumerate(stream.tasks) for i, y in zip(task.tolist(), labels[t])]
        self._write_table("stream.csv", pd.DataFrame(rows, columns=["task", "index", "label"]))
        order = list(dict.fromkeys(label for task in labels for label in task))
        blurry = {label for part in stream.blurry for label in part} if isinstance(stream, SiBlurry) else None
        draw_stream(self.path / "stream.png", labels, stream.num_classes, order, blurry)

    def write_history(self, history: History) -> None:
        """`metrics.csv` and `per_class.csv` as they stand."""
        self._write_table("metrics.csv", history.metrics())
        self._write_table("per_class.csv", history.per_class())

    def write_end(self, summary: dict[str, Any], history: History, model, export: str | None) -> None:
        """The history, `model.safetensors`, `curve.png` and, last, `summary.json`, which makes the run complete.

        export: "pth" for `backbone.pth` as well, the bare ViT as the scripts of the GCL repositories load it.
        """
        from utils.plots import draw_curve

        if not (self.path / "config.yaml").exists():
            raise OSError(errno.ENOENT, "the folder of the run was removed before its end", str(self.path))
        self.write_history(history)
        write_tensors(self.path / "model.safetensors", model.state_dict())
        if export == "pth":
            export_pth(model.backbone.state_dict(), self.path / "backbone.pth")
        if not history.metrics()["accuracy"].isna().all():
            draw_curve(
                self.path / "curve.png",
                history.metrics(),
                f"{summary['label']}, {summary['dataset']}, seed {summary['seed']}",
            )
        written = ("config.yaml", "metrics.csv", "per_class.csv", "model.safetensors")
        summary = summary | {"sha256": {name: sha256(self.path / name) for name in written}}
        plain = {
            key: None if isinstance(value, float) and math.isnan(value) else value for key, value in summary.items()
        }
        self._write_text("summary.json", json.dumps(plain, indent=2) + "\n")
        checkpoint.remove(self.checkpoints)
        (self.path / ".lock").unlink(missing_ok=True)

    def _write_text(self, name: str, text: str) -> None:
        with written_whole(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        with written_whole(self.path / name) as temporary:
            table.to_csv(temporary, index=False)


def find_run(results: str, settings: dict[str, Any], complete: bool) -> Path | None:
    """The newest folder of a run of the same settings and seeds, whatever machine and folders it used.

    complete: one that ended; otherwise one that did not and left a checkpoint.
    """
    wanted = _deciding(settings)
    parent = Path(results) / settings["run"]["dataset"] / settings["run"]["model"]
    for config in sorted(parent.glob("*/config.yaml"), reverse=True):
        ended = (config.parent / "summary.json").exists()
        if ended != complete or not (ended or (config.parent / "checkpoints").is_dir()):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if _deciding(parse_yaml(read_text(config))) == wanted:
                return config.parent
    return None


def differences(folder: Path, settings: dict[str, Any]) -> list[str]:
    """What a run in `folder` has other than `settings`, an entry each. Raises UsageError if it holds no run."""
    try:
        there = parse_yaml(read_text(folder / "config.yaml"))
        pairs = [(_flat(_deciding(own)) | {name: own.get(name) for name in ORIGIN}) for own in (there, settings)]
    except (OSError, ValueError, TypeError, AttributeError):
        raise UsageError(f"--resume {folder}: no run, or one whose config.yaml is damaged") from None
    old, new = pairs
    return [
        f"{name} is {old.get(name)!r:.80} there, {new[name]!r:.80} here"
        for name in new
        if old.get(name) != new[name] and not (name in ORIGIN and settings.get(name) is None)
    ]


def _flat(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that say where a run happens."""
    parts = {part: dict(settings.get(part) or {}) for part in ("run", "method", "host", "data")}
    kept = INCIDENTAL - {*SEEDS}
    return {part: {name: v for name, v in values.items() if name not in kept} for part, values in parts.items()}


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """Commit of the code, with '+' if files differ from it; None outside a git checkout."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else None
