"""Three functions of a number, one per task: 60 / 150 points, the toy regression of posterior meta-replay; no file.

Henning, Cervera et al., NeurIPS 2021, arXiv:2103.01133, task set 3 of the release (chrhenning/posterior_replay_cl
e60ed78). Of each function 20 training points, of noise 0.05, drawn by `RandomState(42)`, and 50 without noise to test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.base import Dataset, Places, Survey, ask
from utils.contracts import Votes
from utils.runs.plots import BLUE, VERMILLION, new_figure, save

SEED = 42
NOISE = 0.05  # standard deviation
AXIS = np.linspace(-4.1, 4.1, 401, dtype=np.float32)  # of what is drawn


class Function(NamedTuple):
    low: float
    high: float
    at: Callable[[np.ndarray], np.ndarray]


FUNCTIONS = (
    Function(-4, -2, lambda x: (x + 3) ** 3),
    Function(-1, 1, lambda x: 2 * x**2 - 1),
    Function(2, 4, lambda x: -((x - 3) ** 3)),
)


class Regression1d(Dataset):
    num_classes = 3
    num_inputs = 1
    num_targets = 1
    tasks = [[0], [1], [2]]
    counts = (60, 150)
    settings = {
        "backbone": "mlp-10-10",
        "scenario": "task-il",
        "n_tasks": 3,
        "batch_size": 32,
        "online_iter": 1,
        "eval_period": -1,
    }

    def survey(self, places: Places, test: bool = True) -> Survey:
        return Survey(self.counts, what="points")

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, ...]:
        x, y = (np.concatenate(parts) for parts in zip(*(_points(function, train) for function in FUNCTIONS)))
        labels = np.arange(len(FUNCTIONS)).repeat(len(x) // len(FUNCTIONS))
        return x.astype(np.float32), labels, y.astype(np.float32)

    def draw(self, path: Path, model: Any, tasks: list[list[int]]) -> None:
        """A panel for the model of each task: its mean and two standard deviations on either side."""
        _draw(path, ask(model, AXIS[:, None]), tasks)


def _points(function: Function, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """x and y [N, 1]."""
    low, high, at = function
    if not train:
        x = np.linspace(low, high, 50)[:, None]
        return x, at(x)
    draw = np.random.RandomState(SEED)
    x = draw.uniform(low, high, (20, 1))
    return x, at(x) + draw.normal(0, NOISE, (20, 1))


def _draw(path: Path, votes: Votes, tasks: list[list[int]]) -> None:
    """votes: of the points of the axis; minus the first score is the standard deviation."""
    from matplotlib import rc_context

    means = votes.outputs[..., 0].numpy()
    spreads = -next(iter(votes.scores.values())).numpy() if votes.scores else np.zeros_like(means)
    labels = [label for own in tasks for label in own]
    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure, _ = new_figure(3.3, 0.9 + 1.15 * len(means))
        figure.clear()
        panels = figure.subplots(len(means), sharex=True, sharey=True, squeeze=False)[:, 0]
        for k, (axes, mean, spread) in enumerate(zip(panels, means, spreads, strict=True)):
            if votes.scores:
                axes.fill_between(AXIS, mean - 2 * spread, mean + 2 * spread, color=BLUE, alpha=0.25, lw=0)
                own = FUNCTIONS[labels[k]]
                axes.axvspan(own.low, own.high, color="0.9", lw=0, zorder=0, label="its domain")
                axes.set_title(f"model of task {k + 1}", pad=3)
            axes.plot(AXIS, mean, color=BLUE, lw=1.2, label="mean ± 2 std" if votes.scores else "mean")
            for label in labels:
                function, (x, y) = FUNCTIONS[label], _points(FUNCTIONS[label], train=True)
                inside = np.linspace(function.low, function.high, 100)
                first = label == labels[0]
                axes.plot(inside, function.at(inside), "--", color="black", lw=1, label="function" if first else None)
                axes.plot(x, y, "o", color=VERMILLION, ms=2.5, mew=0, label="training data" if first else None)
            axes.set_xlim(AXIS[0], AXIS[-1])
            axes.set_ylim(-2.5, 2.5)
            axes.set_yticks((-2, 0, 2))
        panels[-1].set_xlabel("x")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        save(figure, path)
