"""Six modes in the plane, two per task: 60 / 600 points, the toy classification of posterior meta-replay; no file.

Henning, Cervera et al., NeurIPS 2021, arXiv:2103.01133, and the release (chrhenning/posterior_replay_cl e60ed78). Mode
i = 0 ... 5 is a Gaussian of deviation 0.2 at angle (i + 0.5) 60 degrees on a circle of radius 5, drawn by
`RandomState(42 + i)`: ten points for training, then a hundred for testing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.base import Dataset, Places, Survey, ask
from utils.contracts import Votes
from utils.runs.plots import BLUE, GREEN, VERMILLION, new_figure, save

SEED = 42
RADIUS, DEVIATION = 5.0, 0.2
AXIS = np.linspace(-9, 9, 181, dtype=np.float32)  # of the plane that is drawn
COLOURS = (BLUE, "#7CC4EE", VERMILLION, "#F0B27A", GREEN, "#8FD4B5")  # of the modes: a dark and a light one per task
GREYS = ("0.95", "0.75", "0.55")  # of the tasks
MARKERS = "os^"
ENTROPY = "entropy (nats)"
POINT = {"ls": "none", "mec": "black", "mew": 0.4}


class Modes2d(Dataset):
    num_classes = 6
    num_inputs = 2
    tasks = [[0, 1], [2, 3], [4, 5]]
    counts = (60, 600)
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
        modes = [_mode(i, train) for i in range(self.num_classes)]
        return np.concatenate(modes).astype(np.float32), np.arange(self.num_classes).repeat(len(modes[0]))

    def draw(self, path: Path, model: Any, tasks: list[list[int]]) -> None:
        """The plane with the training points: the class; and of a method with a model per task the entropy of the one
        that fits best, and which one it is."""
        grid = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)
        _draw(path, ask(model, grid), tasks)


def _mode(i: int, train: bool) -> np.ndarray:
    """Points [N, 2]. The same as the release's `multivariate_normal` draws, whose SVD might turn signs elsewhere."""
    angle, draw = (i + 0.5) * np.pi / 3, np.random.RandomState(SEED + i)
    training, test = draw.standard_normal((10, 2)), draw.standard_normal((100, 2))
    return RADIUS * np.array([np.sin(angle), np.cos(angle)]) + DEVIATION * (training if train else test)


def _draw(path: Path, votes: Votes, tasks: list[list[int]]) -> None:
    """votes: of the points of the grid, row by row."""
    from matplotlib import rc_context
    from matplotlib.colors import ListedColormap, to_rgb
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    best = torch.zeros(AXIS.size**2, dtype=torch.long)
    if votes.scores:
        best = next(iter(votes.scores.values())).argmax(0)
    log_p = votes.outputs[best, torch.arange(len(best))].log_softmax(1)
    classes = np.concatenate(tasks)[log_p.argmax(1).numpy()]
    tints = [0.4 + 0.6 * np.array(to_rgb(colour)) for colour in COLOURS]
    points = {label: (k, _mode(label, train=True)) for k, own in enumerate(tasks) for label in own}
    handles = [
        Line2D([], [], color=COLOURS[label], marker=MARKERS[k], **POINT, ms=5, label=f"class {label}")
        for label, (k, _) in points.items()
    ]
    look = {"cmap": ListedColormap(tints), "vmin": -0.5, "vmax": len(tints) - 0.5}
    drawn = [("inferred class" if votes.scores else "class", classes, look)]
    if votes.scores:
        entropy = -(log_p.exp() * log_p).sum(1).numpy()
        drawn.append((ENTROPY, entropy, {"cmap": "gray_r", "vmin": 0, "vmax": max(np.log(2), entropy.max())}))
        look = {"cmap": ListedColormap(GREYS), "vmin": -0.5, "vmax": len(GREYS) - 0.5}
        drawn.append(("inferred task", best.numpy(), look))
        handles += [Patch(fc=GREYS[k], ec="black", lw=0.4, label=f"task {k + 1}") for k in range(len(tasks))]

    with rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure, _ = new_figure(3.3, 3.4 if votes.scores else 1.9)
        figure.clear()
        *panels, beside = figure.subplots(len(drawn) // 2 + 1, 2, sharex=True, sharey=True).flat
        for axes, (title, values, look) in zip(panels, drawn, strict=True):
            extent = (AXIS[0], AXIS[-1]) * 2
            image = axes.imshow(values.reshape(AXIS.size, -1), extent=extent, origin="lower", **look)
            for label, (k, own) in points.items():
                axes.plot(*own.T, color=COLOURS[label], marker=MARKERS[k], **POINT, ms=3)
            axes.set_title(title)
            axes.set_xticks((-5, 0, 5))
            axes.set_yticks((-5, 0, 5))
            if title == ENTROPY:
                figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
        beside.axis("off")
        beside.legend(handles=handles, loc="center", frameon=False, handletextpad=0.5, borderpad=0)
        save(figure, path)
