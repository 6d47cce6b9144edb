"""The pseudo task sequences of MePo's meta stage."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import ClassDraw, Draw, Stream, generator_of


class Episodes(Stream):
    """Pseudo task sequences of MePo's meta stage (arXiv:2602.07940): a task of this stream is one inner repetition.

    Per meta epoch the classes are cut at random into groups of `group_size`; a group is visited `repetitions` times.
    A repetition streams `num_pseudo_tasks` slices of the group's classes, `samples` images per class drawn anew, four
    passes each, then one joint pass over a fresh draw of the whole group under the test transform.
    """

    PASSES = 4

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> Episodes:
        """The stream that the options of a run describe."""
        return cls(targets, num_classes, batch_size=options.batch_size, seed=options.stream_seed, **own)

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        meta_epochs: int,
        group_size: int,
        num_pseudo_tasks: int,
        samples: int,
        repetitions: int,
        batch_size: int,
        seed: int,
    ):
        self.num_classes = self.num_outputs = self.known_classes = num_classes
        self.draw = ClassDraw(targets, num_classes)
        self.group_size = min(group_size, num_classes)
        self.slice_size = self.group_size // num_pseudo_tasks
        if self.slice_size < 1:
            raise UsageError(
                f"--num_tasks {num_pseudo_tasks}: a group has only {self.group_size} classes to share out; "
                "give fewer pseudo tasks"
            )
        self.samples, self.repetitions, self.batch_size, self.seed = samples, repetitions, batch_size, seed
        self.groups_per_epoch = num_classes // self.group_size
        self.num_tasks = meta_epochs * self.groups_per_epoch * repetitions

    def task_classes(self, task: int) -> list[int]:
        """The classes of the group that repetition `task` visits."""
        epoch, group = divmod(task // self.repetitions, self.groups_per_epoch)
        order = torch.randperm(self.num_classes, generator=generator_of(self.seed, 0, epoch)).tolist()
        return order[group * self.group_size : (group + 1) * self.group_size]

    def batches(self, task: int, epoch: int) -> list[Draw]:
        generator = generator_of(self.seed, 1, task)
        classes = self.task_classes(task)
        draws = []
        for start in range(0, len(classes), self.slice_size):
            images = self.draw(classes[start : start + self.slice_size], self.samples, generator)
            for _ in range(self.PASSES):
                draws += self._cut(images, generator, augment=True)
        return draws + self._cut(self.draw(classes, self.samples, generator), generator, augment=False)

    def _cut(self, images: Tensor, generator: Generator, augment: bool) -> list[Draw]:
        shuffled = images[torch.randperm(len(images), generator=generator)]
        return [Draw(chunk, augment) for chunk in shuffled.split(self.batch_size) if len(chunk)]

    def num_images(self) -> int:
        return sum(map(sum, self._passes))

    def num_batches(self) -> int:
        return sum(-(-size // self.batch_size) for sizes in self._passes for size in sizes)

    @cached_property
    def _passes(self) -> list[list[int]]:
        """Images of every pass of each repetition, without drawing any."""
        found = []
        for task in range(self.num_tasks):
            classes = self.task_classes(task)
            slices = [classes[start : start + self.slice_size] for start in range(0, len(classes), self.slice_size)]
            sizes = [self.draw.count(part, self.samples) for part in slices]
            found.append([*(size for size in sizes for _ in range(self.PASSES)), sum(sizes)])
        return found
