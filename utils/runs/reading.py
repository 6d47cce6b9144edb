"""Run folders read back: what was set, what came out, and one clear line for each that cannot be read."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.args import SEEDS
from utils.errors import UsageError, printable, reason
from utils.files.manifest import changed_files
from utils.files.text import parse_json, parse_yaml, read_text
from utils.runs import identity
from utils.runs.description import MOST_CLASSES
from utils.runs.fields import check_config, require
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

    def settings(self) -> dict[str, str]:
        """Option -> value as text, for all options that decide what was computed but the seeds, and what was read ->
        the first digits of its digest. Keys: run.x, method.x, host.x, data.x."""
        options = {name: printable(str(value)) for name, value in identity.deciding(self.config).items()}
        digests = (identity.read(self.config) or {}).items()
        read = {f"{name}{CONTENT}": str(digest)[: identity.SHORT] for name, digest in digests}
        return {name: text for name, text in options.items() if name not in REPETITION} | read

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
        found |= {os.path.realpath(path): path for path in run_folders(folder)}
    if not found:
        raise UsageError(f"no run below {', '.join(map(str, given))}: a run folder holds a config.yaml")
    return sorted(found.values())


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
    config = read_config(folder)
    # A link that leads nowhere is no sign of a run that goes on.
    summary = _read(folder / "summary.json", _parse_summary) if os.path.lexists(folder / "summary.json") else {}
    digests = summary.get("sha256") or {}
    for name in changed_files(folder, {name: digests[name] for name in TABLES if name in digests}):
        raise refusal(folder / name, "is not what the run left")
    if summary:
        _check_summary(folder, config, summary)
    return Run(folder, config, Summary.of(summary) if summary else None)


def read_config(folder: Path) -> dict[str, Any]:
    """Content of `config.yaml`. Raises UsageError if it is not what a run writes."""
    return _read(folder / "config.yaml", _parse_config)


def read_metrics(folder: Path) -> pd.DataFrame:
    """Rows of `metrics.csv`, numbers as numbers and empty cells as NaN. A half-written last line is passed over."""
    return _read(folder / "metrics.csv", _parse_metrics)


def read_class_accuracies(folder: Path) -> pd.DataFrame:
    """Columns task, slot, accuracy of `per_class.csv`: one row per task end and class met by then."""
    return _read(folder / "per_class.csv", _parse_class_accuracies)


def read_labels(folder: Path) -> tuple[list[int], dict[int, str]]:
    """Labels of the classes met by the end of a run, by slot, and their names by label, from `per_class.csv`."""
    rows = _read(folder / "per_class.csv", _parse_labels)
    last = rows[rows["task"] == rows["task"].max()].drop_duplicates("slot", keep="last").sort_values("slot")
    labels = last["label"].tolist()
    if not labels or last["slot"].tolist() != list(range(len(labels))) or len({*labels}) < len(labels):
        raise refusal(folder / "per_class.csv", "does not say which classes were met")
    return labels, dict(zip(labels, last["name"].tolist()))


def read_tasks(folder: Path) -> pd.DataFrame:
    """Rows of `per_task.csv`, none where there is no such file: after_task, measure, task, value."""
    if not os.path.lexists(folder / "per_task.csv"):
        return pd.DataFrame({name: [] for name in TASK_COLUMNS})
    return _read(folder / "per_task.csv", _parse_tasks)


def _check_summary(folder: Path, config: dict[str, Any], summary: dict[str, Any]) -> None:
    if identity.read(config) is not None and OWN_DIGEST not in summary:  # whoever writes one writes the other
        raise refusal(folder / "summary.json", f"lacks {OWN_DIGEST}, so it is not what the run left")
    try:
        tables = read_metrics(folder), read_class_accuracies(folder), read_tasks(folder)
    except UsageError:  # said where they are needed; a run with digests was refused already
        return
    try:
        check_claims(summary, config, *tables)
    except ValueError as error:
        raise refusal(folder / "summary.json", f"is not what the run left: {reason(error)}") from None


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What `parse` makes of a file's text; anything wrong with either becomes a UsageError of one line."""
    try:
        # Newlines as they are: a line cut between \r and \n is not a whole line.
        return parse(read_text(path, MOST[path.name]))
    except OSError as error:
        raise UsageError(printable(f"{path}: {error.strerror}; make it readable, or remove the run folder")) from None
    except ValueError as error:
        raise refusal(path, f"is damaged: {reason(error)}") from None


def refusal(path: Path, what: str) -> UsageError:
    return UsageError(printable(f"{path} {what}; remove the run folder or repeat the run"))


def _parse_config(text: str) -> dict[str, Any]:
    config = parse_yaml(text)
    check_config(config)
    return config


def _parse_summary(text: str) -> dict[str, Any]:
    summary = parse_json(text)
    check_summary(summary)
    return summary if summary.get("complete", True) else {}


def _parse_metrics(text: str) -> pd.DataFrame:
    rows = _whole_rows(text, ["kind", "samples_seen", "nominal", "task", "accuracy", "classes_exposed", "seconds"])
    numbers = rows.drop(columns="kind").apply(pd.to_numeric)
    if not (numbers.isna() | (numbers >= 0) & (numbers < MOST_IMAGES)).all(axis=None):
        raise ValueError("a number is below zero or beyond all bounds")
    if (numbers["accuracy"] > 1).any():
        raise ValueError("an accuracy is above 1")
    needed = {"samples_seen": rows["kind"].notna(), "classes_exposed": rows["kind"].notna()}
    needed |= {"nominal": rows["kind"] == "anytime", "task": rows["kind"] == "task_end"}
    for name, where in needed.items():
        if numbers.loc[where, name].isna().any():
            raise ValueError(f"a row has no {name}")
    return numbers.assign(kind=rows["kind"])


def _parse_class_accuracies(text: str) -> pd.DataFrame:
    rows = _whole_rows(text, ["task", "slot", "accuracy"]).apply(pd.to_numeric)
    if rows.isna().any(axis=None) or (rows < 0).any(axis=None) or (rows["accuracy"] > 1).any():
        raise ValueError("a task, slot or accuracy is missing, negative, or too large")
    if len(rows) and (rows["task"].max() + 1.0) * (rows["slot"].max() + 1.0) > MOST_CELLS:
        raise ValueError("it names more tasks and classes than any stream has")
    return rows.astype({"task": int, "slot": int})


def _parse_labels(text: str) -> pd.DataFrame:
    rows = _whole_rows(text, ["task", "slot", "label", "name"])
    numbers = rows.drop(columns="name").apply(pd.to_numeric)
    if numbers.isna().any(axis=None) or (numbers < 0).any(axis=None) or (numbers >= MOST_CLASSES).any(axis=None):
        raise ValueError("a task, slot or label is missing, negative, or too large")
    return numbers.astype(int).assign(name=rows["name"])


def _parse_tasks(text: str) -> pd.DataFrame:
    rows = _whole_rows(text, TASK_COLUMNS)
    numbers = rows.drop(columns="measure").apply(pd.to_numeric)
    tasks = numbers[["after_task", "task"]]
    # Before the first task there is -1.
    if tasks.isna().any(axis=None) or (tasks < [-1, 0]).any(axis=None) or (numbers["value"].dropna().abs() > 1).any():
        raise ValueError("a task is missing or negative, or an accuracy is too large")
    if len(rows) and ((tasks.max() + 1.0) ** 2 > MOST_CELLS).any():
        raise ValueError("it names more tasks than any stream has")
    return numbers.astype({"after_task": int, "task": int}).assign(measure=rows["measure"])


def _whole_rows(text: str, columns: list[str]) -> pd.DataFrame:
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
    if any(len(row) != len(heading) for row in rows):
        raise ValueError("its rows have different lengths")
    require(dict.fromkeys(heading), columns)
    places = [heading.index(name) for name in columns]
    return pd.DataFrame([[row[place] for place in places] for row in rows], columns=columns)
