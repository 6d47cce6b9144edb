"""The picture of what is kept while classes are learnt: accuracy on the images trained on, and on those held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.report.bootstrap import bootstrap_interval
from utils.report.tables import RUN_RESAMPLES
from utils.runs.plots import LINE_STYLES, MOST_CURVES, PALETTE, literal, new_figure, picture, save, wrapped

WIDEST_NAME = 80  # characters of a line of the legend
MOST_MARKED = 25  # points of a line up to which each is marked


@dataclass(frozen=True)
class Curves:
    """Accuracy in percent of each seed after each task, over the number of classes met [P]: on the images trained on
    and on those held out, [seeds, P] each."""

    classes: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


def class_curves(runs: list[pd.DataFrame]) -> Curves | None:
    """Of runs of equal settings, from their `metrics.csv`, where all have the same numbers of classes; None of runs
    that did not evaluate the images they trained on."""
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


@picture
def draw_classes(path: Path, curves: dict[str, Curves], title: str) -> None:
    """Mean over seeds with its 95 % bootstrap interval, a line and a band for each row: training accuracy (left) and
    held-out accuracy (right). Of more than MOST_CURVES rows those that end highest on the left."""
    names = sorted(curves, key=lambda name: -curves[name].training[:, -1].mean())[:MOST_CURVES]
    if len(names) < len(curves):
        title = f"{title}: {len(names)} of {len(curves)} rows"
    legend = [wrapped(name, WIDEST_NAME) for name in curves if name in names]
    figure, first = new_figure(8.0, 3.6 + 0.2 * sum(name.count("\n") + 1 for name in legend))
    first.remove()
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for index, name in enumerate(name for name in curves if name in names):
        own = curves[name]
        colour, style = PALETTE[index % len(PALETTE)], LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
        for axes, values in zip(panels, (own.training, own.held_out)):
            marker = "o" if len(own.classes) <= MOST_MARKED else None
            label = literal(legend[index]) if axes is panels[0] else None
            axes.plot(own.classes, values.mean(axis=0), style, color=colour, marker=marker, markersize=3.5, label=label)
            ends = [bootstrap_interval(column, RUN_RESAMPLES) for column in values.T]
            if None not in ends:
                low, high = np.array(ends).T
                axes.fill_between(own.classes, low, high, color=colour, alpha=0.2, linewidth=0)
    for axes, kind in zip(panels, ("images trained on", "images held out")):
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("classes learnt")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 102)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy (%)")
    figure.suptitle(literal(title), fontsize=11)
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    save(figure, path)
