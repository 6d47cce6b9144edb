"""Random splits of a list of images, always the same for the same seed. Each is one draw for all classes, as results
rest on it: an image less in a class changes it for all later ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from utils.errors import UsageError

HOLD_OUT_SEED = 0  # one split for all runs, whatever their seeds


def hold_out(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Splits the rows of a training part with labels [N] into those to train on and those to validate on.

    share: of each class's images that is held out, rounded down but at least one; at least one is trained on, so a
    class with a single image is not validated; says how many there are. Raises UsageError if all classes have a single
    image.
    """
    labels = np.asarray(labels, dtype=np.int64)
    held = np.zeros(len(labels), dtype=bool)
    single = num_classes = 0
    for rows in _shuffled_classes(labels, HOLD_OUT_SEED):
        held[rows[: min(at_least_one(share, len(rows)), len(rows) - 1)]] = True
        single, num_classes = single + (len(rows) == 1), num_classes + 1
    if single == num_classes:
        raise UsageError(f"--validation {share}: no class has a second training image, so nothing can be held out")
    if single:
        print(f"--validation: {single} of {num_classes} classes have one image, which is not held out", file=sys.stderr)
    return np.flatnonzero(~held), np.flatnonzero(held)


def split_classes(
    paths: list[Path], labels: list[int], train_share: float, seed: int, train: bool
) -> tuple[list[Path], list[int]]:
    """One part of a split of each class, drawn with `seed`; `train_share` of its images, rounded down but at least one,
    are for training."""
    chosen = np.zeros(len(labels), dtype=bool)
    for rows in _shuffled_classes(np.asarray(labels), seed):
        chosen[rows[: at_least_one(train_share, len(rows))]] = True
    return _taken(paths, labels, np.flatnonzero(chosen == train))


def sample_classes(paths: list[Path], labels: list[int], samples: int, seed: int) -> tuple[list[Path], list[int]]:
    """Up to `samples` images of each class, drawn with `seed`, in the order of the list."""
    chosen = np.zeros(len(labels), dtype=bool)
    for rows in _shuffled_classes(np.asarray(labels), seed):
        chosen[rows[:samples]] = True
    return _taken(paths, labels, np.flatnonzero(chosen))


def authors_split(count: int, seed: int, train: bool, in_order: bool) -> list[int]:
    """Rows of the authors' random 80/20 split of `count` images, whatever their classes. in_order: rows ascend, else as
    they were drawn."""
    rows = torch.randperm(count, generator=Generator().manual_seed(seed)).tolist()
    cut = int(0.8 * count)
    rows = rows[:cut] if train else rows[cut:]
    return sorted(rows) if in_order else rows


def at_least_one(share: float, count: int) -> int:
    """How many of `count` images a share is: rounded down, but not to none."""
    return max(1, int(share * count))


def _shuffled_classes(labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """The rows of each class, by ascending label, in random order."""
    draw = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    for rows in np.split(order, borders) if len(labels) else ():
        yield draw.permutation(rows)


def _taken(paths: list[Path], labels: list[int], rows: np.ndarray) -> tuple[list[Path], list[int]]:
    return [paths[row] for row in rows], [labels[row] for row in rows]
