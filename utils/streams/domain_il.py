"""All classes under one transform after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.args import RunArgs
from utils.classes import class_of, domain_of
from utils.streams.base import Reshuffled, Split, by_task, drawn_classes


class DomainIncremental(Reshuffled):
    """Domain-incremental stream: a task shows the images of all classes under the transform of one domain.

    targets: raw labels (`utils.classes`) of every image under every transform, [num_domains x N], or of the images that
    each domain has of its own. split: which classes and domains come; the domains that come are tasks counted from 0.
    """

    @classmethod
    def of(cls, options: RunArgs, own: Split, targets: Tensor, num_classes: int) -> DomainIncremental:
        """The stream that the options of a run describe."""
        given = options.n_tasks, options.stream_seed, options.batch_size, options.n_epochs
        return cls(targets, num_classes, *given, own)

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        num_domains: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
        split: Split | None = None,
    ):
        split = split or Split()
        self.num_domains = num_domains
        classes = sorted(drawn_classes(num_classes, split.classes, seed).tolist())
        come = split.tasks or range(num_domains)
        comes = torch.zeros(num_classes, dtype=torch.bool)
        comes[classes] = True
        task_of = torch.where(comes[class_of(targets, num_classes)], domain_of(targets, num_classes) - come.start, -1)
        tasks = by_task(task_of, len(come))
        super().__init__(tasks, [classes] * len(come), num_classes, seed, batch_size, num_epochs, split.num_batches)
        self.num_outputs = len(classes)
        self._task_of = [
            domain - come.start if domain in come and comes[label] else -1
            for domain in range(num_domains)
            for label in range(num_classes)
        ]

    def columns(self, task: int) -> range:
        return range(self.num_outputs)

    def tasks_of_labels(self) -> list[int]:
        return self._task_of
