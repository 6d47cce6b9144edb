"""The sine waves of OML: functions drawn as its authors draw them, in the form that a method completes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import main
from datasets import sines
from datasets.seq_sines import SeqSines
from datasets.sines import SLOTS, Sines, drawn

# Of step 1 of the case sine_linear_pln, which the authors' code gave at seed 303.
AMPLITUDE = np.float32([4.102286, 4.9440045, 1.3463691, 1.4517282])
PHASE = np.float32([1.3899454, 2.2019682, 2.9504957, 2.3768663])


@pytest.fixture(scope="module")
def parts():
    return {(kind, train): kind().load(None, train) for kind in (Sines, SeqSines) for train in (True, False)}


def test_functions_are_drawn_as_the_authors_draw_them():
    draw = np.random.RandomState(303)
    draw.choice(400, 4, replace=False)  # the release draws which tasks come, and then those that are new
    amplitude, phase = drawn(draw, 4).astype(np.float32).T
    assert np.array_equal(amplitude, AMPLITUDE) and np.array_equal(phase, PHASE)


def test_they_are_what_they_declare(parts):
    for (kind, train), (x, labels, y) in parts.items():
        assert len(x) == kind.counts[0 if train else 1] == 1000 * kind.num_classes
        assert (x.shape[1], y.shape[1]) == (kind.num_inputs, kind.num_targets) == (51, 1)
        assert (x.dtype, labels.dtype, y.dtype) == (np.float32, np.int64, np.float32)
        assert (np.bincount(labels) == 1000).all() and len({*labels.tolist()}) == kind.num_classes
        assert not x[:, :SLOTS].any() and -5 <= x[:, -1].min() < -4.99 and 4.99 < x[:, -1].max() <= 5


def test_points_lie_on_the_function_of_their_label(parts):
    functions = drawn(np.random.RandomState(sines.SEED), 900)
    assert functions[:, 0].min() >= 0.1 and functions[:, 0].max() < 5.1 and functions[:, 1].max() < np.pi
    for (kind, _), (x, labels, y) in parts.items():
        amplitude, phase = functions[labels + (400 if kind is SeqSines else 0)].T
        assert np.abs(amplitude * np.sin(x[:, -1] + phase) - y[:, 0]).max() < 1e-5


def test_no_points_are_shared(parts):
    """Neither between training and test nor between functions nor, at the same place, between the two datasets."""
    pools = [x[:1000, -1] for x, _, _ in parts.values()] + [parts[Sines, True][0][1000:2000, -1]]
    assert len(np.unique(np.concatenate(pools))) > 0.99 * 5000


def test_a_run_learns_ten_functions_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sines, "POINTS", 8)
    monkeypatch.setattr(SeqSines, "counts", (4000, 4000))
    words = ["--model", "posterior_replay", "--posterior", "dirac", "--protection", "none", "--dataset", "seq-sines"]
    words += ["--backbone", "mlp-4", "--n_iter", "2", "--batch_size", "4", "--device", "cpu"]
    assert main.main([*words, "--results", str(tmp_path / "runs"), "--cache_dir", str(tmp_path)]) == 0
    summary = json.loads((Path(capsys.readouterr().out.splitlines()[-1]) / "summary.json").read_text())
    assert summary["scenario"] == "task-il" and summary["samples"] == 10 * 2 * 4
    assert summary["mse_given_final"] > 0


def test_methods_that_predict_classes_are_refused(tmp_path, capsys):
    assert main.main(["--model", "er", "--dataset", "seq-sines", "--results", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == "error: --model er: predicts classes, and seq-sines has numbers to predict\n"
    assert not (tmp_path / "runs").exists()
