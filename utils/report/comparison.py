"""Runs compared: one table per dataset and scenario, and its pictures.

Runs that agree in all options but seeds and places form one row, so different settings are never averaged silently.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import UsageError, printable
from utils.files.atomic import written_whole
from utils.report import differences, forgetting, sweep, tables
from utils.report.grouping import name_rows, newest_per_seed, stage_notes, stream_notes, unfinished_notes, unknown_notes
from utils.report.learning_curves import (
    CLASSES,
    FUNCTIONS,
    Curves,
    class_curves,
    draw_learning,
    first_and_last,
    function_curves,
)
from utils.report.markup import latex_table, markdown_table, markdown_text
from utils.report.ranking import draw_ranking, ranked
from utils.report.sweep_picture import draw_sweep
from utils.runs.plots import MOST_CURVES, draw_comparison, draw_forgetting, draw_tasks
from utils.runs.reading import (
    Run,
    find_runs,
    read_class_accuracies,
    read_metrics,
    read_runs,
    read_tasks,
)
from utils.runs.summary import defined
from utils.training.metrics import task_matrix

LATEX_HEAD = "% Tables for a document with \\usepackage{booktabs}; one tabular per dataset and scenario."

MOST_ROWS = 50  # of a picture; more take a minute to draw and are taller than any page

Rows = dict[str, list[Run]]  # row name -> its runs, one per seed
Sweep = tuple[list[sweep.Line], list[str]]  # lines, notes
Pictures = dict[str, Callable[[Path], bool]]  # file name -> what draws it, and says whether it could


def report(
    given: list[Path], out: Path, baseline: str | None = None, over: str | None = None, interval: bool = False
) -> None:
    """Prints the tables of all runs below the given folders, and writes them and the pictures to `out`.

    baseline: name of the row that the others are compared with, or "host". over: option over whose values A_auc is
    drawn. interval: in the tables, instead of the deviation; and drawn over the classes or functions learnt.
    """
    runs, problems = read_runs(find_runs(given))
    runs_of = defaultdict(list)
    for run in runs:
        runs_of[run.scene].append(run)
    scenes = {scene: rows_and_notes(runs_of[scene]) for scene in sorted(runs_of)}
    if baseline is not None:
        differences.check_baseline(baseline, [name for rows, _ in scenes.values() for name in rows])
    sweeps = {} if over is None else sweeps_of({scene: rows for scene, (rows, _) in scenes.items()}, over)

    names = file_names(scenes)
    sections, tabulars, lines = [], [LATEX_HEAD], []
    pictures: Pictures = {}
    numbers: dict[str, str] = {}
    told: list[str] = []
    for scene, (rows, notes) in scenes.items():
        cells = tables.table(rows, interval) if rows else []
        sections.append(section(scene, cells, notes))
        if not rows:
            continue
        tabulars.append(f"% {printable(', '.join(scene))}\n{latex_table(cells)}")
        lines += tables.per_seed(scene, rows)
        if baseline is not None:
            comparisons, about = differences.compare(rows, baseline)
            sections.append(difference_section(comparisons, about, baseline))
            told += filter(None, (differences.sentence(one, ", ".join(scene)) for one in comparisons))
        drawings, functions, unread = drawings_of(rows, ", ".join(scene), names[scene], interval)
        if functions:
            sections.append(functions_section(functions))
        if over is not None and scene in sweeps:
            swept, left_out = sweeps[scene]
            sections.append(sweep_section(over, swept, left_out))
            numbers[f"over-{over}-{names[scene]}.csv"] = sweep.csv_of(scene, over, swept)
            drawings[f"over-{over}-{names[scene]}.png"] = partial(
                draw_sweep, lines=swept, option=over, title=", ".join(scene)
            )
        pictures |= drawings
        problems += unread

    warnings = [printable(f"warning: {problem}") for problem in problems]
    legend = f"{tables.INTERVAL if interval else tables.SPREAD} {tables.LEGEND}"
    sections += [legend] if baseline is None else [legend, differences.LEGEND]
    print("\n\n".join(sections) + "\n")
    for warning in warnings:
        print(warning, file=sys.stderr)
    # Indented, so that Markdown sets them as they stand.
    parts = {"table.md": [*sections, *(f"    {warning}" for warning in warnings)], "table.tex": tabulars}
    texts = {name: "\n\n".join(texts) + "\n" for name, texts in parts.items()}
    texts["seeds.csv"] = pd.DataFrame(lines, columns=tables.PER_SEED).to_csv(index=False)
    write(out, texts | numbers, pictures)
    if 0 < len(told) <= differences.MOST_SENTENCES:
        print("", *map(printable, told), f"The whole table: {out / 'table.md'}", sep="\n")


def write(out: Path, texts: dict[str, str], pictures: Pictures) -> None:
    """Writes texts (file name -> content) and pictures into `out`, and prints where they are."""
    try:
        for name, text in texts.items():
            with written_whole(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(out / name)
        for name, draw in pictures.items():
            if draw(out / name):
                print(out / name)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; name another folder with --out DIR") from None


# Sections: one dataset and scenario each


def rows_and_notes(runs: list[Run]) -> tuple[Rows, list[str]]:
    """The rows of a table, and what its reader must know about runs that are left out or do not fit together."""
    finished = [run for run in runs if run.summary]
    kept, notes = newest_per_seed([run for run in finished if run.measured])
    rows = name_rows(kept)
    return rows, [*notes, *stream_notes(rows), *unknown_notes(kept), *stage_notes(finished), *unfinished_notes(runs)]


def section(scene: tuple[str, str], cells: list[list[str]], notes: list[str]) -> str:
    """Heading, table and notes."""
    parts = [markdown_table(cells)] if cells else []
    return "\n\n".join([f"## {markdown_text(', '.join(scene))}", *parts, *map(markdown_text, notes)])


def difference_section(comparisons: list[differences.Comparison], notes: list[str], baseline: str) -> str:
    """Heading, table of differences and notes."""
    parts = [markdown_table(differences.table(comparisons))] if comparisons else []
    heading = f"### Difference to {'the host' if baseline == differences.HOST else baseline}"
    return "\n\n".join([markdown_text(heading), *parts, *map(markdown_text, notes)])


def functions_section(curves: dict[str, Curves]) -> str:
    """Heading and table of how the error rises while functions are learnt."""
    return "\n\n".join(["### Mean over the functions learnt", markdown_table(first_and_last(curves))])


def sweeps_of(tables_of: dict[tuple[str, str], Rows], option: str) -> dict[tuple[str, str], Sweep]:
    """Lines over an option, of the scenes that have any. Raises UsageError where they cannot be drawn or read."""
    sweep.check_option(option, [run for rows in tables_of.values() for runs in rows.values() for run in runs])
    found = {scene: sweep.lines_over(rows, option) for scene, rows in tables_of.items()}
    if not any(lines for lines, _ in found.values()):
        raise UsageError(f"--over {option}: no two runs with an A_auc differ in {option} and seeds alone")
    for lines, _ in found.values():
        sweep.check_lines(option, lines)
    return {scene: (lines, notes) for scene, (lines, notes) in found.items() if lines}


def sweep_section(option: str, lines: list[sweep.Line], notes: list[str]) -> str:
    """Heading, table of a line for each value, and notes."""
    heading = markdown_text(f"### A_auc over {option}")
    return "\n\n".join([heading, markdown_table(sweep.table(option, lines)), *map(markdown_text, notes)])


# Pictures


def file_names(scenes: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """How the files of each table's pictures end: the dataset, with the scenario if there are several; each once."""
    names, taken = {}, set()
    for scene in scenes:
        several = sum(dataset == scene[0] for dataset, _ in scenes) > 1
        plain = re.sub(r"[^\w.+-]", "_", "-".join(scene) if several else scene[0], flags=re.ASCII)
        name, number = plain, 1
        while name.casefold() in taken:  # some file systems do not tell A from a
            name, number = f"{plain}-{number + 1}", number + 1
        names[scene] = name
        taken.add(name.casefold())
    return names


def drawings_of(
    rows: Rows, title: str, name: str, interval: bool = False
) -> tuple[Pictures, dict[str, Curves], list[str]]:
    """The pictures of one table, the curves over functions learnt by row, and one line for each file that cannot be
    read. name: how the file names end. interval: also what is drawn over the classes or functions learnt."""
    pictures: Pictures = {}
    if len(rows) > MOST_ROWS:
        title = f"{title}: the best {MOST_ROWS} of {len(rows):,} methods and settings"
        rows = best_of(rows, MOST_ROWS)
    metrics, unread = read_each(rows, read_metrics, "its curve is missing in the picture")
    anytime = {row: [run for run in runs if has_anytime(run)] for row, runs in metrics.items()}
    curves = {row: runs for row, runs in anytime.items() if runs}
    if len(curves) > MOST_CURVES:
        pictures[f"comparison-{name}.png"] = partial(draw_ranking, ranking=ranked(rows, curves), title=title)
    elif curves:
        pictures[f"comparison-{name}.png"] = partial(draw_comparison, curves=curves, title=title)

    accuracies, unread_classes = read_each(
        rows, read_class_accuracies, "it does not count in the pictures of forgetting"
    )
    for kind, vector_of, columns in (
        ("forgetting", forgetting.per_task, "task in which classes were first met"),
        ("forgetting-classes", forgetting.per_class, "class, in order of first appearance"),
    ):
        points = 100 * forgetting.mean_over_seeds([[vector_of(run) for run in runs] for runs in accuracies.values()])
        shown = ~np.isnan(points).all(axis=1)
        if shown.any():
            names = [row for row, is_shown in zip(accuracies, shown) if is_shown]
            pictures[f"{kind}-{name}.png"] = partial(
                draw_forgetting, points=points[shown], names=names, columns=columns, title=f"Forgetting, {title}"
            )
    tasks, unread_tasks = read_each(rows, read_tasks, "it does not count in the picture of tasks")
    matrices = {row: mean_matrix([task_matrix(run, "task") for run in runs]) for row, runs in tasks.items()}
    functions: dict[str, Curves] = {}
    if interval:
        classes = defined_of({row: class_curves(runs) for row, runs in metrics.items()})
        functions = defined_of({row: function_curves(runs) for row, runs in tasks.items()})
        for kind, curves_of, axes in (("classes", classes, CLASSES), ("functions", functions, FUNCTIONS)):
            if curves_of:
                pictures[f"{kind}-{name}.png"] = partial(draw_learning, curves=curves_of, axes=axes, title=title)
    if matrices := {row: 100 * matrix for row, matrix in matrices.items() if len(matrix)}:
        about = f"Accuracy on each task, the task being told, {title}"
        pictures[f"tasks-{name}.png"] = partial(draw_tasks, matrices=matrices, title=about)
    return pictures, functions, unread + unread_classes + unread_tasks


def defined_of(curves: dict[str, Curves | None]) -> dict[str, Curves]:
    """Those of the rows that have any."""
    return {row: own for row, own in curves.items() if own is not None}


def best_of(rows: Rows, count: int) -> Rows:
    """The rows of the largest mean A_auc, in the order in which they stood."""

    def score(name: str) -> float:
        values = [value for value in (run.ended.measures["A_auc"] for run in rows[name]) if defined(value)]
        return sum(values) / len(values) if values else -1.0

    best = {*sorted(rows, key=score, reverse=True)[:count]}
    return {name: runs for name, runs in rows.items() if name in best}


def mean_matrix(matrices: list[np.ndarray]) -> np.ndarray:
    """Mean of the matrices of runs of one size; of those that are as large as the largest."""
    size = max(map(len, matrices))
    return np.mean([matrix for matrix in matrices if len(matrix) == size], axis=0)


def read_each(rows: Rows, read: Callable[[Path], Any], cost: str) -> tuple[dict[str, list[Any]], list[str]]:
    """Row name -> what `read` makes of each run folder, and one line for each unreadable one. cost: what it costs."""
    found, problems = defaultdict(list), []
    for name, runs in rows.items():
        for run in runs:
            try:
                found[name].append(read(run.folder))
            except UsageError as error:
                problems.append(f"{error}; {cost}")
    return dict(found), problems


def has_anytime(metrics: pd.DataFrame) -> bool:
    return bool((metrics["accuracy"].notna() & (metrics["kind"] == "anytime")).any())
