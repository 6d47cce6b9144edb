"""What every stream is: batches of indices that can be named again by (task, epoch, position), and how they are drawn.

All streams are functions of their settings, which is what a resumed run needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.errors import UsageError


@dataclass(frozen=True)
class Draw:
    """One batch of a stream. indices: rows of the training set [B], int64. augment: training or test transform."""

    indices: Tensor
    augment: bool = True


@dataclass(frozen=True)
class Split:
    """What a stream of whole tasks is told of them.

    classes: how many come at all, None: all. tasks: those that come, None: all. order: all labels, as they are shared
    out to the tasks; None: at random. parts: labels of each task, where the dataset comes in tasks. num_batches: of
    each task, from one shuffle after the other; None: passes.
    """

    classes: int | None = None
    tasks: range | None = None
    order: list[int] | None = None
    parts: list[list[int]] | None = None
    num_batches: int | None = None


class Stream:
    """What the loop asks of a stream.

    num_classes: classes of the dataset. num_tasks: sessions. num_epochs: passes over each task. num_outputs: columns
    that a classifier needs, one per class that comes.
    known_classes: how many classes count as met before the first image (their slot is their label).
    batches_per_update: how many batches make one update of the method together.
    num_domains: transforms under which every image comes; labels are those of `utils.classes` then.
    announces: whether the classes of a task get their columns when it begins, not when they are first met.
    """

    num_classes: int
    num_tasks: int
    num_outputs: int
    num_epochs: int = 1
    known_classes: int = 0
    batches_per_update: int = 1
    num_domains: int = 1
    announces: bool = False

    @classmethod
    def of(cls, options: RunArgs, own: Any, targets: Tensor, num_classes: int) -> Stream:
        """The stream that the options of a run describe. own: the method's options of the stream, or, of whole tasks, a
        `Split`. targets: raw labels of the training part [N]. Raises UsageError for settings that have no stream."""
        raise NotImplementedError

    def batches(self, task: int, epoch: int) -> list[Draw]:
        """The batches of one pass over one task, in order."""
        raise NotImplementedError

    def task_classes(self, task: int) -> list[int]:
        """Raw labels of the classes that a task owns."""
        raise NotImplementedError

    def columns(self, task: int) -> range | None:
        """Columns of a task's classes, as they are met; None where classes come in several tasks. Default: None."""
        return None

    def tasks_of_labels(self) -> list[int] | None:
        """Task of each raw label, -1 for one that does not come; None where classes come in several tasks. Default."""
        return None

    def rows(self, task: int) -> Tensor:
        """Rows of the training set of one pass over a task, in stored order."""
        return torch.cat([draw.indices for draw in self.batches(task, 0)])

    def num_images(self) -> int:
        """Images of one pass over all tasks."""
        raise NotImplementedError

    def num_batches(self) -> int:
        """Batches of the whole run, all passes counted."""
        raise NotImplementedError


class Ended(Stream):
    """A stream that is over, of which only its sizes are known."""

    def __init__(self, num_images: int, num_batches: int):
        self._num_images, self._num_batches = num_images, num_batches

    def num_images(self) -> int:
        return self._num_images

    def num_batches(self) -> int:
        return self._num_batches


class TaskList(Stream):
    """A stream whose tasks are fixed index lists. tasks: list of index tensors. classes: labels owned by each task."""

    def __init__(self, tasks: list[Tensor], classes: list[list[int]], num_classes: int, batch_size: int):
        self.tasks, self.classes, self.batch_size = tasks, classes, batch_size
        self.num_tasks, self.num_classes, self.num_outputs = len(tasks), num_classes, num_classes

    def batches(self, task: int, epoch: int) -> list[Draw]:
        """Stored order, the same in every pass; a task ends with a short batch and batches never span tasks."""
        return [Draw(chunk) for chunk in self.tasks[task].split(self.batch_size) if len(chunk)]

    def task_classes(self, task: int) -> list[int]:
        return self.classes[task]

    def rows(self, task: int) -> Tensor:
        return self.tasks[task]

    def num_images(self) -> int:
        return sum(len(task) for task in self.tasks)

    def num_batches(self) -> int:
        return self.num_epochs * sum(-(-len(task) // self.batch_size) for task in self.tasks)

    def sha256(self) -> str:
        """Fingerprint of the order: task lengths and indices as little-endian int64."""
        digest = hashlib.sha256(np.array([len(task) for task in self.tasks], dtype="<i8").tobytes())
        for task in self.tasks:
            digest.update(task.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def drawn_classes(num_classes: int, count: int | None, seed: int) -> Tensor:
    """`count` of the classes in random order, all for None: labels [count]. Raises UsageError if there are fewer."""
    if count is not None and count > num_classes:
        raise UsageError(f"--classes {count}: there are {num_classes}")
    return torch.randperm(num_classes, generator=Generator().manual_seed(seed))[:count]


def by_task(task_of: Tensor, num_tasks: int) -> list[Tensor]:
    """Positions of 0 ... num_tasks - 1 in task_of [N], ascending each; other numbers, which are below 0, are left out.

    One sort, so that many tasks cost no more than a few.
    """
    order = torch.argsort(task_of, stable=True)
    borders = torch.searchsorted(task_of[order], torch.arange(num_tasks + 1)).tolist()
    return [order[a:b] for a, b in pairwise(borders)]


class Reshuffled(TaskList):
    """Tasks whose images come in another random order in every pass.

    num_batches_each: instead of passes, that many full batches of each task, from an endless stream of shuffles: one
    may hold the end of a shuffle and the beginning of the next. They count as one pass.
    """

    def __init__(
        self,
        tasks: list[Tensor],
        classes: list[list[int]],
        num_classes: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
        num_batches_each: int | None = None,
    ):
        super().__init__(tasks, classes, num_classes, batch_size)
        self.seed, self.num_epochs = seed, num_epochs
        self.num_batches_each = num_batches_each

    def batches(self, task: int, epoch: int) -> list[Draw]:
        indices, generator = self.tasks[task], generator_of(self.seed, task, epoch)
        if self.num_batches_each is None:
            order = torch.randperm(len(indices), generator=generator)
            return [Draw(chunk) for chunk in indices[order].split(self.batch_size) if len(chunk)]
        if not len(indices):
            return []
        needed = self.num_batches_each * self.batch_size
        shuffles = [torch.randperm(len(indices), generator=generator) for _ in range(-(-needed // len(indices)))]
        return [Draw(chunk) for chunk in indices[torch.cat(shuffles)[:needed]].split(self.batch_size)]

    def num_images(self) -> int:
        if self.num_batches_each is None:
            return super().num_images()
        return self.num_batches() * self.batch_size

    def num_batches(self) -> int:
        if self.num_batches_each is None:
            return super().num_batches()
        return self.num_batches_each * sum(len(task) > 0 for task in self.tasks)


class ClassDraw:
    """Draws images class by class without replacement. Labels are sorted once, so a draw never scans the dataset."""

    def __init__(self, targets: Tensor, num_classes: int):
        self.order = torch.argsort(targets, stable=True)
        self.start = torch.searchsorted(targets[self.order], torch.arange(num_classes + 1)).tolist()

    def __call__(self, classes: Iterable[int], samples: int | None, generator: Generator) -> Tensor:
        """Up to `samples` images of each class, all where a class has fewer: indices [<= len(classes) * samples]."""
        drawn = []
        for label in classes:
            own = self.order[self.start[label] : self.start[label + 1]]
            drawn.append(own[torch.randperm(len(own), generator=generator)[:samples]])
        return torch.cat(drawn)

    def count(self, classes: Iterable[int], samples: int) -> int:
        """How many images such a draw has."""
        return sum(min(self.start[label + 1] - self.start[label], samples) for label in classes)


def generator_of(seed: int, *position: int) -> Generator:
    """A generator for each place of a stream, so that a place can be drawn again without what came before."""
    mixed = np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed) >> 1)
