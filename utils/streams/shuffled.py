"""Plain epochs, for pretraining."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from utils.args import RunArgs
from utils.streams.base import ClassDraw, Draw, Stream, generator_of


class Shuffled(Stream):
    """Plain epochs over a whole dataset, or over `samples` images of each class drawn once, with all classes known."""

    num_tasks = 1

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> Shuffled:
        """The stream that the options of a run describe."""
        return cls(targets, num_classes, options.stream_seed, options.batch_size, options.n_epochs, **own)

    def __init__(
        self, targets: Tensor, num_classes: int, seed: int, batch_size: int, num_epochs: int, samples: int | None = None
    ):
        self.num_classes = self.num_outputs = self.known_classes = num_classes
        self.seed, self.batch_size, self.num_epochs = seed, batch_size, num_epochs
        self.indices = torch.arange(len(targets))
        if samples is not None:
            draw = ClassDraw(targets, num_classes)
            self.indices = draw(range(num_classes), samples, generator_of(seed))

    def batches(self, task: int, epoch: int) -> list[Draw]:
        order = torch.randperm(len(self.indices), generator=generator_of(self.seed, 1 + epoch))
        return [Draw(chunk) for chunk in self.indices[order].split(self.batch_size)]

    def task_classes(self, task: int) -> list[int]:
        return list(range(self.num_classes))

    def num_images(self) -> int:
        return len(self.indices)

    def num_batches(self) -> int:
        return self.num_epochs * -(-len(self.indices) // self.batch_size)
