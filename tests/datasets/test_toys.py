"""The toys of posterior meta-replay, made in code: the arrays of the authors, and the pictures of what is learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor, nn

import main
from datasets import modes_2d
from datasets.base import ask
from datasets.modes_2d import Modes2d
from datasets.regression_1d import Regression1d
from tests.tiny import ROOT
from utils.contracts import Votes

CASES = ROOT / "tests" / "goldens" / "posterior_replay"


# Arrays


@pytest.mark.parametrize("case, seed", [("gmm_pr_bbb_w2", 42), ("gmm_pr_bbb_chunked", 7)])
def test_modes_are_those_of_the_authors(case, seed, monkeypatch):
    """The case of seed 7 was recorded on other draws of the same modes, and tests on every tenth point."""
    monkeypatch.setattr(modes_2d, "SEED", seed)
    case = np.load(CASES / f"{case}.npz")
    (x, labels), (test_x, test_labels) = (Modes2d().load(None, train) for train in (True, False))
    assert x.dtype == test_x.dtype == np.float32
    for task in range(3):
        own, test = labels // 2 == task, test_labels // 2 == task
        assert np.array_equal(x[own], case[f"task{task}/train_x"])
        assert np.array_equal(labels[own] % 2, case[f"task{task}/train_y"])
        assert np.array_equal(test_x[test][::10], case[f"eval/x/{task}"])
        assert np.array_equal(test_labels[test][::10] % 2, case[f"eval/y/{task}"])


def test_functions_are_those_of_the_authors():
    case = np.load(CASES / "reg_pr_bbb.npz")
    for train in (True, False):
        x, labels, y = Regression1d().load(None, train)
        assert x.dtype == y.dtype == np.float32
        for task in range(3):
            for values, letter in ((x, "x"), (y, "y")):
                key = f"task{task}/train_{letter}" if train else f"eval/{letter}/{task}"
                assert np.array_equal(values[labels == task], case[key])


@pytest.mark.parametrize("kind", [Modes2d, Regression1d])
def test_they_are_what_they_declare(kind):
    parts = [kind().load(None, train) for train in (True, False)]
    assert tuple(len(labels) for _, labels, *_ in parts) == kind.counts
    for x, labels, *targets in parts:
        assert x.shape == (len(labels), kind.num_inputs)
        assert [y.shape[1] for y in targets] == [kind.num_targets][: len(targets)]
        assert (
            sorted({*labels.tolist()}) == [label for own in kind.tasks for label in own] == [*range(kind.num_classes)]
        )


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--scenario", "si-blurry"], "comes in tasks of its own, --scenario task-il or class-il"),
        (["--n_tasks", "2"], "--n_tasks 2: the file holds 3 tasks"),
    ],
)
def test_streams_that_cut_other_tasks_are_refused(words, reason, tmp_path, capsys):
    assert main.main(["--model", "er", "--dataset", "modes-2d", "--results", str(tmp_path / "runs"), *words]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not (tmp_path / "runs").exists()


# Pictures


class Nearest(nn.Module):
    """A model per task: the class of the nearest of its centres, the surer the nearer; of numbers x + task."""

    tells_tasks_apart = True

    def __init__(self, centres: list[list[list[float]]] | None = None):
        super().__init__()
        self.centres = None if centres is None else nn.Parameter(torch.tensor(centres))
        self.offset = nn.Parameter(torch.zeros(1))

    def votes(self, x: Tensor) -> Votes:
        assert not self.training and not torch.is_grad_enabled()
        if self.centres is None:
            outputs = torch.stack([x + task for task in range(3)])
            return Votes(outputs, {"std": -torch.stack([(x[:, 0] - 3 * task + 3).abs() for task in range(3)])})
        near = -torch.cdist(x.expand(len(self.centres), -1, -1), self.centres)
        outputs = torch.full((len(near), len(x), 2 * len(near)), -100.0)
        for task, own in enumerate(near):
            outputs[task, :, 2 * task : 2 * task + 2] = own.log_softmax(1)
        return Votes(outputs, {"ent": near.amax(2), "other": torch.zeros(near.shape[:2])})

    def forward(self, x: Tensor) -> Tensor:
        return self.votes(x).outputs.amax(0)


def drawn(kind, model: nn.Module, tasks: list[list[int]], path) -> np.ndarray:
    """Pixels [H, W, 3]."""
    with torch.no_grad():
        kind().draw(path, model.eval(), tasks)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def share(pixels: np.ndarray, colour) -> float:
    return (np.abs(pixels - 255 * np.array(to_rgb(colour))) < 2).all(axis=2).mean()


def test_a_picture_of_the_plane(tmp_path, capsys):
    x, _ = Modes2d().load(None, train=True)
    centres = x.reshape(3, 2, 10, 2).mean(axis=2).tolist()
    picture = drawn(Modes2d, Nearest(centres), Modes2d.tasks, tmp_path / "plane.png")
    assert picture.shape[1] == 495 and picture.shape[0] < 600  # a paper's column at 150 dots per inch
    tints = [0.4 + 0.6 * np.array(to_rgb(colour)) for colour in modes_2d.COLOURS]
    shares = [share(picture, tuple(tint)) for tint in tints]
    assert max(shares) < 1.5 * min(shares) and min(shares) > 0.01  # a sector of the plane for each class
    tasks = [share(picture, grey) for grey in modes_2d.GREYS]
    assert min(tasks) > 0.01
    # Columns in another order are classes in another place.
    other = drawn(Modes2d, Nearest(centres), [[1, 0], [2, 3], [4, 5]], tmp_path / "other.png")
    assert not np.array_equal(other, picture)
    lone = Nearest(centres)
    lone.tells_tasks_apart = False
    single = drawn(Modes2d, lone, Modes2d.tasks, tmp_path / "single.png")
    assert single.shape[0] < 0.7 * picture.shape[0]  # the class alone
    assert capsys.readouterr().err == ""


def test_a_picture_of_the_functions(tmp_path, capsys):
    whole = drawn(Regression1d, Nearest(), Regression1d.tasks, tmp_path / "three.png")
    lone = Nearest()
    lone.tells_tasks_apart = False
    single = drawn(Regression1d, lone, Regression1d.tasks, tmp_path / "one.png")
    assert whole.shape[1] == single.shape[1] == 495 and single.shape[0] < whole.shape[0] / 1.8
    assert share(whole, "0.9") > 0.05 > share(single, "0.9")  # the domain of each panel
    assert capsys.readouterr().err == ""


def test_what_a_model_says_is_asked_in_parts():
    model = Nearest([[[0.0, 0.0], [1.0, 0.0]], [[5.0, 5.0], [6.0, 5.0]]])
    x = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    with torch.no_grad():
        votes = ask(model.eval(), x)
        whole = model.votes(torch.from_numpy(x))
    assert torch.equal(votes.outputs, whole.outputs) and votes.scores.keys() == whole.scores.keys()
    assert torch.equal(votes.scores["ent"], whole.scores["ent"])
