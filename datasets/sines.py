"""Sine waves to meta-train on, 400 functions of a number: 400,000 / 400,000 points; made in code, no file.

Javed and White, NeurIPS 2019, arXiv:1905.12588, and the release (khurramjaved96/mrcl 2855a6b): y = A sin(x + phi) with
A = 5 (u + 0.02), phi = pi u and x uniform in [-5, 5). As there, four numbers are drawn per function; the last two, its
decay and frequency, are not used. A sample is 50 zeros, one of which the method sets to name the function, and x last.
Departs from the release, which draws new points for every batch: of each function there is a pool of 1,000 points for
training and another for testing, drawn once.
"""

from __future__ import annotations

import numpy as np

from datasets.base import Dataset, Places, Survey

SEED = 0
SLOTS = 50  # entries of a sample that name its function
POINTS = 1000  # of a function in each part
LIMIT = 5.0  # of x on either side


class Sines(Dataset):
    """`functions`: which of all that `SEED` gives, one after the other."""

    functions = slice(0, 400)
    num_classes = 400
    num_inputs = SLOTS + 1
    num_targets = 1
    num_slots = SLOTS
    counts = (400_000, 400_000)
    settings = {"backbone": "mlp-400-400-400-400-400", "eval_period": -1}

    def survey(self, places: Places, test: bool = True) -> Survey:
        return Survey(self.counts, what="points")

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, ...]:
        first, last = self.functions.start, self.functions.stop
        amplitude, phase = drawn(np.random.RandomState(SEED), last)[first:].T[..., None]
        points = np.random.default_rng((SEED, first, train)).uniform(-LIMIT, LIMIT, (last - first, POINTS))
        x = np.zeros((points.size, self.num_inputs), dtype=np.float32)
        x[:, -1] = points.ravel()
        y = amplitude * np.sin(points + phase)
        return x, np.arange(self.num_classes).repeat(POINTS), y.reshape(-1, 1).astype(np.float32)


def drawn(draw: np.random.RandomState, count: int) -> np.ndarray:
    """Amplitude and phase of the next `count` functions [count, 2]."""
    u = draw.random_sample((count, 4))
    return np.stack([5 * (u[:, 0] + 0.02), np.pi * u[:, 1]], axis=1)
