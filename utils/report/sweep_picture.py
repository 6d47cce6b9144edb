"""The picture of A_auc over the values of one option: a small panel for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utils.report.sweep import Line, panels
from utils.runs.plots import (
    LINE_STYLES,
    colours_of,
    legend_above,
    line_count,
    literal,
    new_figure,
    picture,
    save,
    wrapped,
)

COLUMNS = 3
NEAREST_TICKS = 0.17  # share of a panel's width between two ticks


@picture
def draw_sweep(path: Path, lines: list[Line], option: str, title: str) -> None:
    """Mean A_auc over the option, with a band of one sample standard deviation over seeds; the best value is ringed."""
    save(sweep_figure(lines, option, title), path)


def sweep_figure(lines: list[Line], option: str, title: str) -> Any:
    """The figure of `draw_sweep`: a panel for each method and what is built around it, all on the same y axis."""
    grouped = panels(lines)
    columns = min(COLUMNS, len(grouped))
    rows = -(-len(grouped) // columns)
    width = 3.6 * columns + 0.3 if columns > 1 else 5.5
    letters = int(10 * width / columns)  # of a line of a legend
    legend_lines = max(line_count((line.name for line in group), letters) for group in grouped.values())
    figure, _ = new_figure(width, rows * (2.2 + 0.17 * legend_lines) + 0.9)
    figure.clear()
    colours = colours_of(line.wrapper for line in lines)
    values = sorted({value for line in lines for value in line.scores})
    ticks = spaced(values)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(grouped) :]:
        axes.set_visible(False)
    for axes, group in zip(grid.flat, grouped.values()):
        if is_logarithmic(values):
            axes.set_xscale("log")
        _draw_panel(axes, group, colours)
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.set_xticks([], minor=True)
        axes.tick_params(labelsize=8.5, labelbottom=True)
        legend_above(axes, letters)
    figure.suptitle(literal(wrapped(title, int(12 * width))), fontsize=10)
    figure.supxlabel(f"{literal(option)}   (ring: best value, band: standard deviation over seeds)", fontsize=10)
    figure.supylabel("$A_{auc}$ (%)", fontsize=10)
    return figure


def is_logarithmic(values: list[float]) -> bool:
    """Whether rising values are positive and span more than a factor of ten."""
    return values[0] > 0 and values[-1] > 10 * values[0]


def spaced(values: list[float]) -> list[float]:
    """Those of rising values that are far enough apart on their axis for a tick each, the first among them."""
    places = np.log(values) if is_logarithmic(values) else np.array(values)
    kept = [0]
    for index in range(1, len(values)):
        if places[index] - places[kept[-1]] >= NEAREST_TICKS * (places[-1] - places[0]):
            kept.append(index)
    return [values[index] for index in kept]


def _draw_panel(axes: Any, lines: list[Line], colours: dict[str, str]) -> None:
    """The colour says whether a line has a wrapper, the dashes which of the panel it is."""
    for line, style in zip(lines, LINE_STYLES):
        values = list(line.scores)
        mean = 100 * np.array([line.mean(value) for value in values])
        spread = 100 * np.nan_to_num([line.deviation(value) for value in values])  # a single seed has none
        colour = colours[line.wrapper]
        axes.plot(values, mean, color=colour, linestyle=style, marker="o", markersize=3.5, label=literal(line.name))
        if spread.any():
            axes.fill_between(values, mean - spread, mean + spread, color=colour, alpha=0.13, linewidth=0)
        axes.plot(line.best, 100 * line.mean(line.best), "o", color=colour, markersize=10, fillstyle="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.margins(x=0.08)
