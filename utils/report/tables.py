"""What stands in the table of a comparison: the numbers of a row of runs as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from utils.runs.reading import Run
from utils.runs.summary import METRICS, defined

NONE = "–"
HEADER = [
    "method",
    "seeds",
    *(f"{metric} (%)" for metric in METRICS),
    "borders",
    "trainable parameters",
    "images/s",
    "seconds",
    "peak memory (MiB)",
]
PER_SEED = [
    *("dataset", "scenario", "method", "seed", *METRICS),
    *("trainable_parameters", "seconds", "peak_memory_mb", "stream_sha256", "git_commit"),
]
LEGEND = (
    "Mean ± sample standard deviation over seeds. borders: whether the method is told of task borders. "
    "images/s: images of the stream per second of the whole run. seconds, peak memory: of the whole run; memory is "
    "what was allocated on the GPU, or resident in the process on a CPU."
)


def table(rows: dict[str, list[Run]]) -> list[list[str]]:
    """Heading and rows. rows: row name -> its runs, one per seed."""
    return [HEADER, *(cells(name, runs) for name, runs in rows.items())]


def per_seed(scene: tuple[str, str], rows: dict[str, list[Run]]) -> list[list[Any]]:
    """One line per run, by PER_SEED: what the means are made of, in full precision and as fractions."""
    return [
        [*scene, name, run.config["run"]["seed"], *(getattr(run.ended, key) for key in PER_SEED[4:-1])]
        + [run.config.get("git_commit")]
        for name, runs in rows.items()
        for run in runs
    ]


def cells(name: str, runs: list[Run]) -> list[str]:
    """One row of the table."""
    summaries = [run.ended for run in runs]
    seconds, samples = (sum(getattr(summary, key) for summary in summaries) for key in ("seconds", "samples"))
    return [
        name,
        str(len(runs)),
        *(percent([summary.metrics[metric] for summary in summaries]) for metric in METRICS),
        "yes" if summaries[0].needs_task_boundaries else "no",
        f"{summaries[0].trainable_parameters:,}",
        f"{samples / seconds:,.0f}" if seconds else NONE,
        mean_and_spread([summary.seconds for summary in summaries], 1),
        mean_and_spread([summary.peak_memory_mb for summary in summaries], 0),
    ]


def percent(fractions: Sequence[float | None]) -> str:
    """`mean_and_spread` in percent."""
    return mean_and_spread([100 * value if defined(value) else None for value in fractions], 2)


def mean_and_spread(values: Sequence[float | None], digits: int) -> str:
    """Mean ± sample standard deviation. If some values are undefined, the number of the others is told."""
    known = [value for value in values if defined(value)]
    if not known:
        return NONE
    spread = f" ± {statistics.stdev(known):,.{digits}f}" if len(known) > 1 else ""
    share = f" (of {len(known)})" if len(known) < len(values) else ""
    return f"{statistics.fmean(known):,.{digits}f}{spread}{share}"
