"""Run folders read back: what was set, what came out, and one clear line for each that cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils import identity
from utils.args import SEEDS
from utils.errors import UsageError, reason
from utils.files import changed_files, parse_json, parse_yaml, read_text

METRICS = ("A_auc", "A_avg", "A_last", "F_last", "BWT")  # fractions or None
NUMBERS = ("samples", "seconds", "trainable_parameters")
TABLES = ("config.yaml", "metrics.csv", "per_class.csv")
MOST_CELLS = 10**7  # tasks times classes of a table of accuracies
OPTIONAL = ("peak_memory_mb",)  # a number, None or absent
REPETITION = tuple(f"run.{name}" for name in SEEDS)
CONTENT = ":"  # ends the name of what was read, which may be that of an option of older runs
READ, UNKNOWN = ("data.train",), "unknown"  # of runs that do not say what they read


@dataclass(frozen=True)
class Run:
    """One run folder. config: `config.yaml`. summary: `summary.json`, None for a run that did not end."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any] | None

    @property
    def scene(self) -> tuple[str, str]:
        """(dataset, scenario): the table that the run belongs to."""
        return str(self.config["run"]["dataset"]), str(self.config["run"]["scenario"])

    @property
    def label(self) -> str:
        return str(self.summary["label"] if self.summary else self.config["run"]["model"])

    @property
    def seeds(self) -> tuple:
        return tuple(self.config["run"].get(name) for name in SEEDS)

    @property
    def measured(self) -> bool:
        """Whether it reports any accuracy; a stage that only writes a file does not."""
        return any(defined(self.summary[metric]) for metric in METRICS)

    def settings(self) -> dict[str, str]:
        """Option -> value as text, for all options that decide what was computed but the seeds, and what was read ->
        the first digits of its digest. Keys: run.x, method.x, host.x, data.x."""
        options = {name: str(value) for name, value in identity.deciding(self.config).items()}
        read = identity.read(self.config) or dict.fromkeys(READ, UNKNOWN)
        read = {f"{name}{CONTENT}": str(digest)[: identity.SHORT] for name, digest in read.items()}
        return {name: text for name, text in options.items() if name not in REPETITION} | read

    @property
    def stream(self) -> tuple[str | None, str | None]:
        """What came in which order: digests of the stream and of the training data, None where they are not known."""
        return self.summary.get("stream_sha256"), (identity.read(self.config) or {}).get("data.train")


def find_runs(given: list[Path]) -> list[Path]:
    """All run folders at or below the given folders, each once, sorted."""
    found = {}
    for folder in given:
        if not os.path.isdir(folder):  # unlike Path.is_dir it never raises
            raise UsageError(f"{folder}: no such folder, or not readable; give a run folder or a folder of runs")
        for config in folder.rglob("config.yaml"):
            found[config.resolve()] = config.parent
    if not found:
        raise UsageError(f"no run below {', '.join(map(str, given))}: a run folder holds a config.yaml")
    return sorted(found.values())


def shared_folder(given: list[Path]) -> Path:
    """The deepest folder above all run folders, or the one given folder of runs itself."""
    parents = [folder.parent if (folder / "config.yaml").exists() else folder for folder in given]
    if len(set(parents)) == 1:
        return parents[0]
    try:
        shared = Path(os.path.commonpath([parent.absolute() for parent in parents]))
    except ValueError:  # two drives
        shared = Path(parents[0].absolute().anchor)
    if shared == Path(shared.anchor):
        raise UsageError("the given runs share no folder; say where to write with --out DIR")
    return shared


def read_runs(folders: list[Path]) -> tuple[list[Run], list[str]]:
    """The readable runs, and one line for each that is not. Raises UsageError if none is readable."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UsageError as error:
            problems.append(str(error))
    if not runs:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"no readable run; {problems[0]}{more}")
    return runs, problems


def read_run(folder: Path) -> Run:
    """Raises UsageError if a file is damaged, lacks what the report needs, or is not what the run left."""
    config = _read(folder / "config.yaml", _parse_config)
    summary_path = folder / "summary.json"
    summary = _read(summary_path, _parse_summary) if summary_path.exists() else None
    digests = (summary or {}).get("sha256") or {}
    for name in changed_files(folder, {name: digests[name] for name in TABLES if name in digests}):
        raise UsageError(f"{folder / name} is not what the run left; remove the run folder or repeat the run")
    return Run(folder, config, summary)


def read_metrics(folder: Path) -> pd.DataFrame:
    """Rows of `metrics.csv`, numbers as numbers and empty cells as NaN. A half-written last line is passed over."""
    return _read(folder / "metrics.csv", _parse_metrics)


def read_class_accuracies(folder: Path) -> pd.DataFrame:
    """Columns task, slot, accuracy of `per_class.csv`: one row per task end and class met by then."""
    return _read(folder / "per_class.csv", _parse_class_accuracies)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What `parse` makes of a file's text; anything wrong with either becomes a UsageError of one line."""
    try:
        # Newlines as they are: a line cut between \r and \n is not a whole line.
        return parse(read_text(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; make it readable, or remove the run folder") from None
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {reason(error)}; remove the run folder or repeat the run") from None


def _parse_config(text: str) -> dict[str, Any]:
    config = parse_yaml(text)
    _require(config, ["run"])
    _require(config["run"], ["model", "dataset", "scenario", "seed"])
    _require(config.get("versions") or {}, [])
    for part in ("method", "host", "data"):
        _require(config.get(part) or {}, [])
    return config


def _parse_summary(text: str) -> dict[str, Any]:
    summary = parse_json(text)
    _require(summary, ["label", "needs_task_boundaries", *METRICS, *NUMBERS])
    _require(summary.get("sha256") or {}, [])
    if not isinstance(summary["label"], str):
        raise ValueError(f"label is {summary['label']!r:.40}, not a text")
    for name in (*METRICS, *NUMBERS, *OPTIONAL):
        value = summary.get(name)
        number = isinstance(value, float | int) and not abs(value) > 1e300
        if not number and not (value is None and name not in NUMBERS):
            raise ValueError(f"{name} is {value!r:.40}, not a number")
    return summary if summary.get("complete", True) else None


def _parse_metrics(text: str) -> pd.DataFrame:
    metrics = _whole_lines(text)
    columns = ["samples_seen", "nominal", "accuracy", "classes_exposed"]
    _require(dict(metrics), ["kind", *columns])
    metrics[columns] = metrics[columns].apply(pd.to_numeric)
    return metrics


def _parse_class_accuracies(text: str) -> pd.DataFrame:
    rows = _whole_lines(text)
    _require(dict(rows), ["task", "slot", "accuracy"])
    rows = rows[["task", "slot", "accuracy"]].apply(pd.to_numeric)
    if rows.isna().any(axis=None) or (rows[["task", "slot"]] < 0).any(axis=None):
        raise ValueError("a task, slot or accuracy is missing or negative")
    if len(rows) and (rows["task"].max() + 1.0) * (rows["slot"].max() + 1.0) > MOST_CELLS:
        raise ValueError("it names more tasks and classes than any stream has")
    return rows.astype({"task": int, "slot": int})


def _whole_lines(text: str) -> pd.DataFrame:
    """The table of a CSV text without what follows its last line break."""
    whole = text[: text.rfind("\n") + 1]
    if len({line.count(",") for line in whole.splitlines()}) > 1:
        raise ValueError("its rows have different lengths")
    return pd.read_csv(io.StringIO(whole), index_col=False)


def _require(table: Any, names: list[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"found {type(table).__name__} where names and values belong")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def defined(value: float | None) -> bool:
    return value is not None and value == value  # NaN differs from itself
