"""`main.py choose`: the best value by votes and by means, ties, and what cannot be chosen from."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import main
from tests.utils.report.test_comparison import assert_picture, make_run, make_table, table_rows
from utils.report import class_curves
from utils.report.bootstrap import bootstrap_interval
from utils.report.tables import mean_and_spread

SCORES = {  # rate -> seed -> A_last
    0.1: {1: 0.9, 2: 0.1, 3: 0.2, 4: 0.2},
    0.01: {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.1},
    0.001: {1: 0.5, 2: 0.6, 3: 0.1, 4: 0.9},
}


def make_runs(folder, scores=SCORES, measure="A_last", **more):
    for rate, seeds in scores.items():
        for seed, score in seeds.items():
            make_run(folder, "er", seed, f"{rate}", {measure: score}, method={"lr": rate}, **more)


def chosen(folder, capsys, rule="mode", option="lr", by="A_last") -> tuple[int, str, str]:
    code = main.main(["choose", str(folder), "--option", option, "--by", by, "--rule", rule])
    return code, *capsys.readouterr()


def test_most_votes_and_best_mean(tmp_path, capsys):
    make_runs(tmp_path)
    code, out, err = chosen(tmp_path, capsys)
    # Seeds 1 ... 4 vote for 0.1, for 0.01 (as good as 0.001, and larger), for 0.01 and for 0.001.
    assert (code, out) == (0, "0.01\n")
    assert {name: cells[-1] for name, cells in table_rows(err).items() if name in ("0.1", "0.01", "0.001")} == {
        "0.1": "1",
        "0.01": "2",
        "0.001": "1",
    }
    assert table_rows(err)["0.001"][:5] == ["50.00", "60.00", "10.00", "90.00", "52.50"]
    assert chosen(tmp_path, capsys, "mean")[:2] == (0, "0.001\n")


def test_of_equal_votes_and_of_equal_means_the_smallest_is_taken(tmp_path, capsys):
    make_runs(tmp_path, {0.1: {1: 0.9, 2: 0.2}, 0.01: {1: 0.2, 2: 0.9}, 1e-05: {1: 0.1, 2: 0.1}})
    assert [chosen(tmp_path, capsys, rule)[1] for rule in ("mode", "mean")] == ["0.01\n"] * 2


def test_of_an_error_the_least_is_best(tmp_path, capsys):
    make_runs(tmp_path, {0.1: {1: 0.4}, 0.01: {1: 0.3}}, "F_last")
    assert chosen(tmp_path, capsys, by="F_last")[1] == "0.01\n"


@pytest.mark.parametrize(
    ("more", "asked", "reason"),
    [
        ({}, {"option": "learning"}, "--option learning: no option of this name decides"),
        ({}, {"by": "A_first"}, "--by A_first: no such measure; choose from A_auc, "),
        ({}, {"by": "A_train"}, "--by A_train: .* has none; it takes --eval_train"),
        ({"run": {"batch_size": 7}}, {}, r"the runs differ in more than lr and seeds: batch_size \(64 \| 7\); name"),
        ({"seed": 9}, {}, "lr 0.1 lacks seed 9; lr 0.01 lacks seed 9; lr 0.001 lacks seed 1, 2, 3, 4"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(tmp_path, capsys, more, asked, reason):
    make_runs(tmp_path, {rate: SCORES[rate] for rate in (0.1, 0.01)})
    if more:
        make_run(tmp_path, "er", more.pop("seed", 1), "later", {"A_last": 0.3}, method={"lr": 0.001}, **more)
    code, out, err = chosen(tmp_path, capsys, **asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"error: {reason}", err), err


# Intervals over seeds, and the picture over classes


def test_interval_in_place_of_the_deviation(tmp_path, capsys):
    values = [0.5, 0.6, 0.8, 0.9]
    for seed, value in enumerate(values, start=1):
        make_run(tmp_path, "er", seed, scores={"A_auc": value})
    low, high = bootstrap_interval([100 * value for value in values], 1000)
    out, _ = make_table(tmp_path, "--interval", capsys=capsys)
    assert table_rows(out)["er"][1] == f"70.00 [{low:.2f}, {high:.2f}]" and 50 <= low < 65 and 75 < high <= 90
    assert "95 % bootstrap interval" in out and "±" not in out
    assert table_rows(make_table(tmp_path, capsys=capsys)[0])["er"][1] == "70.00 ± 18.26"
    assert mean_and_spread([0.5, 0.7], ".1f", interval=True) == "0.6"  # of two seeds nothing can be resampled


def test_picture_over_classes(tmp_path, capsys):
    """Of runs that evaluated the images trained on, after each task."""
    for seed in (1, 2, 3):
        folder = make_run(tmp_path, "er", seed, scores={"A_auc": 0.5})
        head = "kind,samples_seen,nominal,task,accuracy,train_accuracy,loss,classes_exposed,seconds\n"
        ends = "".join(
            f"task_end,{10 * k},,{k - 1},{1 / k},{1 - 0.1 * k + 0.01 * seed},1.0,{2 * k},3\n" for k in (1, 2)
        )
        (folder / "metrics.csv").write_text(head + ends)
    tables = [pd.read_csv(path) for path in sorted(tmp_path.glob("*/*/*/metrics.csv"))]
    curves = class_curves.class_curves(tables)
    assert curves.classes.tolist() == [2, 4]
    assert curves.training.round(6).tolist() == [[91, 81], [92, 82], [93, 83]]
    assert curves.held_out.tolist() == [[100, 50]] * 3
    assert class_curves.class_curves([table.drop(columns="train_accuracy") for table in tables]) is None
    class_curves.draw_classes(tmp_path / "classes.png", {"er": curves}, "characters")
    assert_picture(tmp_path / "classes.png")
