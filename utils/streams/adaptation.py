"""The pairs of batches of MISA's first stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import ClassDraw, Draw, Stream, generator_of


class Adaptation(Stream):
    """MISA's initial session adaptation (arXiv:2503.00677): batches come in pairs, one to learn and one not to forget.

    The first `session_share` of the labels are session classes, cut at random into `num_sessions` tasks; of each class
    `samples` images count (None: all), drawn once. Every batch S of a session comes `updates` times, each time followed
    by a new forgetting batch F: S, F1, S, F2 ... Forgetting batches run through the images of `forget_classes` classes
    drawn from those that are in no session (all where there are fewer). At the end the same classes start again with
    probability 1/3, otherwise others are drawn; so it is at the start of every pass over a session, too.

    Raises UsageError for settings that leave a session without a class, or nothing to forget.
    """

    batches_per_update = 2
    RESTART = 1 / 3  # probability that the same forgetting classes start again

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> Adaptation:
        """The stream that the options of a run describe."""
        return cls(targets, num_classes, options.stream_seed, options.batch_size, options.n_epochs, **own)

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
        updates: int,
        num_sessions: int,
        session_share: float,
        forget_classes: int,
        samples: int | None = None,
    ):
        num_session_classes = int(num_classes * session_share)
        if num_session_classes < num_sessions:
            raise UsageError(
                f"--num_sessions {num_sessions}: only {num_session_classes} of the {num_classes} classes are session "
                f"classes (--session_share {session_share})"
            )
        generator, draw = generator_of(seed), ClassDraw(targets, num_classes)
        images = [draw([label], samples, generator) for label in range(num_classes)]
        self.forgetting = [part for part in images[num_session_classes:] if len(part)]
        if not self.forgetting:
            raise UsageError(f"--session_share {session_share}: no image is left to forget ({num_classes} classes)")
        order = torch.randperm(num_session_classes, generator=generator)
        self.classes = [part.tolist() for part in torch.tensor_split(order, num_sessions)]
        self.tasks = [torch.cat([images[label] for label in part]) for part in self.classes]
        self.num_tasks, self.num_epochs = num_sessions, num_epochs
        self.num_classes = self.num_outputs = num_classes
        self.seed, self.batch_size = seed, batch_size
        self.updates, self.forget_classes = updates, forget_classes

    def batches(self, task: int, epoch: int) -> list[Draw]:
        generator = generator_of(self.seed, 1 + task, epoch)
        own, forgetting = self.tasks[task], self._forgetting(generator)
        shuffled = own[torch.randperm(len(own), generator=generator)]
        session = [chunk for chunk in shuffled.split(self.batch_size) if len(chunk)]
        return [Draw(part) for chunk in session for _ in range(self.updates) for part in (chunk, next(forgetting))]

    def _forgetting(self, generator: Generator) -> Iterator[Tensor]:
        """Forgetting batches without end."""
        chosen = None
        while True:
            if chosen is None or torch.rand((), generator=generator) >= self.RESTART:
                chosen = torch.randperm(len(self.forgetting), generator=generator)[: self.forget_classes].tolist()
            images = torch.cat([self.forgetting[k] for k in chosen])
            yield from images[torch.randperm(len(images), generator=generator)].split(self.batch_size)

    def task_classes(self, task: int) -> list[int]:
        return self.classes[task]

    def num_images(self) -> int:
        return sum(len(draw.indices) for task in range(self.num_tasks) for draw in self.batches(task, 0))

    def num_batches(self) -> int:
        per_pass = sum(2 * self.updates * -(-len(task) // self.batch_size) for task in self.tasks)
        return self.num_epochs * per_pass
