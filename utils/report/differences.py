"""Paired differences of rows to a baseline, seed by seed, with a bootstrap interval and a sign-flip test.

Source: sign flips of paired differences: Fisher, The Design of Experiments (1935), chapter III.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from utils.errors import UsageError
from utils.report.bootstrap import FEWEST, RESAMPLES, bootstrap_interval
from utils.report.grouping import host_in, short, typed
from utils.report.tables import NONE, shown
from utils.runs.reading import Run
from utils.runs.summary import defined
from utils.training.metrics import MEASURES

HOST = "host"  # as a baseline: the host of each row that has one
ENOUGH = 10  # seeds from which the bootstrap interval is about as wide as it says
MOST_SENTENCES = 3  # comparisons that are told in words, too
MOST_EXACT = 16  # seeds up to which all sign flips are tried
LEGEND = (
    "Difference: row minus baseline in percentage points, mean over the seeds that both have on the same stream; more "
    "is better, less where it says so. In brackets the 95 % bootstrap interval of that mean "
    f"(percentiles of {RESAMPLES:,} resamples; {NONE} below {FEWEST} seeds). Over few seeds, and five are few, that "
    "interval is too narrow, and p the safer guide. p: exact two-sided paired sign-flip test over "
    f"all 2^n flips (a random 2^{MOST_EXACT} of them above {MOST_EXACT} seeds), not corrected for the number of rows. "
    "With n seeds p cannot fall below 2/2^n, which is 0.0625 for five."
)


@dataclass(frozen=True)
class Comparison:
    """A row against its baseline. points: measure -> differences, one per common seed; of fractions in points."""

    name: str
    baseline: str
    num_seeds: int
    points: dict[str, list[float]]


def check_baseline(baseline: str, names: list[str]) -> None:
    """Raises UsageError, with the nearest name, for a baseline that is no row of any table. names: of all rows."""
    if baseline == HOST or baseline in names:
        return
    near = difflib.get_close_matches(baseline, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"rows: {', '.join(names) or 'none'}"
    raise UsageError(f"--baseline {baseline}: no such row; {hint}")


def compare(rows: dict[str, list[Run]], baseline: str) -> tuple[list[Comparison], list[str]]:
    """Every row against the row `baseline`, or, for "host", every row with a host against the host's; and notes."""
    if baseline == HOST:
        pairs, notes = _with_hosts(rows)
    elif baseline in rows:
        pairs, notes = [(name, baseline) for name in rows if name != baseline], []
    else:
        return [], [f"No row {baseline} here to compare with."]
    measures = shown(rows)
    return [_compare(name, rows[name], other, rows[other], measures) for name, other in pairs], notes


def _compare(name: str, runs: list[Run], baseline: str, baseline_runs: list[Run], measures: list[str]) -> Comparison:
    partners = {_repetition(run): run.ended.measures for run in baseline_runs}
    pairs = [(run.ended.measures, partners[_repetition(run)]) for run in runs if _repetition(run) in partners]
    points = {}
    for measure in measures:
        both = [(own[measure], other[measure]) for own, other in pairs]
        scale = 100 if MEASURES[measure].unit == "%" else 1
        points[measure] = [scale * (value - base) for value, base in both if defined(value) and defined(base)]
    return Comparison(name, baseline, len(pairs), points)


def _repetition(run: Run) -> tuple:
    """What two runs share if they differ in nothing but method and options: all seeds, and the stream."""
    return run.seeds, run.stream


def _with_hosts(rows: dict[str, list[Run]]) -> tuple[list[tuple[str, str]], list[str]]:
    """Rows with a host, each with that host's row, and notes. Of several that whose settings are most alike, which
    shows what the wrapper does; and that which was asked for in the same words: each as it was chosen."""
    pairs, notes = [], []
    for name, runs in rows.items():
        if (host := host_in(runs[0])) is None:
            continue
        unlike = {other: _unlike(runs[0], group[0]) for other, group in rows.items() if group[0].label == host}
        nearest = [other for other in unlike if len(unlike[other]) == min(map(len, unlike.values()))]
        if not nearest:
            notes.append(f"{name}: there is no row {host} to compare with.")
            continue
        alone = {other: rows[other][0] for other in unlike}
        asked = [other for other, run in alone.items() if _asked(runs[0], run) == _asked(run, run)]
        found = dict.fromkeys(other for alike in (nearest, asked) if len(alike) == 1 for other in alike)
        if not found:
            notes.append(f"{name}: {' and '.join(nearest)} are equally near; name one as baseline.")
        for other in found:
            pairs.append((name, other))
            if unlike[other]:
                notes.append(f"{name} and {other} also differ in {', '.join(unlike[other])}.")
    return pairs, notes if pairs or notes else ["No row here has a host to compare with."]


def _asked(run: Run, known: Run) -> dict[str, str]:
    """Options that stood on the command line of a run, with their values; those alone that the run `known` has, too."""
    names = {short(key) for key in known.settings} - {"model"}
    given = {short(key).removeprefix("host."): value for key, value in run.settings.items() if typed(key, [run])}
    return {name: value for name, value in given.items() if name in names}


def _unlike(run: Run, host_run: Run) -> list[str]:
    """Options of the run and of the host that differ between a run with a host and a run of that host alone."""
    own, alone = (
        {key.removeprefix("run."): value for key, value in settings.items() if key.startswith("run.")}
        | {key.removeprefix(part): value for key, value in settings.items() if key.startswith(part)}
        for settings, part in ((run.settings, "host."), (host_run.settings, "method."))
    )
    return sorted(key for key in own.keys() | alone.keys() if own.get(key) != alone.get(key) and key != "model")


# Statistics


def sign_flip_p(differences: list[float]) -> float:
    """Share of sign assignments whose mean is at least as far from 0 as the one observed; NaN without values."""
    values = np.array(differences)
    count = len(values)
    if count == 0:
        return float("nan")
    if count <= MOST_EXACT:
        flips = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        flips = np.random.default_rng(0).integers(2, size=(2**MOST_EXACT, count))
        flips[0] = 0  # the observed signs count among the drawn ones, or p could be 0
    means = np.abs((1 - 2 * flips) @ values)
    # Flips that give the same mean may differ by rounding.
    return float(np.mean(means >= means[0] - 1e-9 * np.abs(values).sum()))


# Text


def table(comparisons: list[Comparison]) -> list[list[str]]:
    """Heading and rows of the table of differences."""
    columns = [text for measure in comparisons[0].points for text in (_titled(measure), "p")]
    return [["method", "baseline", "common seeds", *columns], *map(_cells, comparisons)]


def _titled(measure: str) -> str:
    unit = "points" if MEASURES[measure].unit == "%" else "difference"
    return f"{measure} ({unit}, less is better)" if MEASURES[measure].better == "less" else f"{measure} ({unit})"


def _cells(comparison: Comparison) -> list[str]:
    texts = [text for points in comparison.points.values() for text in _difference(points, comparison.num_seeds)]
    return [comparison.name, comparison.baseline, str(comparison.num_seeds), *texts]


def _difference(points: list[float], num_seeds: int) -> tuple[str, str]:
    """Mean difference with its interval, and p."""
    if not points:
        return NONE, NONE
    interval = bootstrap_interval(points)
    between = NONE if interval is None else f"[{_signed(interval[0])}, {_signed(interval[1])}]"
    share = f" (of {len(points)})" if len(points) < num_seeds else ""
    return f"{_signed(float(np.mean(points)))} {between}{share}", f"{sign_flip_p(points):.4f}"


def sentence(comparison: Comparison, scene: str) -> str:
    """What a comparison says, in words: who, against whom, where, by how much, and how sure that is. "" if nothing."""
    points = comparison.points.get("A_auc")
    if not points:
        return ""
    mean, interval = float(np.mean(points)), bootstrap_interval(points)
    sides = "higher" if mean >= 0 else "lower"
    found = f"On {scene}, the mean accuracy at any time (A_auc) of {comparison.name} is {abs(mean):.1f} points {sides} "
    found += f"than that of {comparison.baseline}, over {len(points)} seed{'s' * (len(points) > 1)}; "
    if interval is None:
        return f"{found}too few to say how sure that is."
    few = f", too narrow over fewer than {ENOUGH} seeds" if len(points) < ENOUGH else ""
    return f"{found}95 % bootstrap interval {_signed(interval[0])} to {_signed(interval[1])}{few}."


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0 makes -0 a 0
