"""What stands in the table of a comparison: the numbers of a row of runs as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from utils.report.bootstrap import FEWEST, bootstrap_interval
from utils.runs.reading import Run
from utils.runs.summary import Summary, defined
from utils.training.metrics import MEASURES

NONE = "–"
AFTER = ["borders", "trainable parameters", "images/s", "seconds", "peak memory (MiB)"]  # columns after the measures
PER_SEED = [
    *("dataset", "scenario", "method", "seed", *MEASURES),
    *("trainable_parameters", "seconds", "peak_memory_mb", "stream_sha256", "git_commit"),
]
RUN_RESAMPLES = 1_000  # of the means of runs, as OML draws them
SPREAD = "Mean ± sample standard deviation over seeds."
INTERVAL = (
    "Mean over seeds, in brackets its 95 % bootstrap interval (percentiles 2.5 and 97.5 of "
    f"{RUN_RESAMPLES:,} resamples; none below {FEWEST} seeds)."
)
LEGEND = (
    "borders: whether the method is told of task borders, and whether it "
    "reads tasks again. images/s: images of the stream per second of the whole run. seconds, peak memory: of the whole "
    "run; memory is what was allocated on the GPU, or resident in the process on a CPU."
)


def table(rows: dict[str, list[Run]], interval: bool = False) -> list[list[str]]:
    """Heading and rows. rows: row name -> its runs, one per seed. interval: instead of the deviation."""
    measures = shown(rows)
    heading = ["method", "seeds", *map(titled, measures), *AFTER]
    return [heading, *(cells(name, runs, measures, interval) for name, runs in rows.items())]


def shown(rows: dict[str, list[Run]]) -> list[str]:
    """The measures that any run of any row has."""
    runs = [run for own in rows.values() for run in own]
    return [name for name in MEASURES if any(defined(getattr(run.ended, name)) for run in runs)]


def titled(measure: str) -> str:
    """A measure with its unit."""
    unit = MEASURES[measure].unit
    return f"{measure} ({unit})" if unit else measure


def per_seed(scene: tuple[str, str], rows: dict[str, list[Run]]) -> list[list[Any]]:
    """One line per run, by PER_SEED: what the means are made of, in full precision and as fractions."""
    return [
        [*scene, name, run.config["run"]["seed"], *(getattr(run.ended, key) for key in PER_SEED[4:-1])]
        + [run.config.get("git_commit")]
        for name, runs in rows.items()
        for run in runs
    ]


def cells(name: str, runs: list[Run], measures: list[str], interval: bool) -> list[str]:
    """One row of the table."""
    summaries = [run.ended for run in runs]
    seconds, samples = (sum(getattr(summary, key) for summary in summaries) for key in ("seconds", "samples"))
    return [
        name,
        str(len(runs)),
        *(_values(measure, [getattr(summary, measure) for summary in summaries], interval) for measure in measures),
        _borders(summaries[0]),
        f"{summaries[0].trainable_parameters:,}",
        f"{samples / seconds:,.0f}" if seconds else NONE,
        mean_and_spread([summary.seconds for summary in summaries], ",.1f", interval),
        mean_and_spread([summary.peak_memory_mb for summary in summaries], ",.0f", interval),
    ]


def _borders(summary: Summary) -> str:
    """Whether the method is told of task borders."""
    if not summary.needs_task_boundaries:
        return "no"
    return "yes, rereads" if summary.rereads else "yes"


def _values(measure: str, values: Sequence[float | None], interval: bool) -> str:
    return percent(values, interval) if MEASURES[measure].unit == "%" else mean_and_spread(values, ".3g", interval)


def percent(fractions: Sequence[float | None], interval: bool = False) -> str:
    """`mean_and_spread` in percent."""
    return mean_and_spread([100 * value if defined(value) else None for value in fractions], ",.2f", interval)


def mean_and_spread(values: Sequence[float | None], form: str, interval: bool = False) -> str:
    """Mean ± sample standard deviation, or the mean and its 95 % interval, in a number format. If some values are
    undefined, tells how many are not."""
    known = [value for value in values if defined(value)]
    if not known:
        return NONE
    spread = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    if interval:
        ends = bootstrap_interval(known, RUN_RESAMPLES)
        spread = "" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]"
    share = f" (of {len(known)})" if len(known) < len(values) else ""
    return f"{statistics.fmean(known):{form}}{spread}{share}"
