"""A_auc over the values of one option: which lines there are, their numbers, their picture, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.utils.report.test_comparison import assert_picture, error_of, make_run, make_table
from tests.utils.report.test_ranking import assert_legible, names_of
from utils.report import sweep_picture
from utils.report.comparison import rows_and_notes
from utils.report.sweep import Line, lines_over
from utils.runs import plots
from utils.runs.reading import find_runs, read_runs

RATES = {0.001: [0.5, 0.52], 0.005: [0.6, 0.64], 0.05: [0.55]}  # rate -> A_auc per seed


def make_runs(folder: Path, label: str, scores: dict[float, list[float]], dataset: str = "glyphs", **more) -> None:
    """A run for each rate and seed. more: other options of the method, or of its host."""
    for rate, values in scores.items():
        for seed, value in enumerate(values, start=1):
            options = {"lr": rate, **more}
            parts = {"method": {"cor": 1}, "host": options} if "(" in label else {"method": options}
            time = f"{label}-{rate}-{'-'.join(map(str, more.values()))}"
            make_run(folder, label, seed, time, {"A_auc": value}, dataset, **parts)


def lines_of(folder: Path, option: str = "lr") -> list[Line]:
    runs, _ = read_runs(find_runs([folder]))
    return lines_over(rows_and_notes(runs)[0], option)[0]


# Numbers


def test_numbers_of_a_method_and_of_what_is_around_it(tmp_path, capsys):
    make_runs(tmp_path, "misa", RATES)
    make_runs(tmp_path, "mepo (misa)", {0.001: [0.7], 0.005: [0.65]})
    out, _ = make_table(tmp_path, "--over", "lr", capsys=capsys)
    assert "Not every value of lr has the same seeds, so that their means say less: misa." in out
    table = pd.read_csv(tmp_path / "over-lr-glyphs.csv")
    assert list(table["method"]) == ["misa"] * 3 + ["mepo (misa)"] * 2
    assert list(table["value"]) == [0.001, 0.005, 0.05, 0.001, 0.005]
    assert list(table["seeds"]) == [2, 2, 1, 1, 1]
    np.testing.assert_allclose(table["A_auc"], [0.51, 0.62, 0.55, 0.7, 0.65])
    np.testing.assert_allclose(table["A_auc_std"], [0.02 / 2**0.5, 0.04 / 2**0.5, np.nan, np.nan, np.nan])
    assert list(table["best"]) == [False, True, False, True, False]
    assert set(zip(table["dataset"], table["scenario"], table["option"])) == {("glyphs", "si-blurry", "lr")}
    assert "### A_auc over lr" in out and "62.00 ± 2.83" in out
    for name in ("over-lr-glyphs.csv", "over-lr-glyphs.png"):
        assert str(tmp_path / name) in out
    assert_picture(tmp_path / "over-lr-glyphs.png")


def test_every_setting_of_other_options_is_a_line(tmp_path, capsys):
    for length in (2, 4):
        make_runs(tmp_path, "misa", RATES, length=length)
    make_table(tmp_path, "--over", "lr", capsys=capsys)
    assert set(pd.read_csv(tmp_path / "over-lr-glyphs.csv")["method"]) == {"misa length=2", "misa length=4"}


def test_option_of_every_run_and_option_of_a_wrapper(tmp_path):
    for period in (100, 200):
        make_run(tmp_path / "run", time=str(period), run={"eval_period": period})
        make_run(tmp_path / "wrapper", "mepo (misa)", time=str(period), method={"cor": period}, host={"lr": 1})
    assert [line.name for line in lines_of(tmp_path / "run", "eval_period")] == ["misa"]
    assert [line.panel for line in lines_of(tmp_path / "wrapper", "cor")] == ["misa"]


def test_settings_with_one_value_are_no_lines_but_named(tmp_path, capsys):
    make_runs(tmp_path, "misa", RATES, length=2)
    make_runs(tmp_path, "misa", {0.005: [0.9]}, length=4)
    make_runs(tmp_path, "er", {0.005: [0.9]})
    make_run(tmp_path, "slda", method={"lr": None})
    out, _ = make_table(tmp_path, "--over", "lr", capsys=capsys)
    assert set(pd.read_csv(tmp_path / "over-lr-glyphs.csv")["method"]) == {"misa length=2"}
    assert "Left out, without several values of lr, all else being equal: er, misa length=4, slda." in out


def test_runs_without_a_auc_are_passed_over(tmp_path, capsys):
    make_runs(tmp_path, "misa", RATES)
    make_run(tmp_path, "misa", 3, "end", {"A_last": 0.9}, method={"lr": 0.005})
    make_run(tmp_path, "misa", 3, "more", {"A_last": 0.9}, method={"lr": 0.5})
    make_table(tmp_path, "--over", "lr", capsys=capsys)
    table = pd.read_csv(tmp_path / "over-lr-glyphs.csv")
    assert list(table["value"]) == [0.001, 0.005, 0.05] and list(table["seeds"]) == [2, 2, 1]


def test_dataset_in_which_the_option_does_not_vary_has_no_picture(tmp_path, capsys):
    make_runs(tmp_path, "misa", RATES)
    make_runs(tmp_path, "misa", {0.005: [0.5]}, dataset="cifar100")
    make_table(tmp_path, "--over", "lr", capsys=capsys)
    assert {path.name for path in tmp_path.glob("over-*")} == {"over-lr-glyphs.csv", "over-lr-glyphs.png"}


# Picture


def test_panels_lines_bands_and_best_values(tmp_path):
    make_runs(tmp_path, "misa", RATES)
    make_runs(tmp_path, "mepo (misa)", {0.001: [0.7], 0.05: [0.75]})
    make_runs(tmp_path, "er", {0.001: [0.1], 0.002: [0.2]})
    figure = sweep_picture.sweep_figure(lines_of(tmp_path), "lr", "a dataset")
    assert_legible(figure)
    er, misa = figure.axes
    assert names_of(er) == ["er"] and names_of(misa) == ["misa", "mepo (misa)"]
    assert er.get_xscale() == misa.get_xscale() == "log" and er.get_ylim() == misa.get_ylim()
    alone, best, wrapped, best_wrapped = misa.lines
    np.testing.assert_allclose(alone.get_xydata(), [[0.001, 51], [0.005, 62], [0.05, 55]])
    np.testing.assert_allclose(best.get_xydata(), [[0.005, 62]])
    np.testing.assert_allclose(best_wrapped.get_xydata(), [[0.05, 75]])
    assert (alone.get_color(), wrapped.get_color()) == (plots.BLUE, plots.VERMILLION)
    assert alone.get_linestyle() != wrapped.get_linestyle()
    assert len(misa.collections) == 1 and not er.collections  # bands of several seeds only


@pytest.mark.parametrize("values, logarithmic", [([0.001, 0.02], True), ([1, 10], False), ([0, 1], False)])
def test_axis_is_logarithmic_over_more_than_a_factor_of_ten(values, logarithmic):
    assert sweep_picture.is_logarithmic(values) is logarithmic


def test_ticks_keep_their_distance():
    assert sweep_picture.spaced([1, 2, 3]) == [1, 2, 3]
    assert sweep_picture.spaced([0.001, 0.0011, 0.01, 0.1]) == [0.001, 0.01, 0.1]
    assert len(sweep_picture.spaced(list(range(100)))) <= 6


@pytest.mark.parametrize("methods", [1, 2, 5])
def test_no_text_lies_on_another(methods, tmp_path):
    for index in range(methods):
        for length in (20, 500):
            make_runs(tmp_path, f"method{index}", RATES, some_long_option=length, another_option=2 * length)
    assert_legible(sweep_picture.sweep_figure(lines_of(tmp_path), "lr", "a dataset, si-blurry"))


# Refusals


def test_option_that_nobody_has_is_answered_with_the_nearest(tmp_path, capsys):
    make_runs(tmp_path, "misa", RATES)
    error = error_of(str(tmp_path), "--over", "lrr", capsys=capsys)
    assert "--over lrr: no option of this name decides what a run computes; did you mean 'lr'?" in error
    assert "options of several values: lr" in error_of(str(tmp_path), "--over", "xyz", capsys=capsys)
    assert not list(tmp_path.glob("*.*"))


def test_option_that_is_no_number(tmp_path, capsys):
    for form in ("exact", "released"):
        make_run(tmp_path, time=form, method={"form": form})
    error = error_of(str(tmp_path), "--over", "form", capsys=capsys)
    assert "--over form: its values are no numbers (exact, released); no option of numbers differs here" in error


def test_option_of_a_single_value(tmp_path, capsys):
    make_runs(tmp_path, "misa", {0.005: [0.5, 0.6]})
    assert "--over lr: all runs here have the one value 0.005" in error_of(str(tmp_path), "--over", "lr", capsys=capsys)


def test_values_that_never_differ_alone(tmp_path, capsys):
    make_runs(tmp_path, "misa", {0.005: [0.5]})
    make_runs(tmp_path, "er", {0.001: [0.5]})
    assert "--over lr: no two runs with an A_auc differ in lr" in error_of(str(tmp_path), "--over", "lr", capsys=capsys)


def test_more_lines_than_can_be_read(tmp_path, capsys):
    for length in range(5):
        make_runs(tmp_path, "misa", {0.001: [0.5], 0.005: [0.6]}, length=length)
    error = error_of(str(tmp_path), "--over", "lr", capsys=capsys)
    assert "misa has 5 lines, more than 4, which differ in length; point the report at fewer runs" in error
    assert not (tmp_path / "table.md").exists()
