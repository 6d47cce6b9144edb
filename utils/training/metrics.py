"""Metrics of a run, as pure functions of what was recorded. All values are fractions in [0, 1] unless said otherwise.

General continual learning: Si-Blurry (arXiv:2308.09303), MISA (arXiv:2503.00677), FlyGCL. Classic class-incremental
metrics: GEM (arXiv:1706.08840) with Mammoth's divisors. An undefined value is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:  # the report needs these functions, but no torch
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class Measure:
    """A number by which runs are compared. unit: "%" of a fraction, or "" as it is. better: more or less of it."""

    unit: Literal["%", ""]
    better: Literal["more", "less"]
    text: str


# Every measure that summaries, reports, differences and pictures know, in the order of columns.
MEASURES = {
    "A_auc": Measure("%", "more", "mean accuracy at any time"),
    "A_avg": Measure("%", "more", "mean accuracy at task ends"),
    "A_last": Measure("%", "more", "accuracy at the end"),
    "F_last": Measure("%", "less", "forgetting of classes"),
    "BWT": Measure("%", "more", "backward transfer of classes"),
    "A_train": Measure("%", "more", "accuracy at the end on the training images of the classes met"),
    "class_final": Measure("%", "more", "mean over tasks at the end, among all classes met"),
    "class_forgetting": Measure("%", "less", "forgetting of tasks, among all classes met"),
    "task_final": Measure("%", "more", "mean over tasks at the end, the task being told"),
    "task_learned": Measure("%", "more", "mean over tasks right after each was learnt, the task being told"),
    "task_forgetting": Measure("%", "less", "forgetting of tasks, the task being told"),
    "task_bwt": Measure("%", "more", "backward transfer, the task being told"),
    "task_fwt": Measure("%", "more", "forward transfer, the task being told"),
    "inferred_final": Measure("%", "more", "mean over tasks at the end, the task being inferred"),
    "inferred_final_conf": Measure("%", "more", "the same, inferred from the confidence"),
    "inferred_final_agree": Measure("%", "more", "the same, inferred from the agreement of draws"),
    "found_final": Measure("%", "more", "mean over tasks at the end of tasks inferred right"),
    "found_final_conf": Measure("%", "more", "the same, from the confidence"),
    "found_final_agree": Measure("%", "more", "the same, from the agreement of draws"),
    "mse_given_final": Measure("", "less", "mean squared error over tasks at the end, the task being told"),
    "mse_given_during": Measure("", "less", "the same, right after each was learnt"),
    "mse_inferred_final": Measure("", "less", "the same at the end, the task being inferred"),
}
# What `per_task.csv` measures, and the names of its numbers (`task_summary`) among MEASURES.
PER_TASK = {
    "class": {"final": "class_final", "forgetting": "class_forgetting"},
    "task": {name: f"task_{name}" for name in ("final", "learned", "forgetting", "bwt", "fwt")},
    "inferred": {"final": "inferred_final"},
    "inferred_conf": {"final": "inferred_final_conf"},
    "inferred_agree": {"final": "inferred_final_agree"},
    "found": {"final": "found_final"},
    "found_conf": {"final": "found_final_conf"},
    "found_agree": {"final": "found_final_agree"},
    "mse_given": {"final": "mse_given_final", "learned": "mse_given_during"},
    "mse_inferred": {"final": "mse_inferred_final"},
}
ENTROPIES = ("entropy_in", "entropy_out")  # there, too: of each sample's own task's model, and of the others
GCL = ("A_auc", "A_avg", "A_last", "F_last", "BWT")  # those of every run
CLASS_COUNT_OFFSET = 1e-5  # as in the released trainers: keeps 0 / 0 at 0, costs a perfect class about 1e-6


def class_accuracy(correct: Tensor, count: Tensor) -> Tensor:
    """Accuracy per slot [C] from the numbers of correct and of evaluated images per slot [C]."""
    return correct / (count + CLASS_COUNT_OFFSET)


def gcl_summary(
    anytime: list[float], task_end: list[float], class_table: Sequence[np.ndarray] | np.ndarray
) -> dict[str, float]:
    """The five numbers of a Si-Blurry run.

    anytime: accuracy at each anytime evaluation. task_end: accuracy after each task, NaN where no class had been met.
    class_table: accuracy per slot [C] after each task, 0 for classes not met yet.
    """
    defined = [value for value in task_end if not math.isnan(value)]
    table = np.asarray(class_table)
    return {
        "A_auc": float(np.mean(anytime)) if anytime else float("nan"),
        "A_avg": float(np.mean(defined)) if defined else float("nan"),
        "A_last": task_end[-1] if task_end else float("nan"),
        "F_last": forgetting(table),
        "BWT": backward_transfer(table),
    }


def forgetting(class_table: Sequence[np.ndarray] | np.ndarray) -> float:
    """F_last: mean over classes of the best accuracy before the last task minus the last one; negative is a gain.

    Classes never right before the last task are left out. NaN with one task or no such class.
    """
    if len(class_table) < 2:
        return float("nan")
    best, last = np.max(class_table[:-1], axis=0), class_table[-1]
    known = best > 0
    return float(np.mean(best[known] - last[known])) if known.any() else float("nan")


def backward_transfer(class_table: Sequence[np.ndarray] | np.ndarray) -> float:
    """BWT over classes: last accuracy minus the first non-zero one at an earlier task end. NaN as for `forgetting`."""
    if len(class_table) < 2:
        return float("nan")
    earlier, last = np.asarray(class_table[:-1]), class_table[-1]
    right = earlier > 0
    known = right.any(axis=0)
    first = earlier[right.argmax(axis=0), np.arange(earlier.shape[1])]
    return float(np.mean(last[known] - first[known])) if known.any() else float("nan")


def task_summary(accuracy: np.ndarray, untrained: np.ndarray | None = None) -> dict[str, float]:
    """Measures of tasks. accuracy [T, T]: on task j (column) after task i (row); NaN where it was not measured.

    final: mean of the last row. learned: mean of the diagonal. forgetting: mean over tasks but the last of the best
    earlier value minus the last one, which may be negative (GEM, BCL). bwt: mean over tasks but the last of the last
    value minus that on the diagonal. fwt: mean over tasks but the first of the value just before a task minus that of
    the untrained network [T]. NaN where undefined.
    """
    known = ~np.isnan(accuracy[-1])  # a task without test images has no accuracy
    last, diagonal, ahead = accuracy[-1], np.diag(accuracy), np.diag(accuracy, k=1)
    best, old = np.fmax.reduce(accuracy[:-1], initial=-1.0), known & (np.arange(len(last)) < len(last) - 1)
    found = dict.fromkeys(("final", "learned", "forgetting", "bwt", "fwt"), float("nan"))
    if known.any():
        found |= {"final": float(last[known].mean()), "learned": float(diagonal[known].mean())}
    if old.any():
        found |= {"forgetting": float((best - last)[old].mean()), "bwt": float((last - diagonal)[old].mean())}
    if untrained is not None and known[1:].any():
        found["fwt"] = float((ahead - untrained[1:])[known[1:]].mean())
    return found


def class_incremental_summary(accuracy: np.ndarray, untrained: np.ndarray | None = None) -> dict[str, float]:
    """Classic metrics of disjoint tasks. accuracy [T, T]: on the test set of task j (column) after task i (row).

    untrained [T]: accuracy of the untrained model per task, for forward transfer (columns after i must then be filled).
    `final_average`, `bwt`, `forgetting`, `fwt` in the unit of `accuracy`; undefined for one task except the average.
    Forgetting takes the maximum over all rows, the last included, as Mammoth does, hence is never negative.
    """
    num_tasks = len(accuracy)
    last, diagonal = accuracy[-1], np.diag(accuracy)
    nan = float("nan")
    several = num_tasks > 1
    return {
        "final_average": float(last.mean()),
        "bwt": float((last - diagonal)[:-1].mean()) if several else nan,
        "forgetting": float((accuracy.max(axis=0) - last)[:-1].mean()) if several else nan,
        "fwt": float((np.diag(accuracy, k=1) - untrained[1:]).mean()) if several and untrained is not None else nan,
    }


def class_table(accuracies: pd.DataFrame | dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(accuracy per slot after each task [T, C], 0 for classes not met yet; task in which a class was first met [C]).

    accuracies: columns task, slot, accuracy; of several evaluations after one task the last counts.
    A slot that no row names belongs to no task (-1).
    """
    tasks, slots, values = (np.asarray(accuracies[name]) for name in ("task", "slot", "accuracy"))
    num_tasks, num_slots = (int(places.max()) + 1 if len(places) else 0 for places in (tasks, slots))
    table, first_task = np.zeros((num_tasks, num_slots)), np.full(num_slots, num_tasks)
    table[tasks, slots] = values  # of a cell that is named twice numpy keeps the last value
    np.minimum.at(first_task, slots, tasks)
    first_task[first_task == num_tasks] = -1
    return table, first_task


def task_matrix(values: pd.DataFrame, measure: str) -> np.ndarray:
    """Accuracy [T, T] on task j (column) after task i (row), NaN where it was not measured.

    values: columns after_task, measure, task, value; of several evaluations after one task the last counts, and what
    was measured before the first task (-1) is left out.
    """
    own = values[(values["measure"] == measure) & (values["after_task"] >= 0)]
    size = int(own[["after_task", "task"]].max(axis=None)) + 1 if len(own) else 0
    matrix = np.full((size, size), np.nan)
    matrix[own["after_task"], own["task"]] = own["value"]  # of a cell that is named twice numpy keeps the last value
    return matrix


def mean_entropies(values: pd.DataFrame) -> dict[str, float]:
    """Mean over tasks, after the last one, of each of ENTROPIES that `per_task.csv` holds."""
    matrices = {name: task_matrix(values, name) for name in ENTROPIES}
    last = {name: matrix[-1][~np.isnan(matrix[-1])] for name, matrix in matrices.items() if len(matrix)}
    return {name: float(row.mean()) for name, row in last.items() if len(row)}


def measures_of_tasks(values: pd.DataFrame) -> dict[str, float]:
    """Those of MEASURES that `per_task.csv` holds, by name."""
    found: dict[str, float] = {}
    for measure, names in PER_TASK.items() if len(values) else ():
        matrix = task_matrix(values, measure)
        if len(matrix):
            before = values[(values["measure"] == measure) & (values["after_task"] < 0)].set_index("task")["value"]
            untrained = before.reindex(range(len(matrix))).to_numpy(float) if len(before) else None
            numbers = task_summary(matrix, untrained)
            found |= {name: numbers[kind] for kind, name in names.items()}
    return found
