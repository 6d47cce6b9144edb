"""`main.py report --interval`: intervals in the tables, and curves over the classes or functions learnt."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from tests.utils.report.test_comparison import assert_picture, make_run, make_table, table_rows
from utils.report.bootstrap import bootstrap_interval
from utils.report.learning_curves import (
    CLASSES,
    FUNCTIONS,
    class_curves,
    draw_learning,
    first_and_last,
    function_curves,
)


def test_intervals_take_the_place_of_deviations(tmp_path, capsys):
    shares = [0.1, 0.2, 0.6]
    for seed, share in enumerate(shares, start=1):
        make_run(tmp_path, "er", seed, scores={"A_auc": share})
    make_run(tmp_path, "l2p", 1, scores={"A_auc": 0.5})
    usual, _ = make_table(tmp_path, capsys=capsys)
    assert table_rows(usual)["er"][1] == "30.00 ± 26.46" and "Mean ± sample standard deviation over seeds." in usual
    out, _ = make_table(tmp_path, "--interval", capsys=capsys)
    low, high = bootstrap_interval([100 * share for share in shares], 1000)
    assert 10 <= low < 30 < high <= 60
    assert table_rows(out)["er"][1] == f"30.00 [{low:.2f}, {high:.2f}]" and table_rows(out)["l2p"][1] == "50.00"
    assert "±" not in out and "in brackets its 95 % bootstrap interval" in (tmp_path / "table.md").read_text()
    assert f"$30.00$ {{[}}{low:.2f}, {high:.2f}]" in (tmp_path / "table.tex").read_text()
    assert not (tmp_path / "classes-glyphs.png").exists()


def rows_of(training: list[float], held_out: list[float]) -> pd.DataFrame:
    lines = [
        {"kind": "task_end", "task": k, "classes_exposed": 2 * k + 2, "train_accuracy": a, "accuracy": b}
        for k, (a, b) in enumerate(zip(training, held_out, strict=True))
    ]
    return pd.DataFrame([{"kind": "anytime", "classes_exposed": 1, "train_accuracy": 0.0, "accuracy": 0.0}, *lines])


def test_curves_over_classes(tmp_path):
    runs = [rows_of([1.0, 0.8], [0.9, 0.5]), rows_of([0.9, 0.7], [0.8, 0.4])]
    found = class_curves([*runs, runs[0].drop(columns="train_accuracy")])
    assert found.learnt.tolist() == [2, 4]
    np.testing.assert_allclose(found.left, [[100, 80], [90, 70]])
    np.testing.assert_allclose(found.right, [[90, 50], [80, 40]])
    assert class_curves([runs[0].drop(columns="train_accuracy")]) is None
    # A second pass over a task takes the place of the first.
    again = pd.concat([runs[0], rows_of([0.5, 0.6], [0.3, 0.2]).iloc[2:]])
    assert class_curves([again]).left.tolist() == [[100, 60]]
    assert draw_learning(tmp_path / "a.png", {f"row {k}": found for k in range(10)}, CLASSES, "data")
    assert_picture(tmp_path / "a.png")


def errors_of(*values: list[float]) -> pd.DataFrame:
    """values: on each function so far, after each."""
    return pd.DataFrame(
        [
            {"after_task": k, "measure": "mse_given", "task": j, "value": row[j] if j <= k else np.nan}
            for k, row in enumerate(values)
            for j in range(len(values))
        ]
    )


def test_curves_over_functions(tmp_path):
    runs = [errors_of([1.0], [2.0, 4.0]), errors_of([0.5], [1.0, 2.0]), errors_of([0.3], [0.6, 0.6])]
    found = function_curves([*runs, errors_of([9.0])])  # of fewer functions: left out
    assert found.learnt.tolist() == [1, 2]
    np.testing.assert_allclose(found.left, [[1, 3], [0.5, 1.5], [0.3, 0.6]])
    np.testing.assert_allclose(found.right, [[2, 4], [1, 2], [0.6, 0.6]])
    assert function_curves([]) is None and function_curves([errors_of([1.0], [np.nan, 4.0])]) is None
    heading, row = first_and_last({"oml": found})
    low, high = bootstrap_interval([3, 1.5, 0.6], 1000)
    assert heading == ["method", "functions", "MSE after the first", "MSE after all"]
    assert row[:2] == ["oml", "2"] and row[3] == f"1.7 [{low:.3g}, {high:.3g}]"
    assert draw_learning(tmp_path / "a.png", {"oml": found, "scratch": found}, FUNCTIONS, "data")
    assert_picture(tmp_path / "a.png")


def test_a_report_draws_them(tmp_path, capsys):
    for seed in (1, 2, 3):
        folder = make_run(tmp_path, "er", seed, scores={"A_last": 0.5, "A_avg": 0.7})
        table = pd.read_csv(folder / "metrics.csv")
        table.assign(train_accuracy=table["accuracy"] / 2).to_csv(folder / "metrics.csv", index=False)
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"A_train": 0.25}))
    make_table(tmp_path, capsys=capsys)
    assert not (tmp_path / "classes-glyphs.png").exists()
    out, _ = make_table(tmp_path, "--interval", capsys=capsys)
    assert_picture(tmp_path / "classes-glyphs.png")
    assert table_rows(out)["er"][1:4] == ["70.00 [70.00, 70.00]", "50.00 [50.00, 50.00]", "25.00 [25.00, 25.00]"]
