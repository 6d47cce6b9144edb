"""The stream of general continual learning: Si-Blurry (Moon et al., ICCV 2023, arXiv:2308.09303), drawn as the released
trainers of MISA, FlyGCL and MePo draw it, bit for bit.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import TaskList, by_task


class SiBlurry(TaskList):
    """Si-Blurry stream: disjoint classes live in one task, a share of the blurry classes' images is scattered.

    targets: labels of the training set [N]. n: percent of the classes that are disjoint (101 and above: disjoint
    classes in natural order, as the authors' scripts use it). m: percent of the blurry images that are scattered.
    varying: task sizes and shares are themselves random (the published setting). One generator, seeded with `seed`,
    makes every draw in the order of the released code, so nothing here may be reordered.

    Raises UsageError for settings that have no stream.
    """

    @classmethod
    def of(cls, options: RunArgs, own: dict[str, Any], targets: Tensor, num_classes: int) -> SiBlurry:
        """The stream that the options of a run describe."""
        return cls(
            targets,
            num_classes,
            options.n_tasks,
            options.n,
            options.m,
            options.varying,
            options.stream_seed,
            options.batch_size,
            options.n_epochs,
        )

    def __init__(
        self,
        targets: Tensor,
        num_classes: int,
        num_tasks: int = 5,
        n: int = 50,
        m: int = 10,
        varying: bool = True,
        seed: int = 1,
        batch_size: int = 64,
        num_epochs: int = 1,
    ):
        _check_si_blurry(num_classes, num_tasks, n, m, varying)
        generator = Generator().manual_seed(seed)
        order = torch.randperm(num_classes, generator=generator).tolist()
        num_disjoint = num_classes * n // 100 // num_tasks * num_tasks
        disjoint, blurry = order[:num_disjoint], order[num_disjoint:]
        if varying:
            if n > 100:
                size = num_classes // num_tasks
                self.disjoint = [list(range(t * size, (t + 1) * size)) for t in range(num_tasks)]
            else:
                self.disjoint = _cut_at_random(disjoint, num_tasks, generator)
            self.blurry = _cut_at_random(blurry, num_tasks, generator)
        else:
            self.disjoint = _cut_equally(disjoint, num_tasks)
            self.blurry = _cut_equally(blurry, num_tasks)

        fixed, moving = self._scan(targets, num_tasks, num_classes)
        scatter = _scatter_varying if varying else _scatter_fixed
        moving = scatter(moving, m, generator)
        tasks = []
        for own, arrived in zip(fixed, moving):
            indices = torch.tensor(own + arrived, dtype=torch.int64)
            tasks.append(indices[torch.randperm(len(indices), generator=generator)])
        classes = [own + met for own, met in zip(self.disjoint, self.blurry)]
        super().__init__(tasks, classes, num_classes, batch_size)
        self.num_epochs = num_epochs

    def _scan(self, targets: Tensor, num_tasks: int, num_classes: int) -> tuple[list, list]:
        """Images of the disjoint and of the blurry classes of each task, in dataset order; the first owner wins."""
        owner = torch.full((num_classes,), -1, dtype=torch.int64)
        is_disjoint = torch.zeros(num_classes, dtype=torch.bool)
        for task in reversed(range(num_tasks)):
            for classes, disjoint in ((self.blurry[task], False), (self.disjoint[task], True)):
                owner[classes] = task
                is_disjoint[classes] = disjoint
        task_of, disjoint_of = owner[targets], is_disjoint[targets]
        fixed = by_task(torch.where(disjoint_of, task_of, -1), num_tasks)
        moving = by_task(torch.where(disjoint_of, -1, task_of), num_tasks)
        return [part.tolist() for part in fixed], [part.tolist() for part in moving]


def _check_si_blurry(num_classes: int, num_tasks: int, n: int, m: int, varying: bool) -> None:
    if num_tasks < 1:
        raise UsageError(f"--n_tasks {num_tasks}: a stream needs at least one task")
    if not 0 <= n <= 101:
        raise UsageError(f"--n {n}: the percentage of disjoint classes lies in 0 ... 100 (101: natural class order)")
    if not 0 <= m <= 100:
        raise UsageError(f"--m {m}: the percentage of scattered blurry images lies in 0 ... 100")
    if n > 100 and not varying:
        raise UsageError("--n 101 (natural class order) exists only with --varying")
    num_blurry = num_classes - num_classes * n // 100 // num_tasks * num_tasks
    if not varying and num_blurry % num_tasks:
        raise UsageError(
            f"--no-varying needs the {num_blurry} blurry classes (of {num_classes}, --n {n}) to be divisible by "
            f"--n_tasks {num_tasks}; change --n or --n_tasks, or use --varying"
        )


def _cut_at_random(items: list, parts: int, generator: Generator) -> list[list]:
    """`parts` consecutive pieces with random borders; the last piece is never empty unless `items` is."""
    if not items:
        return [[] for _ in range(parts)]
    cuts = torch.randint(0, len(items), (parts - 1,), generator=generator).sort().values.tolist()
    borders = [0, *cuts, len(items)]
    return [items[a:b] for a, b in zip(borders, borders[1:])]


def _cut_equally(items: list, parts: int) -> list[list]:
    size = len(items) // parts
    return [items[t * size : (t + 1) * size] for t in range(parts)]


def _shuffle(items: list, generator: Generator) -> list:
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def _scatter_varying(moving: list[list], m: int, generator: Generator) -> list[list]:
    """Random shares of the blurry images go to a common pool and come back shuffled; nothing is lost."""
    num_scattered = sum(map(len, moving)) * m // 100
    if num_scattered == 0:
        return moving
    shares = [len(part) for part in _cut_at_random(list(range(num_scattered)), len(moving), generator)]
    pool = _shuffle([i for part, k in zip(moving, shares) for i in part[:k]], generator)
    starts = accumulate(shares, initial=0)
    # A short pool leaves less for the last tasks.
    return [part[k:] + pool[start : start + k] for part, k, start in zip(moving, shares, starts)]


def _scatter_fixed(moving: list[list], m: int, generator: Generator) -> list[list]:
    """m percent of each task's blurry images are pooled and dealt out equally; a remainder is never seen."""
    shares = [len(part) * m // 100 for part in moving]
    pool = _shuffle([i for part, k in zip(moving, shares) for i in part[:k]], generator)
    size = len(pool) // len(moving)
    return [part[k:] + pool[t * size : (t + 1) * size] for t, (part, k) in enumerate(zip(moving, shares))]
