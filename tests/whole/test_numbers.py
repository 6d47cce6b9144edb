"""Data with numbers to predict: a dataset of one's own, its run, its table; and methods that tell tasks apart."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

import main
from models.er import Er
from tests.tiny import ROOT, build, run_folder
from utils.classes import SeenClasses
from utils.contracts import Votes
from utils.data.images import ImageSet
from utils.streams.base import Reshuffled
from utils.training.evaluation import Evaluator

WAVES = re.search(r"```python\n([^`]*class Waves.*?)```", (ROOT / "docs/datasets.md").read_text(), re.DOTALL)[1]
QUICK = ["--n_iter", "30", "--batch_size", "16", "--hmlp_arch", "8", "--lr", "0.01", "--eval_period", "500"]
QUICK += ["--heads", "shared"]


@pytest.fixture
def waves(tmp_path, in_process):
    (tmp_path / "plugins" / "datasets").mkdir(parents=True)
    file = tmp_path / "plugins" / "datasets" / "waves.py"
    file.write_text(WAVES)
    usual = ["--plugins", str(tmp_path / "plugins"), "--dataset", "waves", "--device", "cpu"]
    usual += ["--results", str(tmp_path / "runs"), "--cache_dir", str(tmp_path / "cache")]

    def call(model: str, *words: str, text: str | None = None) -> int:
        file.write_text(text or WAVES)
        return main.main([*usual, "--model", model, *words])

    return call


def test_a_run_on_numbers_and_its_table(waves, tmp_path, capsys):
    assert waves("posterior_replay", "--posterior", "dirac", *QUICK) == 0
    folder = run_folder(tmp_path / "runs")
    metrics, tasks = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder / "per_task.csv")
    assert metrics["accuracy"].isna().all() and (metrics["mse"] > 0).all()
    assert metrics["samples_seen"].max() == 3 * 30 * 16 and (metrics["kind"] == "anytime").any()
    assert {*tasks["measure"]} == {"mse_given", "mse_inferred", "found"}
    last = tasks[(tasks["after_task"] == 2) & (tasks["measure"] == "mse_given")]["value"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mse_given_final"] == pytest.approx(last.mean())
    assert metrics["mse"].iloc[-1] == pytest.approx(last.mean())  # tasks of the same size
    assert summary["mse_given_during"] < 0.7 and summary["mse_inferred_final"] > 0  # the variance is above 0.8
    assert all(summary[name] is None for name in ("A_auc", "A_avg", "A_last", "F_last", "BWT", "class_final"))
    assert (folder / "curve.png").exists() and len(pd.read_csv(folder / "per_class.csv")) == 0
    capsys.readouterr()
    assert main.main(["report", str(tmp_path / "runs")]) == 0
    told = capsys.readouterr().out
    assert "mse_given_final" in told and "found_final (%)" in told and f"{last.mean():.3g}" in told


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("num_inputs, num_targets = 3, 1, 1", "num_inputs = 3, 1", "gives targets without saying how many"),
        ("np.sin(3 * x + labels[:, None])", "np.where(np.arange(60)[:, None] == 4, np.nan, x)", "sample 4 are not fin"),
        ("None]).astype(np.float32)", "None])", "float64 [60, 1]"),
        (", np.sin(3 * x + labels[:, None]).astype(np.float32)", "", "loads no third array"),
        ("3, 1, 1\n", "3, 1, 2\n", "must be float32 [60, 2]"),
        ("3, 1, 1\n", "3, 1, 0\n", "num_targets = 0; a sample has at least one"),
        (
            "return x,",
            "return np.where(np.arange(60)[:, None] == 7, np.nan, x).astype(np.float32),",
            "sample 7 is not of",
        ),
    ],
)
def test_targets_that_are_none(waves, capsys, old, new, said):
    model = "finetune" if "saying" in said else "posterior_replay"
    assert old in WAVES
    assert waves(model, *QUICK[:4], text=WAVES.replace(old, new)) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1] and told[-1].startswith("error: ") and "Traceback" not in "".join(told)


@pytest.mark.parametrize(
    "model, words, said",
    [
        ("er", [], "--model er: predicts classes, and waves has numbers to predict"),
        ("posterior_replay", ["--heads", "growing"], "--heads growing: adds the classes of each task"),
        ("posterior_replay", ["--eval_ahead"], "--eval_ahead: compares accuracies"),
        ("posterior_replay", ["--n_iter", "3", "--n_epochs", "2"], "--n_iter 3: counts batches instead of the passes"),
    ],
)
def test_what_numbers_do_not_have(waves, capsys, model, words, said):
    assert waves(model, *words, text=WAVES.replace("def load", "def unread")) == 2  # before anything is read
    assert said in capsys.readouterr().err


# Batches in place of passes


def test_batches_of_a_task_come_from_one_shuffle_after_the_other():
    tasks = [torch.arange(20), torch.arange(20, 27), torch.empty(0, dtype=torch.int64)]
    stream = Reshuffled(tasks, [[0], [1], [2]], 3, seed=1, batch_size=32, num_epochs=1, num_batches_each=5)
    for task in (0, 1):
        batches = [draw.indices for draw in stream.batches(task, 0)]
        assert [len(batch) for batch in batches] == [32] * 5
        size = len(tasks[task])
        shuffles = torch.cat(batches).split(size)
        assert all(torch.equal(one.sort()[0], tasks[task]) for one in shuffles[:-1])
        assert len({tuple(one.tolist()) for one in shuffles[:-1]}) > 1
        assert all(torch.equal(one, other.indices) for one, other in zip(batches, stream.batches(task, 0)))
    assert stream.batches(2, 0) == []
    assert stream.num_batches() == 10 and stream.num_images() == 320 and len(stream.rows(0)) == 20


# Votes


class Voter(Er):
    """Three models of two columns each. The true one is given; `sure` and `other` say which one each sample gets."""

    tells_tasks_apart = True
    outputs, sure, other = torch.empty(0), torch.empty(0), torch.empty(0)

    def votes(self, x):
        at = x[:, 0].long()
        return Votes(self.outputs[:, at], {"ent": self.sure[:, at], "other": self.other[:, at]})


class Six(torch.nn.Module):
    """A stream of tasks 01, 23, 45."""

    num_tasks, num_outputs, announces = 3, 6, True

    def tasks_of_labels(self):
        return [0, 0, 1, 1, 2, 2]

    def columns(self, task):
        return range(2 * task, 2 * task + 2)


class Untouched:
    def test(self, raw):
        return raw


def evaluated(announces: bool, targets: np.ndarray | None = None, outputs: torch.Tensor | None = None):
    """Six samples, one per class. Model j says the first of its classes, but of sample 3, which all call 3."""
    run = build(Voter, n_tasks=3)
    said = torch.full((3, 6, 6), -100.0)
    for j in range(3):
        said[j, :, 2 * j] = 0
    said[:, 3, 3] = 1
    run.model.outputs = said if outputs is None else outputs
    run.model.sure = -(torch.arange(3)[:, None] - torch.tensor([0, 0, 1, 1, 0, 0])).abs().float()
    run.model.other = -(torch.arange(3)[:, None] - torch.tensor([2, 2, 2, 2, 2, 2])).abs().float()
    images = ImageSet(np.arange(6, dtype=np.float32)[:, None], np.arange(6), torch.device("cpu"), None, targets)
    stream = Six()
    stream.announces = announces
    seen = SeenClasses(6)
    seen.add(torch.arange(6))
    return Evaluator(images, Untouched(), 4, stream=stream)(run.model, seen)


@pytest.mark.parametrize("announces, average", [(True, 4 / 6), (False, 3 / 6)])
def test_predictions_by_the_votes_of_models(announces, average):
    scores = evaluated(announces)
    assert scores.per_task["task"] == [0.5, 1, 0.5]  # of the model of each sample's own task
    assert scores.per_task["class"] == scores.per_task["inferred"] == [0.5, 1, 0]  # a wrong task is a wrong class
    assert scores.per_task["found"] == [1, 1, 0] and scores.per_task["found_other"] == [0, 0, 1]
    assert scores.per_task["inferred_other"] == [0, 0.5, 0.5]
    assert scores.per_task["entropy_in"] == [0, 0, 2] and scores.per_task["entropy_out"] == [1.5, 1, 0.5]
    assert scores.average == pytest.approx(average) and not scores.is_error


@pytest.mark.parametrize("announces, average", [(True, (0 + 1 + 4) / 3), (False, (0 + 1 + 2.5) / 3)])
def test_errors_by_the_votes_of_models(announces, average):
    targets = torch.tensor([0.0, 0, 2, 2, 4, 4])[:, None]
    numbers = torch.tensor([0.0, 3, 6])[:, None, None].expand(3, 6, 1).clone()
    numbers[0, 4:] = targets[4:] + torch.tensor([[1.0], [2.0]])  # of model 0, which is inferred there: 1, 4
    scores = evaluated(announces, targets.numpy(), numbers)
    assert scores.per_task["mse_given"] == [0, 1, 4] and scores.per_task["mse_inferred"] == [0, 1, 2.5]
    assert scores.per_task["mse_inferred_other"] == [36, 16, 4]
    assert scores.average == pytest.approx(average) and scores.is_error and len(scores.per_class) == 0


def test_a_model_that_cannot_say_how_sure_it_is_ends_the_run():
    with pytest.raises(FloatingPointError, match="6 of 6 test images"):
        evaluated(True, None, torch.full((3, 6, 6), float("nan")))
