"""The meta steps of OML: short online runs on a few classes, and what is asked after each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import ClassDraw, Draw, Stream, generator_of


class Trajectories(Stream):
    """The meta steps of OML (arXiv:1905.12588), each of which is a draw: K minibatches of the trajectory in their
    order, then the query. 1,000 of them make a task, so that lists stay short and a checkpoint lies between.

    A trajectory has `update_step` minibatches of each of `tasks` classes, one class after the other. What the query has
    says `query`:
    split: `meta_batch` images of the first half of the classes, then `held_out` further ones of each class of the
    trajectory, which comes from the second half. paper: as many further images of each class as the trajectory has.
    minibatch: one further minibatch of each class. The last two draw from all classes.
    Samples of a meta step are never the same image twice. Every draw is a function of the seed and of its number.
    """

    PER_TASK = 1000  # meta steps

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> Trajectories:
        """The stream that the options of a run describe."""
        return cls(targets, num_classes, batch_size=options.batch_size, seed=options.stream_seed, **own)

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        steps: int,
        tasks: int,
        update_step: int,
        query: str,
        meta_batch: int,
        held_out: int,
        batch_size: int,
        seed: int,
    ):
        self.num_classes = self.num_outputs = self.known_classes = num_classes
        self.draw = ClassDraw(targets, num_classes)
        self.steps, self.tasks, self.seed = steps, tasks, seed
        self.num_tasks = -(-steps // self.PER_TASK)
        self.in_trajectory = update_step * batch_size  # samples of each class
        self.in_query = {"split": held_out, "paper": self.in_trajectory, "minibatch": batch_size}[query]
        self.first = num_classes // 2 if query == "split" else 0  # of the classes of trajectories
        self.at_random = meta_batch if query == "split" else 0
        if not self.in_query and not self.at_random:
            raise UsageError(f"--meta_batch {meta_batch}: nothing is left for the query of a meta step; give more")
        if tasks > (there := num_classes - self.first):
            half = f", the second half of {num_classes}" if query == "split" else ""
            raise UsageError(f"--tasks {tasks}: trajectories can have {there} classes{half}; give fewer")
        counts = torch.bincount(targets, minlength=num_classes)
        least = int(counts[self.first :].min())
        if self.in_trajectory + self.in_query > least:
            raise UsageError(
                f"--update_step {update_step}: a trajectory takes {self.in_trajectory} samples of a class and the "
                f"query {self.in_query} more, and the smallest class has {least}; give fewer"
            )
        self.others = self.draw.order[: self.draw.start[self.first]]  # rows of the first half of the classes
        if self.at_random > len(self.others):
            raise UsageError(
                f"--meta_batch {meta_batch}: the first half of the classes, from which the query draws them, has "
                f"{len(self.others)} images"
            )

    def batches(self, task: int, epoch: int) -> list[Draw]:
        start = task * self.PER_TASK
        return [self.meta_step(k) for k in range(start, min(start + self.PER_TASK, self.steps))]

    def meta_step(self, number: int) -> Draw:
        """The draw of one meta step, under the test transform."""
        generator = generator_of(self.seed, number)
        order = torch.randperm(self.num_classes - self.first, generator=generator)[: self.tasks]
        each = self.in_trajectory + self.in_query
        rows = self.draw((self.first + order).tolist(), each, generator).view(self.tasks, each)
        if self.at_random:
            others = self.others[torch.randperm(len(self.others), generator=generator)[: self.at_random]]
        else:
            others = self.others[:0]
        trajectory, query = rows.split([self.in_trajectory, self.in_query], dim=1)
        return Draw(torch.cat([trajectory.flatten(), others, query.flatten()]), augment=False)

    def task_classes(self, task: int) -> list[int]:
        return list(range(self.num_classes))

    def num_images(self) -> int:
        return self.steps * (self.tasks * (self.in_trajectory + self.in_query) + self.at_random)

    def num_batches(self) -> int:
        return self.steps
