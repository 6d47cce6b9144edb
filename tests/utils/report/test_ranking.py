"""The picture of a comparison of more rows than one pair of axes can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from matplotlib.text import Text

from tests.utils.report.test_comparison import assert_picture, made_up_metrics, make_run, make_table
from utils.report import comparison, ranking
from utils.report.bootstrap import bootstrap_interval
from utils.runs import plots


def row(name: str, points: list[float], hosted: bool = False, curves: bool = True) -> ranking.Row:
    """A row "label option=value ..." with a level curve at each of its points."""
    label = " ".join(word for word in name.split() if "=" not in word)
    host = label.partition(" (")[2][:-1] if hosted else None
    wrapper = label.partition(" (")[0] if hosted else ""
    seeds = [made_up_metrics([point / 100] * 3) for point in points] if curves else []
    return ranking.Row(name, label, host, wrapper, points, seeds)


def sorted_rows(*rows: ranking.Row) -> list[ranking.Row]:
    return sorted(rows, key=lambda one: -one.mean)


ROWS = sorted_rows(
    row("er", [60.0, 62.0, 70.0]),
    row("misa", [50.0, 51.0, 55.0]),
    row("misa lr=0.1", [40.0, 41.0, 42.0]),
    row("mepo (misa)", [52.0, 53.0, 54.0], hosted=True),
    row("mepo (misa) align_form=exact", [57.0, 58.0, 62.0], hosted=True),
    row("joint (misa)", [80.0, 81.0], hosted=True),
    row("mepo (slda)", [30.0], hosted=True),
    *(row(f"other{k}", [20.0 - k]) for k in range(4)),
)


def drawn(rows: list[ranking.Row]) -> tuple[Any, list[Any]]:
    """The axes of the dots, and those of curves that can be seen."""
    figure = ranking.ranking_figure(rows, "a dataset")
    figure.canvas.draw()
    dots, *curves = [axes for axes in figure.axes if axes.get_visible()]
    return dots, curves


def names_of(axes: Any) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in axes.get_legend().get_texts()]


def assert_legible(figure: Any) -> None:
    """No text leaves the figure or lies on another."""
    shown: dict[int, Text] = {}
    draw = Text.draw
    with mock.patch.object(Text, "draw", lambda text, *given: (shown.update({id(text): text}), draw(text, *given))[1]):
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in shown.values() if text.get_visible() and text.get_text().strip()]
    extents = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    assert len(extents) > 5
    for index, (text, box) in enumerate(extents):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
        for other, place in extents[index + 1 :]:
            width = min(box.x1, place.x1) - max(box.x0, place.x0)
            height = min(box.y1, place.y1) - max(box.y0, place.y0)
            assert width <= 1 or height <= 1, (text, other)


# What is drawn


def test_every_row_is_a_line_with_its_mean_interval_and_seeds():
    dots, _ = drawn(ROWS)
    assert [label.get_text() for label in dots.get_yticklabels()] == [one.name for one in ROWS]
    places = dots.get_yticks()
    assert (np.diff(places) > 0).all() and dots.yaxis_inverted()  # the best is at the top
    means = {line.get_ydata()[0]: line.get_xdata()[0] for line in dots.lines if line.get_marker() == "o"}
    bars = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in dots.lines if line.get_marker() != "o"}
    seeds = {collection.get_offsets()[0, 1]: collection.get_offsets()[:, 0] for collection in dots.collections}
    for one, place in zip(ROWS, places):
        assert means[place] == pytest.approx(one.mean)
        assert sorted(seeds[place]) == one.points
        assert bars.get(place) == bootstrap_interval(one.points)
    assert len(bars) == 5  # rows of one and of two seeds have a dot and no bar
    assert "95 % bootstrap interval" in dots.get_xlabel()
    assert [text.get_text() for text in dots.texts] == [f"{one.mean:.1f}" for one in ROWS]


def test_colours_tell_methods_with_a_wrapper_from_those_alone():
    dots, (best, *_) = drawn(ROWS)
    colours = {label.get_text(): label.get_color() for label in dots.get_yticklabels()}
    assert colours["er"] == colours["misa"] == plots.BLUE
    assert colours["mepo (misa)"] == colours["mepo (slda)"] == plots.VERMILLION
    assert colours["joint (misa)"] == plots.GREEN
    assert [line.get_color() for line in best.lines] == [plots.GREEN, plots.BLUE, plots.VERMILLION, plots.VERMILLION]


def test_best_rows_and_pairs_have_curves():
    _, (best, *panels) = drawn(ROWS)
    assert names_of(best) == ["joint (misa)", "er", "mepo (misa) align_form=exact", "mepo (misa)"]
    assert [names_of(panel) for panel in panels] == [
        ["misa", "mepo (misa)"],
        ["misa", "joint (misa)"],
    ]
    for panel in (best, *panels):
        assert len({line.get_linestyle() for line in panel.lines}) == len(panel.lines)
    np.testing.assert_allclose([line.get_ydata()[0] for line in panels[0].lines], [52, 59])  # the best setting of each
    assert panels[0].get_ylim() == panels[1].get_ylim()


def test_without_pairs_only_the_best_rows_have_curves():
    _, curves = drawn(sorted_rows(*(row(f"method{k}", [50.0 + k]) for k in range(12))))
    assert [names_of(axes) for axes in curves] == [["method11", "method10", "method9", "method8"]]


def test_row_without_curve_keeps_its_dot():
    rows = sorted_rows(row("er", [90.0], curves=False), *(row(f"method{k}", [50.0 + k]) for k in range(3)))
    dots, (best,) = drawn(rows)
    assert dots.get_yticklabels()[0].get_text() == "er" and names_of(best) == ["method2", "method1", "method0"]


def test_a_figure_of_more_rows_is_higher():
    heights = [
        ranking.ranking_figure(sorted_rows(*(row(f"m{k}", [50.0 + k]) for k in range(count))), "").get_figheight()
        for count in (10, 40, 80)
    ]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("count", [9, 34])
@pytest.mark.parametrize("hosts", [0, 1, 4, 9])
def test_no_text_lies_on_another(count, hosts):
    words = "" if hosts == 1 else " some_option=a_long_value another_option=0.0015"
    alone = [row(f"method{k}{words}", [50.0 + k, 51.0 + k, 55.0 + k]) for k in range(count)]
    hosted = [row(f"mepo (method{k}){words} cor=exact", [60.0 + k], hosted=True) for k in range(hosts)]
    assert_legible(ranking.ranking_figure(sorted_rows(*alone, *hosted), "a dataset, si-blurry"))


# From run folders


def many_runs(folder: Path, count: int) -> None:
    for index in range(count):
        make_run(folder, f"method{index}", scores={"A_auc": 0.5 + index / 100})


@pytest.mark.parametrize("count, drawing", [(8, "draw_comparison"), (9, "draw_ranking")])
def test_more_than_eight_rows_are_ranked(tmp_path, capsys, monkeypatch, count, drawing):
    used = []
    for name in ("draw_comparison", "draw_ranking"):
        monkeypatch.setattr(comparison, name, lambda path, name=name, **_: used.append(name))
    many_runs(tmp_path, count)
    make_table(tmp_path, capsys=capsys)
    assert used == [drawing]


def test_rows_that_are_not_evaluated_at_any_time_are_passed_over(tmp_path, capsys, monkeypatch):
    given: dict[str, Any] = {}
    monkeypatch.setattr(comparison, "draw_ranking", lambda path, **what: given.update(what))
    many_runs(tmp_path, 9)
    make_run(tmp_path, "at_the_end", scores={"A_last": 0.9})
    make_run(tmp_path, "mepo (method3)", 1, scores={"A_auc": 0.7}, host={"lr": 0.005})
    make_run(tmp_path, "mepo (method3)", 2, scores={"A_last": 0.7}, host={"lr": 0.005})
    make_table(tmp_path, capsys=capsys)
    rows = given["ranking"]
    assert [one.name for one in rows] == ["mepo (method3)", *(f"method{k}" for k in range(8, -1, -1))]
    assert (rows[0].host, rows[0].wrapper, rows[0].points) == ("method3", "mepo", [pytest.approx(70)])
    assert [(alone.name, own.name) for alone, own in ranking.pairs(rows)] == [("method3", "mepo (method3)")]


def test_ranking_file(tmp_path, capsys):
    many_runs(tmp_path, 9)
    make_run(tmp_path, "mepo (a $x$ b)", host={"lr": 0.005})
    out, err = make_table(tmp_path, capsys=capsys)
    assert err == "" and str(tmp_path / "comparison-glyphs.png") in out
    assert_picture(tmp_path / "comparison-glyphs.png")
