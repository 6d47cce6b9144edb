"""Run folders read back: what was set, what came out, and one clear line for each that cannot be read."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.args import SEEDS
from utils.errors import UsageError, printable, reason
from utils.files.manifest import changed_files
from utils.files.text import as_text, parse_json, parse_yaml, read_bytes
from utils.runs import identity
from utils.runs.description import MOST_CLASSES
from utils.runs.fields import MOST_NAMES, check_entry, require
from utils.runs.summary import OWN_DIGEST, Summary, check_claims, check_summary, defined

# Bytes of a file up to which it is read. Those of real runs have a few thousand, of long ones some millions.
MOST = {
    "config.yaml": 2**16,
    "summary.json": 2**16,
    "metrics.csv": 2**24,
    "per_class.csv": 2**25,
    "per_task.csv": 2**25,
}
TABLES = ("config.yaml", "metrics.csv", "per_class.csv", "per_task.csv")
TASK_COLUMNS = ["after_task", "measure", "task", "value"]
NO_TASKS = pd.DataFrame({name: [] for name in TASK_COLUMNS})
MOST_CELLS = 10**7  # tasks times classes of a table of accuracies
MOST_IMAGES = 1e15
REPETITION = tuple(f"run.{name}" for name in SEEDS)
CONTENT = ":"  # ends the name of what was read, which may be that of an option of older runs


@dataclass(frozen=True)
class Run:
    """One run folder. config: `config.yaml`. summary: `summary.json`, None for a run that did not end."""

    folder: Path
    config: dict[str, Any]
    summary: Summary | None

    @property
    def scene(self) -> tuple[str, str]:
        """(dataset, scenario): the table that the run belongs to."""
        return self.config["run"]["dataset"], self.config["run"]["scenario"]

    @property
    def ended(self) -> Summary:
        """The summary of a run that has ended."""
        if self.summary is None:
            raise ValueError(f"{self.folder} has not ended")
        return self.summary

    @property
    def label(self) -> str:
        return self.summary.label if self.summary else self.config["run"]["model"]

    @property
    def seeds(self) -> tuple:
        return tuple(self.config["run"].get(name) for name in SEEDS)

    @property
    def measured(self) -> bool:
        """Whether it reports any accuracy; a stage that only writes a file does not."""
        return any(map(defined, self.ended.measures.values()))

    @cached_property
    def settings(self) -> dict[str, str]:
        """Option -> value as text, for all options that decide what was computed but the seeds, and what was read ->
        the first digits of its digest. Keys: run.x, method.x, host.x, data.x."""
        options = identity.deciding(self.config).items()
        digests = (identity.read(self.config) or {}).items()
        read = {f"{name}{CONTENT}": digest[: identity.SHORT] for name, digest in digests if digest is not None}
        return {name: printable(str(value)) for name, value in options if name not in REPETITION} | read

    @property
    def stream(self) -> tuple[str | None, str | None]:
        """What came in which order: digests of the stream and of the training data, None where they are not known."""
        return self.ended.stream_sha256, (identity.read(self.config) or {}).get("data.train")


def find_runs(given: list[Path]) -> list[Path]:
    """All run folders at or below the given folders, each once, sorted."""
    found: dict[str, Path] = {}
    for folder in given:
        if not os.path.isdir(folder):  # unlike Path.is_dir it never raises
            raise UsageError(f"{folder}: no such folder, or not readable; give a run folder or a folder of runs")
        top = Path(folder)
        real = os.path.realpath(top)  # no link is followed below it
        found |= {os.path.join(real, *path.parts[len(top.parts) :]): path for path in run_folders(top)}
    if not found:
        raise UsageError(f"no run below {', '.join(map(str, given))}: a run folder holds a config.yaml")
    return sorted(found.values(), key=lambda path: path.parts)


def run_folders(folder: Path) -> Iterator[Path]:
    """The run folders at or below a folder. Links to folders are not followed, but for the folder itself."""
    for path, _, files in os.walk(folder):
        if "config.yaml" in files:
            yield Path(path)


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
    """Raises UsageError if a file is damaged, holds what it cannot, or is not what the run left, or if the summary
    says other than the tables that it was made from."""
    content = {"config.yaml": _content(folder, "config.yaml")}  # each file is read once
    config = _parsed(folder, "config.yaml", content["config.yaml"], _parse_config)
    # A link that leads nowhere is no sign of a run that goes on.
    if not os.path.lexists(os.path.join(folder, "summary.json")):
        return Run(folder, config, None)
    summary = _read(folder, "summary.json", _parse_summary)
    digests = summary.get("sha256") or {}
    for name in TABLES if summary else ():
        if name not in content and os.path.lexists(os.path.join(folder, name)):
            with contextlib.suppress(UsageError):  # of a table that is too long
                content[name] = _content(folder, name)
        if name in digests and not _is_as_left(folder, name, content.get(name), digests[name]):
            raise refusal(folder / name, "is not what the run left")
    if summary:
        _check_summary(folder, config, summary, content)
    return Run(folder, config, Summary.of(summary) if summary else None)


def _is_as_left(folder: Path, name: str, content: bytes | None, digest: str) -> bool:
    if content is None:
        return not changed_files(folder, {name: digest})
    return hashlib.sha256(content).hexdigest() == digest


def read_config(folder: Path) -> dict[str, Any]:
    """Content of `config.yaml`. Raises UsageError if it is not what a run writes."""
    return _read(folder, "config.yaml", _parse_config)


def read_metrics(folder: Path) -> pd.DataFrame:
    """Rows of `metrics.csv`, numbers as numbers and empty cells as NaN. A half-written last line is passed over."""
    return pd.DataFrame(_read(folder, "metrics.csv", _parse_metrics))


def read_class_accuracies(folder: Path) -> pd.DataFrame:
    """Columns task, slot, accuracy of `per_class.csv`: one row per task end and class met by then."""
    return pd.DataFrame(_read(folder, "per_class.csv", _parse_class_accuracies))


def read_labels(folder: Path) -> tuple[list[int], dict[int, str]]:
    """Labels of the classes met by the end of a run, by slot, and their names by label, from `per_class.csv`."""
    rows = pd.DataFrame(_read(folder, "per_class.csv", _parse_labels))
    last = rows[rows["task"] == rows["task"].max()].drop_duplicates("slot", keep="last").sort_values("slot")
    labels = last["label"].tolist()
    if not labels or last["slot"].tolist() != list(range(len(labels))) or len({*labels}) < len(labels):
        raise refusal(folder / "per_class.csv", "does not say which classes were met")
    return labels, dict(zip(labels, last["name"].tolist()))


def read_tasks(folder: Path) -> pd.DataFrame:
    """Rows of `per_task.csv`, none where there is no such file: after_task, measure, task, value."""
    if not os.path.lexists(os.path.join(folder, "per_task.csv")):
        return NO_TASKS
    return _read(folder, "per_task.csv", _parse_tasks)


def _check_summary(folder: Path, config: dict[str, Any], summary: dict[str, Any], content: dict[str, bytes]) -> None:
    if identity.read(config) is not None and OWN_DIGEST not in summary:  # whoever writes one writes the other
        raise refusal(folder / "summary.json", f"lacks {OWN_DIGEST}, so it is not what the run left")
    try:
        metrics, classes = (
            _parsed(folder, name, content[name] if name in content else _content(folder, name), parse)
            for name, parse in (("metrics.csv", _parse_metrics), ("per_class.csv", _parse_class_accuracies))
        )
        tasks = read_tasks(folder)
    except UsageError:  # said where they are needed; a run with digests was refused already
        return
    try:
        check_claims(summary, config, metrics, classes, tasks)
    except ValueError as error:
        raise refusal(folder / "summary.json", f"is not what the run left: {reason(error)}") from None


def _read(folder: Path, name: str, parse: Callable[[str], Any]) -> Any:
    """What `parse` makes of a file's text; anything wrong with either becomes a UsageError of one line."""
    return _parsed(folder, name, _content(folder, name), parse)


def _content(folder: Path, name: str) -> bytes:
    path = os.path.join(folder, name)  # `/` takes as long as opening a file does
    try:
        return read_bytes(path, MOST[name])
    except OSError as error:
        raise UsageError(printable(f"{path}: {error.strerror}; make it readable, or remove the run folder")) from None
    except ValueError as error:
        raise refusal(path, f"is damaged: {reason(error)}") from None


def _parsed(folder: Path, name: str, content: bytes, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(as_text(content))
    except ValueError as error:
        raise refusal(folder / name, f"is damaged: {reason(error)}") from None


def refusal(path: Path | str, what: str) -> UsageError:
    return UsageError(printable(f"{path} {what}; remove the run folder or repeat the run"))


def _parse_config(text: str) -> dict[str, Any]:
    config = parse_yaml(text, check_entry)
    require(config, ["run"])
    if len(config) > MOST_NAMES:
        raise ValueError("it has too many entries")
    return config


def _parse_summary(text: str) -> dict[str, Any]:
    summary = parse_json(text)
    check_summary(summary)
    return summary if summary.get("complete", True) else {}


def _parse_metrics(text: str) -> dict[str, np.ndarray]:
    names = ["kind", "samples_seen", "nominal", "task", "accuracy", "classes_exposed", "seconds"]
    if "train_accuracy" in text[: text.find("\n")].split(","):
        names.append("train_accuracy")
    rows = _whole_rows(text, names)
    kinds = np.array(rows.pop("kind"), dtype=object)
    table = _numbers(rows.values())
    if ((table < 0) | (table >= MOST_IMAGES)).any():
        raise ValueError("a number is below zero or beyond all bounds")
    numbers, undefined = dict(zip(rows, table)), dict(zip(rows, np.isnan(table)))
    if any((numbers[name] > 1).any() for name in ("accuracy", "train_accuracy") if name in numbers):
        raise ValueError("an accuracy is above 1")
    needed = {"samples_seen": True, "classes_exposed": True, "nominal": kinds == "anytime", "task": kinds == "task_end"}
    for name, where in needed.items():
        if (undefined[name] & where).any():
            raise ValueError(f"a row has no {name}")
    return numbers | {"kind": kinds}


def _parse_class_accuracies(text: str) -> dict[str, np.ndarray]:
    names = ["task", "slot", "accuracy"]
    table = _numbers(_whole_rows(text, names).values())
    rows = dict(zip(names, table))
    if not (table >= 0).all() or (rows["accuracy"] > 1).any():
        raise ValueError("a task, slot or accuracy is missing, negative, or too large")
    if len(rows["task"]) and (rows["task"].max() + 1.0) * (rows["slot"].max() + 1.0) > MOST_CELLS:
        raise ValueError("it names more tasks and classes than any stream has")
    return rows | {name: rows[name].astype(int) for name in ("task", "slot")}


def _parse_labels(text: str) -> dict[str, Any]:
    rows = _whole_rows(text, ["task", "slot", "label", "name"])
    numbers = _numbers(rows[name] for name in ("task", "slot", "label"))
    if not ((numbers >= 0) & (numbers < MOST_CLASSES)).all():
        raise ValueError("a task, slot or label is missing, negative, or too large")
    return dict(zip(("task", "slot", "label"), numbers.astype(int))) | {"name": rows["name"]}


def _numbers(columns: Iterable[Sequence[str]]) -> np.ndarray:
    """Cells as float64 [columns, rows], NaN where empty. Raises ValueError for what is no number."""
    full = (column if all(column) else [cell or "nan" for cell in column] for column in columns)
    return np.array([[*map(float, column)] for column in full])


def _parse_tasks(text: str) -> pd.DataFrame:
    rows = pd.DataFrame(_whole_rows(text, TASK_COLUMNS))
    numbers = rows.drop(columns="measure").apply(pd.to_numeric)
    tasks = numbers[["after_task", "task"]]
    # Before the first task there is -1.
    is_number = rows["measure"].astype(str).str.startswith(("mse_", "entropy_"))
    if tasks.isna().any(axis=None) or (tasks < [-1, 0]).any(axis=None):
        raise ValueError("a task is missing or negative")
    if (numbers["value"][~is_number].abs() > 1).any() or (numbers["value"][is_number] < 0).any():
        raise ValueError("an accuracy is too large, or a squared error or an entropy below zero")
    if len(rows) and ((tasks.max() + 1.0) ** 2 > MOST_CELLS).any():
        raise ValueError("it names more tasks than any stream has")
    return numbers.astype({"after_task": int, "task": int}).assign(measure=rows["measure"])


def _whole_rows(text: str, columns: list[str]) -> dict[str, Sequence[str]]:
    """These columns, as text, of a CSV text without its last row if that is not whole."""
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        raise ValueError("it is empty")
    try:
        heading, *rows = csv.reader(io.StringIO(whole, newline=""))
    except csv.Error as error:
        raise ValueError(reason(error)) from None
    if rows and whole.count('"') % 2:  # it was cut behind a line break in a text
        rows.pop()
    if not {*map(len, rows)} <= {len(heading)}:
        raise ValueError("its rows have different lengths")
    require(dict.fromkeys(heading), columns)
    cells: list[Sequence[str]] = [*zip(*rows)] or [()] * len(heading)
    return {name: cells[heading.index(name)] for name in columns}
