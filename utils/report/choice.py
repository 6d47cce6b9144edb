"""Which value of an option is best, by a measure of validation runs that differ in it, in their seeds and datasets."""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from utils.errors import UsageError
from utils.report.grouping import differing_keys, key_of, newest_per_seed, short
from utils.report.tables import titled
from utils.runs.reading import CONTENT, Run
from utils.runs.summary import defined
from utils.training.metrics import MEASURES

MOST_NAMED = 5  # options, or runs, in one line
DATASET = "run.dataset"


@dataclass(frozen=True)
class Choice:
    """value: the chosen one. scores: value -> (dataset, seeds) -> measure, values from the largest number down. votes:
    value -> of how many of these it is the best."""

    value: str
    measure: str
    scores: dict[str, dict[tuple, float]]
    votes: Counter[str]

    def table(self, option: str) -> list[list[str]]:
        """Heading and rows for print: the measure of each seed, its mean, and the votes."""
        seeds = sorted({seed for scores in self.scores.values() for seed in scores}, key=str)
        heads = _named(seeds)
        is_share = MEASURES[self.measure].unit == "%"
        rows = []
        for value, scores in self.scores.items():
            numbers = [*(scores[seed] for seed in seeds), statistics.fmean(scores.values())]
            texts = [f"{100 * number:.2f}" if is_share else f"{number:.4g}" for number in numbers]
            rows.append([value, *texts, str(self.votes[value])])
        heading = [f"{titled(self.measure)} of {option}", *heads, "mean", "votes"]
        return [heading, *rows]


def choose(runs: list[Run], option: str, measure: str, rule: Literal["mode", "mean"]) -> Choice:
    """The best value of an option over runs. mode: the value that is best for most seeds; of values that are equally
    good for a seed the largest has its vote, of values with equally many votes the smallest is taken. mean: that with
    the best mean over seeds, of equal ones the smallest.

    Of several datasets each counts like a seed.

    Raises UsageError if the runs differ in anything else, or lack a seed of a value, or the measure.
    """
    scores: dict[str, dict[tuple, float]] = {}
    for run in newest_per_seed([run for run in _alike(runs, option) if run.summary])[0]:
        score = getattr(run.ended, measure)
        if not defined(score):
            hint = "; it takes --eval_train" if measure == "A_train" else ""
            raise UsageError(f"--by {measure}: {run.folder} has none{hint}")
        scores.setdefault(_value(run, option), {})[_case(run)] = score
    _refuse_gaps(runs, option, scores)
    scores = {value: scores[value] for value in _from_above(scores)}
    better = -1 if MEASURES[measure].better == "less" else 1
    votes: Counter[str] = Counter()
    for seed in [*scores.values()][0]:
        votes[max(scores, key=lambda value: better * scores[value][seed])] += 1  # of equal ones the first
    smallest_first = [*scores][::-1]
    if rule == "mode":
        best = max(smallest_first, key=lambda value: votes[value])
    else:
        best = max(smallest_first, key=lambda value: better * statistics.fmean(scores[value].values()))
    return Choice(best, measure, scores, votes)


def _alike(runs: list[Run], option: str) -> list[Run]:
    """The runs. Raises UsageError unless they differ in the option, and beside it in seeds, and in datasets with what
    only these say and hold."""
    keys = {key_of(run.settings, option) for run in runs}
    if keys == {None}:
        known = sorted({key.partition(".")[2] for run in runs for key in run.settings if not key.endswith(CONTENT)})
        near = difflib.get_close_matches(option, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"--option {option}: no option of this name decides what these runs compute{hint}")
    own = {name for key in (*keys, DATASET) if key is not None for name in (key, key + CONTENT)}
    by_dataset: dict[str | None, list[dict[str, str]]] = {}
    for run in runs:
        by_dataset.setdefault(run.settings.get(DATASET), []).append(run.settings)
    between = {key for key in differing_keys([run.settings for run in runs]) if not key.startswith("data.")}
    within = {key for settings in by_dataset.values() for key in differing_keys(settings)}
    if others := sorted((between | within) - own):
        told = ", ".join(f"{short(key)} ({' | '.join(_told(runs, key))})" for key in others[:MOST_NAMED])
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        raise UsageError(f"the runs differ in more than {option} and seeds: {told}{more}; name folders of one kind")
    return runs


def _told(runs: list[Run], key: str) -> list[str]:
    return [f"{value:.40}" for value in sorted({run.settings.get(key, "unset") for run in runs})[:MOST_NAMED]]


def _value(run: Run, option: str) -> str:
    key = key_of(run.settings, option)
    assert key is not None
    return run.settings[key]


def _case(run: Run) -> tuple:
    """What a value is tried on: a dataset and seeds."""
    return run.settings[DATASET], run.seeds


def _named(cases: list[tuple]) -> list[str]:
    """Each in words, as short as tells them apart."""
    by_seed, several = len({seeds[0] for _, seeds in cases}), len({dataset for dataset, _ in cases}) > 1
    alone = by_seed == len({seeds for _, seeds in cases})
    return [f"{f'{dataset} ' * several}seed {seeds[0] if alone else seeds}" for dataset, seeds in cases]


def _refuse_gaps(runs: list[Run], option: str, scores: dict[str, dict[tuple, float]]) -> None:
    """Raises UsageError if there is a value that not every seed has, in a run that ended."""
    cases = sorted({_case(run) for run in runs}, key=str)
    values = _from_above({_value(run, option) for run in runs})
    names = dict(zip(cases, _named(cases)))
    gaps = {value: [name for case, name in names.items() if case not in scores.get(value, {})] for value in values}
    if lacking := [f"{option} {value} lacks {', '.join(gap)}" for value, gap in gaps.items() if gap]:
        more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        raise UsageError(f"{'; '.join(lacking[:MOST_NAMED])}{more}; every value needs a run of every seed that ended")


def _from_above(values: Iterable[str]) -> list[str]:
    """Numbers from the largest down; other values by their text."""
    try:
        return sorted(values, key=lambda value: -float(value))
    except ValueError:
        return sorted(values)
