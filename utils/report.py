"""Tables and comparison pictures from run folders: `python -m utils.report runs`.

Runs that agree in all options but seeds and places form one row, so different settings are never averaged silently.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from utils.args import INCIDENTAL, SEEDS, Parser
from utils.errors import UsageError
from utils.files import written_whole
from utils.plots import draw_comparison

METRICS = ("A_auc", "A_avg", "A_last", "F_last", "BWT")  # fractions or None
NUMBERS = ("samples", "seconds", "trainable_parameters")
HEADER = ["method", "seeds", *(f"{metric} (%)" for metric in METRICS), "borders", "trainable parameters", "images/s"]
LEGEND = (
    "Mean ± sample standard deviation over seeds. borders: whether the method is told of task borders. "
    "images/s: images of the stream per second of the whole run."
)


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
        return any(_defined(self.summary[metric]) for metric in METRICS)

    def settings(self) -> dict[str, str]:
        """Option -> value as text, for all options that decide what was computed. Keys: run.x, method.x, host.x."""
        return {
            f"{part}.{name}": str(value)
            for part in ("run", "method", "host")
            for name, value in (self.config.get(part) or {}).items()
            if not (part == "run" and name in INCIDENTAL)
        }


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m utils.report", description="Tables and comparison pictures from run folders.")
    parser.add_argument("runs", nargs="*", default=["runs"], help="run folders, or folders above them [runs]")
    parser.add_argument("--out", metavar="DIR", help="where to write [the folder that the given runs share]")
    try:
        options = parser.parse(sys.argv[1:] if argv is None else argv)
        given = [Path(name) for name in options.runs]
        report(given, Path(options.out) if options.out else shared_folder(given))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(given: list[Path], out: Path) -> None:
    """Prints the tables of all runs below the given folders, and writes them and the pictures to `out`."""
    runs, problems = read_runs(find_runs(given))
    scenes = defaultdict(list)
    for run in runs:
        scenes[run.scene].append(run)

    sections, pictures = [], {}
    for scene in sorted(scenes):
        finished = [run for run in scenes[scene] if run.summary]
        kept, notes = newest_per_seed([run for run in finished if run.measured])
        rows = name_rows(kept)
        notes += [*stream_notes(rows), *stage_notes(finished), *unfinished_notes(scenes[scene])]
        sections.append(section(scene, rows, notes))
        curves, unread = read_curves(rows)
        problems += unread
        if curves:
            several = sum(dataset == scene[0] for dataset, _ in scenes) > 1
            pictures[f"comparison-{'-'.join(scene) if several else scene[0]}.png"] = (curves, ", ".join(scene))

    warnings = [f"warning: {problem}" for problem in problems]
    sections.append(LEGEND)
    print("\n\n".join(sections) + "\n")
    for warning in warnings:
        print(warning, file=sys.stderr)
    write(out, "\n\n".join([*sections, *warnings]) + "\n", pictures)


def write(out: Path, table: str, pictures: dict[str, tuple[dict[str, list[pd.DataFrame]], str]]) -> None:
    """Writes `table.md` and the pictures (file name -> curves and title) into `out`, and prints where they are."""
    try:
        with written_whole(out / "table.md") as temporary:
            temporary.write_text(table, encoding="utf-8")
        print(out / "table.md")
        for name, (curves, title) in pictures.items():
            draw_comparison(out / name, curves, title)
            print(out / name)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; name another folder with --out DIR") from None


# Finding and reading


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
    """Raises UsageError if a file is damaged or lacks what the report needs."""
    config = _read(folder / "config.yaml", _parse_config)
    summary_path = folder / "summary.json"
    return Run(folder, config, _read(summary_path, _parse_summary) if summary_path.exists() else None)


def read_metrics(folder: Path) -> pd.DataFrame:
    """Rows of `metrics.csv`, numbers as numbers and empty cells as NaN. A half-written last line is passed over."""
    return _read(folder / "metrics.csv", _parse_metrics)


def read_curves(rows: dict[str, list[Run]]) -> tuple[dict[str, list[pd.DataFrame]], list[str]]:
    """Row name -> metrics of its runs that have anytime accuracies, and one line for each unreadable file."""
    curves, problems = defaultdict(list), []
    for name, runs in rows.items():
        for run in runs:
            try:
                metrics = read_metrics(run.folder)
            except UsageError as error:
                problems.append(f"{error}; its curve is missing in the picture")
                continue
            if (metrics["accuracy"].notna() & (metrics["kind"] == "anytime")).any():
                curves[name].append(metrics)
    return dict(curves), problems


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What `parse` makes of a file's text; anything wrong with either becomes a UsageError of one line."""
    try:
        # Newlines as they are: a line cut between \r and \n is not a whole line.
        return parse(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; make it readable, or remove the run folder") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is damaged: {reason}; remove the run folder or repeat the run") from None


def _parse_config(text: str) -> dict[str, Any]:
    config = yaml.safe_load(text)
    _require(config, ["run"])
    _require(config["run"], ["model", "dataset", "scenario", "seed"])
    for part in ("method", "host"):
        _require(config.get(part) or {}, [])
    return config


def _parse_summary(text: str) -> dict[str, Any]:
    summary = json.loads(text)
    _require(summary, ["label", "needs_task_boundaries", *METRICS, *NUMBERS])
    for name in (*METRICS, *NUMBERS):
        if not isinstance(summary[name], float | int) and not (summary[name] is None and name in METRICS):
            raise ValueError(f"{name} is {summary[name]!r}, not a number")
    return summary if summary.get("complete", True) else None


def _parse_metrics(text: str) -> pd.DataFrame:
    whole_lines = text[: text.rfind("\n") + 1]
    metrics = pd.read_csv(io.StringIO(whole_lines))
    columns = ["samples_seen", "nominal", "accuracy", "classes_exposed"]
    _require(dict(metrics), ["kind", *columns])
    metrics[columns] = metrics[columns].apply(pd.to_numeric)
    return metrics


def _require(table: Any, names: list[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"found {type(table).__name__} where names and values belong")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


# Rows


def newest_per_seed(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Of runs that agree in settings and seeds only the newest, and one line for each that was repeated."""
    repetitions = defaultdict(list)
    for run in runs:
        repetitions[run.label, frozenset(run.settings().items()), run.seeds].append(run)
    kept, notes = [], []
    for same in repetitions.values():
        # Folders are named by their time, so the last name is the newest run.
        newest = max(same, key=lambda run: run.folder.name)
        kept.append(newest)
        if len(same) > 1:
            notes.append(f"{newest.label}, seed {newest.seeds[0]}: {len(same)} runs, only {newest.folder.name} counts.")
    return kept, notes


def name_rows(runs: list[Run]) -> dict[str, list[Run]]:
    """Row name -> runs of equal settings by seed. Rows of the same label are told apart by the options that differ."""
    groups = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.label][frozenset(run.settings().items())].append(run)
    rows = {}
    for label in sorted(groups, key=_beside_host):
        settings = [dict(group) for group in groups[label]]
        members = list(groups[label].values())
        differing = [
            key for key in sorted(set().union(*settings)) if len({options.get(key) for options in settings}) > 1
        ]
        # What was typed says most in fewest words; where that leaves two rows with one name, all that differs is told.
        names = [
            _name(label, options, [k for k in differing if _typed(k, group)])
            for options, group in zip(settings, members, strict=True)
        ]
        if len(set(names)) < len(names):
            names = [_name(label, options, differing) for options in settings]
        named = {
            name: sorted(group, key=lambda run: str(run.seeds)) for name, group in zip(names, members, strict=True)
        }
        rows |= dict(sorted(named.items()))
    return rows


def _name(label: str, options: dict[str, str], shown: list[str]) -> str:
    return " ".join([label, *(f"{_short(key)}={options.get(key, 'unset')}" for key in shown)])


def _typed(key: str, group: list[Run]) -> bool:
    """Whether an option (run.x, method.x, host.x) was given on the command line."""
    return any((run.config.get("origin") or {}).get(key.partition(".")[2]) == "command line" for run in group)


def _beside_host(label: str) -> tuple[str, bool]:
    """Sort key that puts "mepo (misa)" right after "misa"."""
    method, _, host = label.partition(" (")
    return (host.removesuffix(")") or method, bool(host))


def _short(key: str) -> str:
    """An option's name as on the command line; a host's options keep their prefix."""
    return key.removeprefix("run.").removeprefix("method.")


# Notes under a table


def stream_notes(rows: dict[str, list[Run]]) -> list[str]:
    """Says for which seeds the rows did not see the same images in the same order."""
    streams = defaultdict(set)
    for run in (run for runs in rows.values() for run in runs):
        options = run.config["run"]
        seed = options["seed"] if options.get("stream_seed") is None else options["stream_seed"]
        streams[seed].add(run.summary.get("stream_sha256"))
    unequal = sorted(str(seed) for seed, hashes in streams.items() if len(hashes) > 1)
    return [f"Rows did not all see the same stream for seed {', '.join(unequal)}."] if unequal else []


def stage_notes(finished: list[Run]) -> list[str]:
    counts = Counter(run.label for run in finished if not run.measured)
    listed = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
    return [f"Left out, stages without an accuracy (number of runs): {listed}."] if counts else []


def unfinished_notes(runs: list[Run]) -> list[str]:
    """One line on the runs that did not end and how far they came."""
    listed = ", ".join(f"{run.label}/{run.folder.name} ({_progress(run)})" for run in runs if run.summary is None)
    return [f"Left out, not finished: {listed}."] if listed else []


def _progress(run: Run) -> str:
    try:
        metrics = read_metrics(run.folder)
    except UsageError:  # often killed before its first line was whole
        return "no readable evaluation"
    return f"evaluated at {metrics['samples_seen'].max():,.0f} images" if len(metrics) else "no evaluation yet"


# Markdown


def section(scene: tuple[str, str], rows: dict[str, list[Run]], notes: list[str]) -> str:
    """Heading, table and notes of one dataset and scenario."""
    parts = [f"## {scene[0]}, {scene[1]}"]
    if rows:
        parts += [markdown_table([HEADER, *(cells(name, runs) for name, runs in rows.items())])]
    return "\n\n".join([*parts, *notes])


def cells(name: str, runs: list[Run]) -> list[str]:
    """One row of the table."""
    summaries = [run.summary for run in runs]
    seconds, samples = (sum(summary[key] for summary in summaries) for key in ("seconds", "samples"))
    return [
        name,
        str(len(runs)),
        *(percent([summary[metric] for summary in summaries]) for metric in METRICS),
        "yes" if summaries[0]["needs_task_boundaries"] else "no",
        f"{summaries[0]['trainable_parameters']:,}",
        f"{samples / seconds:,.0f}" if seconds else "–",
    ]


def percent(fractions: list[float | None]) -> str:
    """Mean ± sample standard deviation in percent. If some values are undefined, the number of the others is told."""
    values = [100 * value for value in fractions if _defined(value)]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    share = f" (of {len(values)})" if len(values) < len(fractions) else ""
    return f"{statistics.fmean(values):.2f}{spread}{share}"


def markdown_table(rows: list[list[str]]) -> str:
    """A GitHub table whose columns line up in plain text too; the first column is set left, the others right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in lines
    )


def _defined(value: float | None) -> bool:
    return value is not None and value == value  # NaN differs from itself


if __name__ == "__main__":
    sys.exit(main())
