"""Pictures of what is kept while classes, or functions, are learnt one after the other.

Of classes the accuracy on the images trained on, and on those held out; of functions the error over all of those learnt
so far, and on each of them at the end (as Javed and White, NeurIPS 2019, arXiv:1905.12588, figure 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.report.bootstrap import bootstrap_interval
from utils.report.tables import RUN_RESAMPLES, mean_and_spread
from utils.runs.plots import (
    LINE_STYLES,
    MOST_CURVES,
    PALETTE,
    literal,
    new_figure,
    picture,
    save,
    whole_numbers,
    wrapped,
)
from utils.training.metrics import task_matrix

WIDEST_NAME = 80  # characters of a line of the legend
MOST_MARKED = 25  # points of a line up to which each is marked


@dataclass(frozen=True)
class Axes:
    """What two panels show. over: the axis of each. high: where that of the values ends; None: with them."""

    panels: tuple[str, str]
    over: tuple[str, str]
    values: str
    less_is_better: bool
    high: float | None


CLASSES = Axes(
    ("images trained on", "images held out"), ("classes learnt", "classes learnt"), "accuracy (%)", False, 102
)
FUNCTIONS = Axes(
    ("all functions learnt", "each function, at the end"),
    ("functions learnt", "function, in the order of learning"),
    "mean squared error",
    True,
    None,
)


@dataclass(frozen=True)
class Curves:
    """Values of each seed in both panels, [seeds, P] each, over the number of classes or functions learnt [P]; on each
    function: over its place."""

    learnt: np.ndarray
    left: np.ndarray
    right: np.ndarray


def class_curves(runs: list[pd.DataFrame]) -> Curves | None:
    """Accuracy in percent after each task of runs of equal settings, from their `metrics.csv`, where all have the same
    numbers of classes; None of runs that did not evaluate the images they trained on."""
    ends = []
    for run in runs:
        if "train_accuracy" in run:
            rows = run[(run["kind"] == "task_end") & run["train_accuracy"].notna()]
            ends.append(rows.drop_duplicates("classes_exposed", keep="last").set_index("classes_exposed"))
    if not ends:
        return None
    training, held_out = (
        100 * pd.concat([rows[name] for rows in ends], axis=1, join="inner").sort_index()
        for name in ("train_accuracy", "accuracy")
    )
    return Curves(training.index.to_numpy(), training.to_numpy().T, held_out.to_numpy().T) if len(training) else None


def function_curves(runs: list[pd.DataFrame]) -> Curves | None:
    """Mean squared error, the function being told, of runs of equal settings, from their `per_task.csv`: the mean over
    the functions learnt, after each, and that on each at the end. Runs with fewer functions than others, or without a
    value, do not count; None where none is left."""
    matrices = [task_matrix(run, "mse_given") for run in runs]
    size = max(map(len, matrices), default=0)
    rows, columns = np.tril_indices(size)
    matrices = [one for one in matrices if len(one) == size and np.isfinite(one[rows, columns]).all()]
    if not matrices or not size:
        return None
    left = [[one[k, : k + 1].mean() for k in range(size)] for one in matrices]
    return Curves(np.arange(1, size + 1), np.array(left), np.array([one[-1] for one in matrices]))


def first_and_last(curves: dict[str, Curves]) -> list[list[str]]:
    """Heading and rows: the mean over the functions learnt, after the first and after all, with its interval."""
    lines = [["method", "functions", "MSE after the first", "MSE after all"]]
    for name, own in curves.items():
        ends = [mean_and_spread(own.left[:, k].tolist(), ".3g", interval=True) for k in (0, -1)]
        lines.append([name, str(own.learnt[-1]), *ends])
    return lines


@picture
def draw_learning(path: Path, curves: dict[str, Curves], axes: Axes, title: str) -> None:
    """Mean over seeds with its 95 % bootstrap interval, a line and a band for each row, in two panels. Of more than
    MOST_CURVES rows those that end best on the left."""
    sign = 1 if axes.less_is_better else -1
    names = sorted(curves, key=lambda name: sign * curves[name].left[:, -1].mean())[:MOST_CURVES]
    if len(names) < len(curves):
        title = f"{title}: {len(names)} of {len(curves)} rows"
    legend = [wrapped(name, WIDEST_NAME) for name in curves if name in names]
    figure, first = new_figure(8.0, 3.6 + 0.2 * sum(name.count("\n") + 1 for name in legend))
    first.remove()
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for index, name in enumerate(name for name in curves if name in names):
        own = curves[name]
        colour, style = PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
        for panel, values in zip(panels, (own.left, own.right)):
            marker = "o" if len(own.learnt) <= MOST_MARKED else None
            label = literal(legend[index]) if panel is panels[0] else None
            panel.plot(own.learnt, values.mean(axis=0), style, color=colour, marker=marker, markersize=3.5, label=label)
            ends = [bootstrap_interval(column, RUN_RESAMPLES) for column in values.T]
            if None not in ends:
                low, high = np.array(ends).T
                panel.fill_between(own.learnt, low, high, color=colour, alpha=0.2, linewidth=0)
    for panel, kind, over in zip(panels, axes.panels, axes.over):
        panel.set_title(kind, fontsize=10)
        panel.set_xlabel(over)
        panel.xaxis.set_major_locator(whole_numbers())
        panel.set_xlim(left=0)
        panel.set_ylim(0, axes.high)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(axes.values)
    figure.suptitle(literal(title), fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    save(figure, path)
