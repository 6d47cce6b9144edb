"""A_auc over the values of one option: a line for each method with each setting of its other options."""

from __future__ import annotations

import difflib
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from utils.errors import UsageError
from utils.report.grouping import differing_keys, host_in, key_of, name_rows, short, wrapper_in
from utils.report.tables import percent
from utils.runs.reading import Run
from utils.runs.summary import defined

MOST_LINES = 4  # of a panel that can be told from each other
COLUMNS = ["dataset", "scenario", "method", "option", "value", "seeds", "A_auc", "A_auc_std", "best"]

Rows = dict[str, list[Run]]


@dataclass(frozen=True)
class Line:
    """A method with one setting of its other options. panel: the method, or its host if it has one.

    wrapper: mepo of "mepo (X)", else "". scores: value of the option, rising -> A_auc of each seed, as fractions.
    """

    name: str
    panel: str
    wrapper: str
    scores: dict[float, list[float]]
    settings: dict[str, str]  # of its first run

    def mean(self, value: float) -> float:
        return statistics.fmean(self.scores[value])

    def deviation(self, value: float) -> float:
        """Sample standard deviation over seeds; NaN of one."""
        return statistics.stdev(self.scores[value]) if len(self.scores[value]) > 1 else math.nan

    @property
    def best(self) -> float:
        """The value with the highest mean; of equal ones the smallest."""
        return max(self.scores, key=lambda value: (self.mean(value), -value))


def number_of(run: Run, option: str) -> float | None:
    """Value of an option, which is named without its part; None if the run has none, or none that is a number."""
    settings = run.settings
    key = key_of(settings, option)
    try:
        value = float(settings[key]) if key is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def lines_over(rows: Rows, option: str) -> tuple[list[Line], list[str]]:
    """The lines with several values of the option, and notes on settings that have fewer or unequal seeds."""
    lines, lacking, unequal = [], [], []
    for name, runs in name_rows([run for members in rows.values() for run in members], option).items():
        scores, seeds = defaultdict(list), defaultdict(set)
        for run in runs:
            value, score = number_of(run, option), run.ended.measures["A_auc"]
            if value is not None and defined(score):
                scores[value].append(score)
                seeds[value].add(run.seeds)
        if len(scores) > 1:
            panel = host_in(runs[0]) or runs[0].label
            lines.append(Line(name, panel, wrapper_in(runs[0]), dict(sorted(scores.items())), runs[0].settings))
            if any(found != seeds[min(seeds)] for found in seeds.values()):
                unequal.append(name)
        else:
            lacking.append(name)
    notes = [f"Left out, without several values of {option}, all else being equal: {', '.join(lacking)}."]
    differ = [f"Not every value of {option} has the same seeds, so that their means say less: {', '.join(unequal)}."]
    return lines, [*(notes if lacking else []), *(differ if unequal else [])]


def panels(lines: list[Line]) -> dict[str, list[Line]]:
    """Panel -> its lines, those of the host alone first."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: (line.panel, line.wrapper)):
        found[line.panel].append(line)
    return dict(found)


# Refusals


def check_option(option: str, runs: list[Run]) -> None:
    """Raises UsageError unless the option is one of numbers that differ among these runs."""
    texts = {settings[key] for settings in (run.settings for run in runs) if (key := key_of(settings, option))}
    if not texts or not option.isidentifier():  # beside options, settings name what was read
        raise UsageError(f"--over {option}: no option of this name decides what a run computes; {_hint(option, runs)}")
    numbers = {number_of(run, option) for run in runs} - {None}
    listed = ", ".join(sorted(texts)[:5])
    if not numbers:
        raise UsageError(f"--over {option}: its values are no numbers ({listed:.200}); {_hint(option, runs)}")
    if len(numbers) == 1:
        raise UsageError(f"--over {option}: all runs here have the one value {numbers.pop():g}; {_hint(option, runs)}")


def _hint(option: str, runs: list[Run]) -> str:
    """The nearest of the options that could be drawn, or all of them."""
    names = sorted({key.partition(".")[2] for key in differing_keys([run.settings for run in runs])} - {option})
    names = [name for name in names if name.isidentifier() and len({number_of(run, name) for run in runs} - {None}) > 1]
    near = difflib.get_close_matches(option, names, n=1, cutoff=0.4)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"options of several values: {', '.join(names)}" if names else "no option of numbers differs here"


def check_lines(option: str, lines: list[Line]) -> None:
    """Raises UsageError if a panel has more lines than can be read; names what they differ in."""
    for panel, members in panels(lines).items():
        if len(members) <= MOST_LINES:
            continue
        keys = {
            short(key).removeprefix("host.")
            for wrapper in {line.wrapper for line in members}
            for key in differing_keys([line.settings for line in members if line.wrapper == wrapper])
        }
        names = ", ".join(sorted(keys - {option})) or "what is around them"
        raise UsageError(
            f"--over {option}: {panel} has {len(members)} lines, more than {MOST_LINES}, which differ in {names}; "
            "point the report at fewer runs"
        )


# The numbers


def csv_of(scene: tuple[str, str], option: str, lines: list[Line]) -> str:
    """One row per line and value; A_auc as fractions, best where the line is highest."""
    cells = [
        [*scene, line.name, option, value, len(scores), line.mean(value), line.deviation(value), value == line.best]
        for line in lines
        for value, scores in line.scores.items()
    ]
    return pd.DataFrame(cells, columns=COLUMNS).to_csv(index=False)


def table(option: str, lines: list[Line]) -> list[list[str]]:
    """Heading and rows for print."""
    cells = [
        [line.name, f"{value:g}", str(len(scores)), percent(scores), "best" if value == line.best else ""]
        for line in lines
        for value, scores in line.scores.items()
    ]
    return [["method", option, "seeds", "A_auc (%)", ""], *cells]
