"""The picture of a comparison of many rows: all of them ranked, and curves of those that say most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.report.bootstrap import FEWEST, bootstrap_interval
from utils.report.grouping import host_in, wrapper_in
from utils.runs.plots import (
    LINE_STYLES,
    anytime_rows,
    colours_of,
    label_accuracy,
    legend_above,
    line_count,
    literal,
    new_figure,
    on_common_grid,
    picture,
    save,
    wrapped,
)
from utils.runs.reading import Run
from utils.runs.summary import defined

BEST = 4  # rows whose curves stand together
WIDTH = 11.0  # inches
WIDEST_ROW_NAME = 40  # characters of a line beside a row
WIDEST_BEST, WIDEST_PAIR = 60, 20  # characters of a line above the best curves, and above a small panel
LINE_HEIGHT = 0.19  # inches of a line of such a name
PANEL_COLUMNS = 3


@dataclass(frozen=True)
class Row:
    """A row of a comparison. host, wrapper: X and mepo of a method "mepo (X)", None and "" for one without a host.

    points: A_auc in percent of each seed that has one, at least one. curves: `metrics.csv` rows of each seed.
    """

    name: str
    label: str
    host: str | None
    wrapper: str
    points: list[float]
    curves: list[pd.DataFrame]

    @property
    def mean(self) -> float:
        return float(np.mean(self.points))


def ranked(rows: dict[str, list[Run]], curves: dict[str, list[pd.DataFrame]]) -> list[Row]:
    """The rows that have an A_auc, the best first. curves: row name -> `metrics.csv` rows of its seeds."""
    found = []
    for name, runs in rows.items():
        values = [run.ended.measures["A_auc"] for run in runs]
        points = [100 * value for value in values if defined(value)]
        seeds = [seed for seed in map(anytime_rows, curves.get(name, [])) if len(seed)]
        if points:
            found.append(Row(name, runs[0].label, host_in(runs[0]), wrapper_in(runs[0]), points, seeds))
    return sorted(found, key=lambda row: -row.mean)


def pairs(ranking: list[Row]) -> list[tuple[Row, Row]]:
    """Of each method "mepo (X)" that stands beside X: the best row of X and its own best row."""
    best: dict[str, Row] = {}
    for row in ranking:
        if row.curves:
            best.setdefault(row.label, row)
    return [(best[row.host], row) for row in best.values() if row.host in best]


@picture
def draw_ranking(path: Path, ranking: list[Row], title: str) -> None:
    """Left: A_auc of every row. Right: curves of the best rows, and of each host beside "mepo (host)"."""
    save(ranking_figure(ranking, title), path)


def ranking_figure(ranking: list[Row], title: str) -> Any:
    """The figure of `draw_ranking`; it grows with the number of rows."""
    colours = colours_of(row.wrapper for row in ranking)
    order = list(colours)
    couples = sorted(pairs(ranking), key=lambda couple: order.index(couple[1].wrapper))
    best = [row for row in ranking if row.curves][:BEST]
    dots_height = 1.5 + LINE_HEIGHT * line_count((row.name for row in ranking), WIDEST_ROW_NAME)
    best_height = 2.3 + LINE_HEIGHT * line_count((row.name for row in best), WIDEST_BEST)
    panels_height = _height_of_panels(couples)
    height = max(dots_height, best_height + panels_height)

    figure, _ = new_figure(WIDTH, height)
    figure.clear()
    left, right = figure.subfigures(1, 2, wspace=0.02)
    _draw_dots(left, ranking, colours)
    left.suptitle(literal(wrapped(title, 50)), fontsize=11)
    spare = height - best_height - panels_height
    top, middle, _ = right.subfigures(3, 1, height_ratios=[best_height, panels_height + 0.01, spare + 0.01])
    _draw_best(top, best, colours)
    if couples:
        _draw_pairs(middle, couples, colours)
    return figure


def _height_of_panels(couples: list[tuple[Row, Row]]) -> float:
    """Inches that the panels take, the names above them included; 0 without panels."""
    if not couples:
        return 0.0
    lines = max(line_count((row.label for row in couple), WIDEST_PAIR) for couple in couples)
    return 0.6 + (1.4 + LINE_HEIGHT * lines) * -(-len(couples) // PANEL_COLUMNS)


def _draw_dots(figure: Any, ranking: list[Row], colours: dict[str, str]) -> None:
    """One line per row: the mean as a dot, its interval as a bar, every seed as a faint point, the number beside it."""
    from matplotlib.lines import Line2D

    axes = _plain_axes(figure.subplots())
    names = [wrapped(row.name, WIDEST_ROW_NAME) for row in ranking]
    lines = np.array([name.count("\n") + 1 for name in names])
    places = np.cumsum(lines) - lines / 2
    for row, place in zip(ranking, places):
        colour = colours[row.wrapper]
        axes.scatter(row.points, [place] * len(row.points), s=26, color=colour, alpha=0.25, linewidth=0)
        if (interval := bootstrap_interval(row.points)) is not None:
            axes.plot(interval, [place, place], color=colour, linewidth=1.5, solid_capstyle="butt")
        axes.plot(row.mean, place, "o", color=colour, markersize=4.5)
        axes.text(
            1.01, place, f"{row.mean:.1f}", transform=axes.get_yaxis_transform(), va="center", color=colour, fontsize=9
        )
    axes.set_yticks(places, map(literal, names), fontsize=9)
    for text, row in zip(axes.get_yticklabels(), ranking):
        text.set_color(colours[row.wrapper])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(lines.sum(), 0)
    axes.grid(color="0.92")
    axes.set_xlabel(
        f"$A_{{auc}}$ (%): mean, its 95 % bootstrap interval\n(from {FEWEST} seeds on), and each seed as a faint point"
    )
    kinds = {name: f"{name} (method)" if name else "method alone" for name in colours}
    handles = [Line2D([], [], color=colours[name], marker="o", label=literal(kinds[name])) for name in kinds]
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _draw_best(figure: Any, best: list[Row], colours: dict[str, str]) -> None:
    axes = _plain_axes(figure.subplots())
    _draw_curves(axes, best, [row.name for row in best], colours)
    label_accuracy(axes)
    legend_above(axes, WIDEST_BEST)


def _draw_pairs(figure: Any, couples: list[tuple[Row, Row]], colours: dict[str, str]) -> None:
    """A panel for each host beside its wrapped self, all with the same axes."""
    shape = -(-len(couples) // PANEL_COLUMNS), PANEL_COLUMNS
    grid = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(couples) :]:
        axes.set_visible(False)
    for index, (axes, couple) in enumerate(zip(grid.flat, couples)):
        _draw_curves(_plain_axes(axes), couple, [row.label for row in couple], colours)
        label_accuracy(axes)
        axes.set_xlabel("")
        axes.set_ylabel("")
        axes.tick_params(labelsize=8, labelbottom=index + PANEL_COLUMNS >= len(couples))  # the lowest of its column
        axes.locator_params(axis="x", nbins=3)
        legend_above(axes, WIDEST_PAIR)
    figure.supxlabel("images seen (of several settings the best, as ranked)", fontsize=9)
    figure.supylabel("accuracy over classes seen (%)", fontsize=9)


def _draw_curves(axes: Any, rows: Sequence[Row], names: list[str], colours: dict[str, str]) -> None:
    """Mean curves over seeds: the colour says whether a row has a wrapper, the dashes which of the panel it is."""
    for row, name, style in zip(rows, names, LINE_STYLES):
        images, accuracy = on_common_grid(row.curves)
        colour = colours[row.wrapper]
        axes.plot(images, accuracy.mean(axis=0), color=colour, linestyle=style, label=literal(name))


def _plain_axes(axes: Any) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return axes
