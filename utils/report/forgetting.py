"""Where a method forgets: F_last taken apart into tasks and into classes, from the class accuracies of its runs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from utils.training.metrics import class_table, forgetting


def per_task(accuracies: pd.DataFrame) -> np.ndarray:
    """F_last over the classes first met in each task [T]; NaN where it is undefined, as for the last task's classes."""
    table, first_task = class_table(accuracies)
    return np.array([forgetting(table[:, first_task == task]) for task in range(len(table))])


def per_class(accuracies: pd.DataFrame) -> np.ndarray:
    """F_last of each class alone, by slot [C]; NaN for a class that was never right before the last task."""
    table, _ = class_table(accuracies)
    if not len(table):
        return np.empty(0)
    best = table[:-1].max(axis=0, initial=0)
    return np.where(best > 0, best - table[-1], np.nan)


def mean_over_seeds(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Mean over the runs of each row, NaN passed over, [rows, columns]; NaN where no run has a value.

    rows: per row one vector per run; shorter vectors count as NaN beyond their end.
    """
    width = max((len(vector) for vectors in rows for vector in vectors), default=0)
    means = np.full((len(rows), width), np.nan)
    for row, vectors in enumerate(rows):
        padded = np.full((len(vectors), width), np.nan)
        for run, vector in enumerate(vectors):
            padded[run, : len(vector)] = vector
        known = ~np.isnan(padded)
        counts = known.sum(axis=0)
        sums = np.where(known, padded, 0).sum(axis=0)
        means[row, counts > 0] = sums[counts > 0] / counts[counts > 0]
    return means
