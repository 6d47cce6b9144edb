"""The classic class-incremental split."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import Reshuffled, Split, by_task, drawn_classes


class ClassIncremental(Reshuffled):
    """Classic class-incremental split: classes in random order, in tasks as equal as possible, reshuffled per pass.

    num_tasks = 1 is joint training. split: which classes and tasks come, in which order; the classes of a task that
    does not come are never met, and the tasks that come are counted from 0.
    """

    @classmethod
    def of(cls, options: RunArgs, own: Split, targets: Tensor, num_classes: int) -> ClassIncremental:
        """The stream that the options of a run describe."""
        given = options.n_tasks, options.stream_seed, options.batch_size, options.n_epochs
        return cls(targets, num_classes, *given, own)

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        num_tasks: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
        split: Split | None = None,
    ):
        split = split or Split()
        if split.parts is None:
            order = drawn_classes(num_classes, split.classes, seed)
            if split.order is not None:
                come = {*order.tolist()}
                order = torch.tensor([label for label in split.order if label in come])
            if not 1 <= num_tasks <= len(order):
                raise UsageError(
                    f"--n_tasks {num_tasks}: a class-incremental split of {len(order)} classes has 1 ... {len(order)}"
                )
            parts = [part.tolist() for part in torch.tensor_split(order, num_tasks)]
        else:
            parts = split.parts
        parts = parts if split.tasks is None else parts[split.tasks.start : split.tasks.stop]
        task_of = torch.full((num_classes,), -1)
        for task, part in enumerate(parts):
            task_of[part] = task
        tasks = by_task(task_of[targets], len(parts))
        super().__init__(tasks, parts, num_classes, seed, batch_size, num_epochs, split.num_batches)
        self.num_outputs = sum(map(len, parts))
        # A class without an image, or of which no batch holds one, is never met: no column unless it is announced.
        self._rows = tasks if self.announces else [self._met(task, targets) for task in range(len(tasks))]
        counts = [len(part) if self.announces else len(targets[rows].unique()) for part, rows in zip(parts, self._rows)]
        ends = list(accumulate(counts))
        self._columns = [range(end - count, end) for end, count in zip(ends, counts)]
        self._task_of = task_of.tolist()

    def _met(self, task: int, targets: Tensor) -> Tensor:
        """Rows of the training set of a task, of the classes that are in its batches."""
        rows = self.tasks[task]
        if self.num_batches_each is None or self.num_batches_each * self.batch_size >= len(rows):
            return rows
        come = targets[torch.cat([draw.indices for draw in self.batches(task, 0)])]
        return rows[torch.isin(targets[rows], come)]

    def rows(self, task: int) -> Tensor:
        return self._rows[task]

    def columns(self, task: int) -> range:
        return self._columns[task]

    def tasks_of_labels(self) -> list[int]:
        return self._task_of
