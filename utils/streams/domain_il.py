"""All classes under one transform after the other."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from utils.args import RunArgs
from utils.classes import domain_of
from utils.streams.base import Reshuffled, by_task


class DomainIncremental(Reshuffled):
    """Domain-incremental stream: a task shows the images of all classes under the transform of one domain.

    targets: raw labels of every image under every transform, [num_domains x N] (`utils.classes`).
    """

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> DomainIncremental:
        """The stream that the options of a run describe."""
        return cls(targets, num_classes, options.n_tasks, options.stream_seed, options.batch_size, options.n_epochs)

    def __init__(
        self, targets: Tensor, num_classes: int, num_domains: int, seed: int, batch_size: int, num_epochs: int
    ):
        self.num_domains = num_domains
        tasks = by_task(domain_of(targets, num_classes), num_domains)
        super().__init__(tasks, [list(range(num_classes))] * num_domains, num_classes, seed, batch_size, num_epochs)

    def columns(self, task: int) -> range:
        return range(self.num_classes)

    def tasks_of_labels(self) -> list[int]:
        return [domain for domain in range(self.num_domains) for _ in range(self.num_classes)]
