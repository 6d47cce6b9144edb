"""The classic class-incremental split."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import Reshuffled, by_task


class ClassIncremental(Reshuffled):
    """Classic class-incremental split: classes in random order, in tasks as equal as possible, reshuffled per pass.

    num_tasks = 1 is joint training. class_order: all labels, in the order to take instead.
    """

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> ClassIncremental:
        """The stream that the options of a run describe."""
        given = options.n_tasks, options.stream_seed, options.batch_size, options.n_epochs
        return cls(targets, num_classes, *given, own.get("class_order"))

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        num_tasks: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
        class_order: list[int] | None = None,
    ):
        if not 1 <= num_tasks <= num_classes:
            raise UsageError(
                f"--n_tasks {num_tasks}: a class-incremental split of {num_classes} classes has 1 ... {num_classes}"
            )
        if class_order is None:
            order = torch.randperm(num_classes, generator=Generator().manual_seed(seed))
        else:
            order = torch.tensor(class_order)
        parts = [part.tolist() for part in torch.tensor_split(order, num_tasks)]
        task_of = torch.empty(num_classes, dtype=torch.int64)
        for task, part in enumerate(parts):
            task_of[part] = task
        tasks = by_task(task_of[targets], num_tasks)
        super().__init__(tasks, parts, num_classes, seed, batch_size, num_epochs)
        # A class without an image is never met, and gets no column unless it is announced.
        has_images = torch.bincount(targets, minlength=num_classes) > 0
        counts = [len(part) if self.announces else int(has_images[part].sum()) for part in parts]
        ends = list(accumulate(counts))
        self._columns = [range(end - count, end) for end, count in zip(ends, counts)]
        self._task_of = task_of.tolist()

    def columns(self, task: int) -> range:
        return self._columns[task]

    def tasks_of_labels(self) -> list[int]:
        return self._task_of
