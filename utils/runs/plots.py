"""Pictures of a stream, of one run, of a comparison and of forgetting: PNG files for a paper's column or a README."""

from __future__ import annotations

import functools
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import reason
from utils.files.atomic import written_whole
from utils.requirements import import_matplotlib

# Okabe and Ito's palette, safe for the colour-blind; its yellow is left out since lines vanish on white.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
GREY = "0.55"

MAX_COLUMNS = 300  # time bins of a stream picture
FAINTEST = 0.35  # opacity of a cell that holds a single image: rare images of a class are what makes a stream blurry
NARROWEST_TASK = 0.03  # share of the width below which a task's number has no room
MOST_CURVES = 8  # of a comparison that are drawn into one picture, with bands
WIDEST_NAME = 64  # characters of a line of the legend of a comparison
WIDEST_ROW_NAME = 40  # characters of a line beside a row of a heat map
MOST_LINES = 8  # of a name, the rest is left out
MOST_COUNTED = 30  # classes of a confusion matrix up to which its numbers are written into the cells
MOST_NAMED = 100  # rows of one up to which each has its name
WIDEST_CLASS = 28  # characters of such a name
MOST_WRITTEN = 20  # columns of a heat map up to which its numbers are written into the cells


def picture(draw: Callable[..., None]) -> Callable[..., bool]:
    """A function that draws, with matplotlib's own settings instead of the user's: no LaTeX, no other fonts.

    It says in a warning why there is no picture: that costs no run. Gives whether there is one.
    """

    @functools.wraps(draw)
    def drawn(path: Path, *given: Any, **named: Any) -> bool:
        try:
            import_matplotlib()
            from matplotlib import style

            with style.context("default"):
                draw(path, *given, **named)
        except Exception as error:  # of a library as large, of any kind
            print(f"warning: {path} was not drawn ({reason(error)})", file=sys.stderr)
            return False
        return True

    return drawn


@picture
def draw_stream(
    path: Path,
    tasks: list[np.ndarray],
    num_classes: int,
    class_order: list[int],
    blurry_classes: set[int] | None = None,
) -> None:
    """Which class arrives when: classes in order of first appearance over images streamed, darker for more images.

    tasks: raw labels in stream order, one array [images of the task] per task. class_order: raw labels by slot.
    blurry_classes: raw labels drawn in the second colour; None where the stream knows no such classes.
    """
    from matplotlib.patches import Patch

    ends = np.cumsum([len(task) for task in tasks], dtype=int)
    labels = np.concatenate([np.empty(0, dtype=int), *tasks]).astype(int)
    images_per_bin = max(1, -(-len(labels) // MAX_COLUMNS))
    counts = _images_per_bin(labels, images_per_bin, num_classes, class_order)
    is_blurry = np.zeros(num_classes, dtype=bool)
    is_blurry[: len(class_order)] = [label in (blurry_classes or ()) for label in class_order]

    figure, axes = new_figure(7.0, 4.6)
    # The last bin may reach beyond the last image; the axis limit cuts it off.
    extent = (0, counts.shape[1] * images_per_bin, -0.5, num_classes - 0.5)
    axes.imshow(_tinted(counts, is_blurry), extent=extent, origin="lower", aspect="auto")
    axes.set_xlim(0, max(1, len(labels)))
    axes.vlines(ends[:-1], *axes.get_ylim(), color="black", linewidth=0.8)
    axes.set_xlabel("images streamed")
    axes.set_ylabel("class, in order of first appearance")
    _count_axis(axes.xaxis)
    _count_axis(axes.yaxis)
    _number_tasks(axes, ends)

    kinds = [("images of a class", BLUE)]
    if blurry_classes is not None:
        kinds = [("disjoint class (one task only)", BLUE), ("blurry class (may return)", VERMILLION)]
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in kinds],
        title=f"darker: more images of the class (a column spans {images_per_bin:,} images)",
        loc="outside lower center",
        ncols=len(kinds),
        frameon=False,
    )
    save(figure, path)


@picture
def draw_curve(path: Path, metrics: pd.DataFrame, title: str) -> None:
    """One run: accuracy in percent, or the error of predicted numbers, over images seen (left axis) and the number of
    classes met (right axis).

    metrics: rows of `metrics.csv`.
    """
    figure, axes = new_figure(6.0, 3.6)
    classes_axes = axes.twinx()
    classes_axes.step(metrics["samples_seen"], metrics["classes_exposed"], where="post", color="0.75", linewidth=1.2)
    is_error = "mse" in metrics
    kind = "functions" if is_error else "classes"
    classes_axes.set_ylabel(f"{kind} seen so far", color=GREY)
    classes_axes.tick_params(axis="y", colors=GREY)
    classes_axes.set_ylim(0, 1.04 * max([1, *metrics["classes_exposed"]]))
    classes_axes.spines[["top", "left", "bottom"]].set_visible(False)
    classes_axes.spines["right"].set_color("0.75")
    _count_axis(classes_axes.yaxis)
    # The axes made last lies on top, and would cover the accuracy.
    axes.set_zorder(classes_axes.get_zorder() + 1)
    axes.patch.set_visible(False)

    anytime, task_end = (metrics[metrics["kind"] == kind] for kind in ("anytime", "task_end"))
    column, scale = ("mse", 1) if is_error else ("accuracy", 100)
    axes.plot(anytime["samples_seen"], scale * anytime[column].astype(float), color=BLUE, label="anytime")
    marks = {"linestyle": "none", "marker": "o", "markeredgecolor": "white", "markersize": 7}
    values = scale * task_end[column].astype(float)
    axes.plot(task_end["samples_seen"], values, color=VERMILLION, label="end of a task", **marks)
    axes.plot([], [], color="0.75", label=f"{kind} seen (right)")
    axes.set_title(literal(title))
    label_accuracy(axes)
    if is_error:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylabel("mean squared error")
    else:
        axes.set_ylim(0, 102)
    axes.set_xlim(0, 1.04 * max([1, *metrics["samples_seen"]]))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


@picture
def draw_comparison(path: Path, curves: dict[str, list[pd.DataFrame]], title: str) -> None:
    """Mean accuracy in percent over images seen per method, with a band of one sample standard deviation over seeds.

    More than MOST_CURVES of them would hide each other; for those there is `utils.report.ranking`.

    The x axis is the nominal image count of an evaluation, which is the same for all seeds and batch sizes.
    curves: name in the legend -> `metrics.csv` rows of each seed. Methods without anytime rows are passed over.
    """
    anytime = {name: [run for run in map(anytime_rows, runs) if len(run)] for name, runs in curves.items()}
    drawn = [(wrapped(name, WIDEST_NAME), runs) for name, runs in anytime.items() if runs]

    columns = 2 if len(drawn) > 1 and max(len(name) for name, _ in drawn) <= WIDEST_NAME // 3 else 1
    legend_lines = sum(name.count("\n") + 1 for name, _ in drawn) / columns
    figure, axes = new_figure(6.0, 3.5 + 0.22 * legend_lines)
    for index, (name, runs) in enumerate(drawn):
        grid, accuracy = on_common_grid(runs)
        auc = np.mean([100 * run["accuracy"].mean() for run in runs])
        colour = PALETTE[index % len(PALETTE)]
        style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
        mean = accuracy.mean(axis=0)
        axes.plot(grid, mean, color=colour, linestyle=style, label=f"{literal(name)}, $A_{{auc}}$ {auc:.1f}")
        if len(runs) > 1:
            spread = accuracy.std(axis=0, ddof=1)
            axes.fill_between(grid, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    axes.set_title(literal(title))
    label_accuracy(axes)
    if drawn:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    save(figure, path)


@picture
def draw_forgetting(path: Path, points: np.ndarray, names: list[str], columns: str, title: str) -> None:
    """Heat map of forgetting: one row per method, red for what was lost and blue for what was gained.

    points: percentage points lost [rows, columns], NaN where undefined, not everywhere. columns: what a column is.
    """
    from matplotlib.ticker import MaxNLocator

    names = [wrapped(name, WIDEST_ROW_NAME) for name in names]
    lines = max(name.count("\n") + 1 for name in names)
    widest = max(len(line) for name in names for line in name.split("\n"))
    num_rows, num_columns = points.shape
    written = num_columns <= MOST_WRITTEN
    width = 0.075 * widest + (max(3.5, 0.55 * num_columns) if written else np.clip(0.05 * num_columns, 6, 12))
    figure, axes = new_figure(width + 0.5, 1.9 + max(1.0, num_rows * (0.14 * lines + 0.1)))
    axes.spines[:].set_visible(False)
    axes.set_facecolor("0.82")
    limit = max(1.0, np.nanmax(np.abs(points)))
    extent = (0.5, num_columns + 0.5, num_rows - 0.5, -0.5)
    image = axes.imshow(
        points, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, aspect="auto", interpolation="nearest"
    )
    if written:
        for (row, column), value in np.ndenumerate(points):
            if not np.isnan(value):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                text = f"{round(value, 1) + 0.0:.1f}"  # + 0.0 makes -0 a 0
                axes.text(column + 1, row, text, ha="center", va="center", color=colour, fontsize=8, in_layout=False)
    axes.set_yticks(range(num_rows), map(literal, names), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.hlines(np.arange(1, num_rows) - 0.5, 0.5, num_columns + 0.5, color="white", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel(columns)
    axes.set_title(literal(title))
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6, aspect=40, pad=0.01)
    bar.set_label("points lost since the best earlier task end\n(grey: never right before the last task)")
    bar.outline.set_visible(False)
    save(figure, path)


@picture
def draw_confusion(path: Path, counts: np.ndarray, names: list[str], title: str) -> None:
    """Which class (row) is taken for which (column), darker for a larger share of the row; up to MOST_COUNTED classes
    with the numbers.

    counts: images [C, C]. names: of the classes.
    """
    from matplotlib.ticker import MaxNLocator

    size, images = len(names), counts.sum(axis=1, keepdims=True)
    shares = np.where(images > 0, 100 * counts / np.maximum(images, 1), np.nan)
    counted = size <= MOST_COUNTED
    names = [textwrap.shorten(name, WIDEST_CLASS, placeholder="…") if " " in name else name for name in names]
    names = [name if len(name) <= WIDEST_CLASS else f"{name[: WIDEST_CLASS - 1]}…" for name in names]
    every = max(1, -(-size // MOST_NAMED))  # of more classes only some can be named
    side = float(np.clip((0.42 if counted else 0.14) * size, 2.4, 12))
    margin = 0.075 * max(len(name) for name in names)
    figure, axes = new_figure(side + margin + 1.4, side + margin + 0.9)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("0.9")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if counted:
        digits = len(str(counts.max()))
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 55 else "black"
                size_of_text = 8 if digits < 4 else 6 if digits < 6 else 5
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size_of_text)
    shown = range(0, size, every)
    letters = 8 if counted else 6
    axes.set_xticks(shown, [literal(names[k]) for k in shown], rotation=90, fontsize=letters)
    axes.set_yticks(shown, [literal(names[k]) for k in shown], fontsize=letters)
    axes.tick_params(length=0 if every == 1 else 3)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class of the image")
    axes.set_title(literal(title), fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("percent of a class (grey: no images)")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    save(figure, path)


@picture
def draw_tasks(path: Path, matrices: dict[str, np.ndarray], title: str) -> None:
    """A square for each method: percent right on each task (column) after each task (row), NaN where not measured."""
    columns = min(3, len(matrices))
    size = max(len(matrix) for matrix in matrices.values())
    side = float(np.clip(0.32 * size + 1.1, 2.4, 7.5))
    rows = -(-len(matrices) // columns)
    figure, _ = new_figure(side * columns, (side + 0.2) * rows + 0.6)
    figure.clear()
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.set_visible(False)
    for axes, (name, matrix) in zip(grid.flat, matrices.items()):
        extent = (0.5, len(matrix) + 0.5, len(matrix) + 0.5, 0.5)
        image = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=100, extent=extent, interpolation="nearest")
        axes.set_facecolor("0.9")
        if len(matrix) <= MOST_WRITTEN:
            for (row, column), value in np.ndenumerate(matrix):
                if not np.isnan(value):
                    colour = "black" if value > 60 else "white"
                    axes.text(column + 1, row + 1, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
        axes.set_title(literal(wrapped(name, max(12, int(8 * side)))), fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(whole_numbers())
    for axes in grid[:, 0]:
        axes.set_ylabel("after task")
    for axes in grid[-1]:
        axes.set_xlabel("on task")
    figure.suptitle(literal(wrapped(title, int(11 * side * columns))), fontsize=10)
    figure.colorbar(image, ax=grid, shrink=0.6, pad=0.02).set_label("percent right")
    save(figure, path)


def whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=10, integer=True, steps=[1, 2, 5, 10])


def _images_per_bin(labels: np.ndarray, images_per_bin: int, num_classes: int, class_order: list[int]) -> np.ndarray:
    """Number of images per slot and time bin, [num_classes, bins], from the labels [N] of a stream."""
    slot_of = np.full(num_classes, -1)  # bincount refuses a label without a slot
    slot_of[class_order] = np.arange(len(class_order))
    num_bins = max(1, -(-len(labels) // images_per_bin))
    cells = slot_of[labels] * num_bins + np.arange(len(labels)) // images_per_bin
    return np.bincount(cells, minlength=num_classes * num_bins).reshape(num_classes, num_bins)


def _tinted(counts: np.ndarray, is_blurry: np.ndarray) -> np.ndarray:
    """RGB [rows, bins, 3] of image counts [rows, bins]: white for none, up to the row's full colour."""
    from matplotlib.colors import to_rgb

    filled = counts[counts > 0]
    # A percentile, not the maximum: one crowded bin would fade all others.
    full = max(2.0, np.percentile(filled, 95)) if len(filled) else 2.0
    strength = np.clip((counts - 1) / (full - 1), 0, 1)
    opacity = np.where(counts > 0, FAINTEST + (1 - FAINTEST) * strength, 0)[:, :, None]
    colours = np.where(is_blurry[:, None], to_rgb(VERMILLION), to_rgb(BLUE))[:, None, :]
    return 1 - opacity * (1 - colours)


def _number_tasks(axes: Any, ends: np.ndarray) -> None:
    """Writes the task numbers above the axes, each over the middle of its task, where there is room for it."""
    total = max(1, ends[-1]) if len(ends) else 1
    starts = np.concatenate([[0], ends[:-1]])
    wide = [task for task in range(len(ends)) if ends[task] - starts[task] >= NARROWEST_TASK * total]
    top = axes.secondary_xaxis("top")
    top.set_xticks([(starts[task] + ends[task]) / 2 for task in wide], [str(task + 1) for task in wide])
    top.tick_params(length=0, pad=2)
    top.spines["top"].set_visible(False)
    top.set_xlabel("task", labelpad=4)


def anytime_rows(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[(metrics["kind"] == "anytime") & metrics["accuracy"].notna()]


def on_common_grid(runs: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Nominal image counts [G] that all runs span, and the accuracy in percent there [runs, G]."""
    first = max(run["nominal"].min() for run in runs)
    last = min(run["nominal"].max() for run in runs)
    points = np.unique(np.concatenate([run["nominal"] for run in runs]))
    grid = points[(points >= first) & (points <= last)]
    return grid, np.stack([100 * np.interp(grid, run["nominal"], run["accuracy"]) for run in runs])


def label_accuracy(axes: Any) -> None:
    axes.set_xlabel("images seen")
    axes.set_ylabel("accuracy over classes seen (%)")
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.92")
    _count_axis(axes.xaxis)


def _count_axis(axis: Any) -> None:
    """Ticks at whole numbers with separated thousands."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def wrapped(name: str, width: int) -> str:
    return textwrap.fill(name, width, max_lines=MOST_LINES, placeholder=" …")


def colours_of(wrappers: Iterable[str]) -> dict[str, str]:
    """Wrapper -> its colour: first that of methods without one, named "", then by how often each occurs."""
    counts = Counter(name for name in wrappers if name)
    kinds = ["", *sorted(counts, key=lambda name: (-counts[name], name))]
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(kinds)}


def legend_above(axes: Any, width: int) -> None:
    """Names of the lines above the axes, in the colours of the lines. width: characters of a line of text."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        [wrapped(name, width) for name in names],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        borderpad=0,
        labelspacing=0.25,
        handlelength=2.2,
        handletextpad=0.5,
        frameon=False,
        fontsize=8.5,
        labelcolor="linecolor",
    )


def line_count(names: Iterable[str], width: int) -> int:
    """Lines of text that these names take, `width` characters each."""
    return sum(wrapped(name, width).count("\n") + 1 for name in names)


def literal(text: str) -> str:
    """Text that is drawn as it stands; between dollars it would be a formula."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure with one axes; sizes in inches. No pyplot: it would look for a display and keep the figure alive."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    with written_whole(Path(path)) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks
        figure.set_dpi(150)
        figure.canvas.print_png(temporary)  # `savefig` draws all of it a second time, to lay it out
