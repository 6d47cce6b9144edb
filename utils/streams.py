"""The order in which a dataset arrives, from its labels and one seed.

`SiBlurry` is the stream of general continual learning (Moon et al., ICCV 2023, arXiv:2308.09303), drawn as the
released trainers of MISA, FlyGCL and MePo draw it, bit for bit. `ClassIncremental` is the classic disjoint split,
`DomainIncremental` shows all classes under one transform after the other, `Shuffled` is plain epochs for pretraining,
`Episodes` the pseudo task sequences of MePo's meta stage, `Adaptation` the pairs of batches of MISA's first stage. All
streams are functions of their settings: any batch can be named again by (task, epoch, position), which is what a
resumed run needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from utils.errors import UsageError


def make_stream(options, own: dict, targets: Tensor, num_classes: int, class_order: list[int] | None = None) -> Stream:
    """The stream of a run. options: `RunArgs` with scenario and stream seed set. own: the method's stream options.
    class_order: in which a class-incremental stream brings the classes; None: at random.
    """
    if not len(targets):
        raise UsageError(f"--dataset {options.dataset}: its training part holds no image")
    seed, batch_size, num_epochs = options.stream_seed, options.batch_size, options.n_epochs
    if options.scenario == "si-blurry":
        rule = (options.n_tasks, options.n, options.m, options.varying)
        return SiBlurry(targets, num_classes, *rule, seed, batch_size, num_epochs)
    if options.scenario == "class-il":
        return ClassIncremental(targets, num_classes, options.n_tasks, seed, batch_size, num_epochs, class_order)
    if options.scenario == "domain-il":
        return DomainIncremental(targets, num_classes, options.n_tasks, seed, batch_size, num_epochs)
    if options.scenario == "shuffled":
        return Shuffled(targets, num_classes, seed, batch_size, num_epochs, **own)
    if options.scenario == "adaptation":
        return Adaptation(targets, num_classes, seed, batch_size, num_epochs, **own)
    return Episodes(targets, num_classes, batch_size=batch_size, seed=seed, **own)


@dataclass(frozen=True)
class Draw:
    """One batch of a stream. indices: rows of the training set [B], int64. augment: training or test transform."""

    indices: Tensor
    augment: bool = True


class Stream:
    """What the loop asks of a stream.

    num_classes: classes of the dataset. num_tasks: sessions. num_epochs: passes over each task.
    known_classes: how many classes count as met before the first image (their slot is their label).
    batches_per_update: how many batches make one update of the method together.
    num_domains: transforms under which every image comes; labels then are domain x num_classes + class.
    """

    num_classes: int
    num_tasks: int
    num_epochs: int = 1
    known_classes: int = 0
    batches_per_update: int = 1
    num_domains: int = 1

    def batches(self, task: int, epoch: int) -> list[Draw]:
        """The batches of one pass over one task, in order."""
        raise NotImplementedError

    def task_classes(self, task: int) -> list[int]:
        """Raw labels of the classes that a task owns."""
        raise NotImplementedError

    def num_images(self) -> int:
        """Images of one pass over all tasks."""
        raise NotImplementedError

    def num_batches(self) -> int:
        """Batches of the whole run, all passes counted."""
        raise NotImplementedError


class TaskList(Stream):
    """A stream whose tasks are fixed index lists. tasks: list of index tensors. classes: labels owned by each task."""

    def __init__(self, tasks: list[Tensor], classes: list[list[int]], num_classes: int, batch_size: int):
        self.tasks, self.classes, self.batch_size = tasks, classes, batch_size
        self.num_tasks, self.num_classes = len(tasks), num_classes

    def batches(self, task: int, epoch: int) -> list[Draw]:
        """Stored order, the same in every pass; a task ends with a short batch and batches never span tasks."""
        return [Draw(chunk) for chunk in self.tasks[task].split(self.batch_size) if len(chunk)]

    def task_classes(self, task: int) -> list[int]:
        return self.classes[task]

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


class SiBlurry(TaskList):
    """Si-Blurry stream: disjoint classes live in one task, a share of the blurry classes' images is scattered.

    targets: labels of the training set [N]. n: percent of the classes that are disjoint (101 and above: disjoint
    classes in natural order, as the authors' scripts use it). m: percent of the blurry images that are scattered.
    varying: task sizes and shares are themselves random (the published setting). One generator, seeded with `seed`,
    makes every draw in the order of the released code, so nothing here may be reordered.

    Raises UsageError for settings that have no stream.
    """

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
        fixed = _by_task(torch.where(disjoint_of, task_of, -1), num_tasks)
        moving = _by_task(torch.where(disjoint_of, -1, task_of), num_tasks)
        return [part.tolist() for part in fixed], [part.tolist() for part in moving]


def _by_task(task_of: Tensor, num_tasks: int) -> list[Tensor]:
    """Positions of 0 ... num_tasks - 1 in task_of [N], ascending each; other numbers, which are below 0, are left out.

    One sort, so that many tasks cost no more than a few.
    """
    order = torch.argsort(task_of, stable=True)
    borders = torch.searchsorted(task_of[order], torch.arange(num_tasks + 1)).tolist()
    return [order[a:b] for a, b in pairwise(borders)]


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


class Reshuffled(TaskList):
    """Tasks whose images come in another random order in every pass."""

    def __init__(
        self,
        tasks: list[Tensor],
        classes: list[list[int]],
        num_classes: int,
        seed: int,
        batch_size: int,
        num_epochs: int,
    ):
        super().__init__(tasks, classes, num_classes, batch_size)
        self.seed, self.num_epochs = seed, num_epochs

    def batches(self, task: int, epoch: int) -> list[Draw]:
        indices = self.tasks[task]
        order = torch.randperm(len(indices), generator=_generator(self.seed, task, epoch))
        return [Draw(chunk) for chunk in indices[order].split(self.batch_size) if len(chunk)]


class ClassIncremental(Reshuffled):
    """Classic class-incremental split: classes in random order, in tasks as equal as possible, reshuffled per pass.

    num_tasks = 1 is joint training. class_order: all labels, in the order to take instead.
    """

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
        tasks = _by_task(task_of[targets], num_tasks)
        super().__init__(tasks, parts, num_classes, seed, batch_size, num_epochs)


class DomainIncremental(Reshuffled):
    """Domain-incremental stream: a task shows the images of all classes under the transform of one domain.

    targets: domain x num_classes + class of every image under every transform, [num_domains x N] (`ImageSet`).
    """

    def __init__(
        self, targets: Tensor, num_classes: int, num_domains: int, seed: int, batch_size: int, num_epochs: int
    ):
        self.num_domains = num_domains
        tasks = _by_task(targets // num_classes, num_domains)
        super().__init__(tasks, [list(range(num_classes))] * num_domains, num_classes, seed, batch_size, num_epochs)


class Shuffled(Stream):
    """Plain epochs over a whole dataset, or over `samples` images of each class drawn once, with all classes known."""

    num_tasks = 1

    def __init__(
        self, targets: Tensor, num_classes: int, seed: int, batch_size: int, num_epochs: int, samples: int | None = None
    ):
        self.num_classes, self.known_classes = num_classes, num_classes
        self.seed, self.batch_size, self.num_epochs = seed, batch_size, num_epochs
        self.indices = torch.arange(len(targets))
        if samples is not None:
            draw = ClassDraw(targets, num_classes)
            self.indices = draw(range(num_classes), samples, _generator(seed))

    def batches(self, task: int, epoch: int) -> list[Draw]:
        order = torch.randperm(len(self.indices), generator=_generator(self.seed, 1 + epoch))
        return [Draw(chunk) for chunk in self.indices[order].split(self.batch_size)]

    def task_classes(self, task: int) -> list[int]:
        return list(range(self.num_classes))

    def num_images(self) -> int:
        return len(self.indices)

    def num_batches(self) -> int:
        return self.num_epochs * -(-len(self.indices) // self.batch_size)


class Episodes(Stream):
    """Pseudo task sequences of MePo's meta stage (arXiv:2602.07940): a task of this stream is one inner repetition.

    Per meta epoch the classes are cut at random into groups of `group_size`; a group is visited `repetitions` times.
    A repetition streams `num_pseudo_tasks` slices of the group's classes, `samples` images per class drawn anew, four
    passes each, then one joint pass over a fresh draw of the whole group under the test transform.
    """

    PASSES = 4

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
        self.num_classes, self.known_classes = num_classes, num_classes
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
        order = torch.randperm(self.num_classes, generator=_generator(self.seed, 0, epoch)).tolist()
        return order[group * self.group_size : (group + 1) * self.group_size]

    def batches(self, task: int, epoch: int) -> list[Draw]:
        generator = _generator(self.seed, 1, task)
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
        return sum(len(draw.indices) for task in range(self.num_tasks) for draw in self.batches(task, 0))

    def num_batches(self) -> int:
        return sum(len(self.batches(task, 0)) for task in range(self.num_tasks))


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
        generator, draw = _generator(seed), ClassDraw(targets, num_classes)
        images = [draw([label], samples, generator) for label in range(num_classes)]
        self.forgetting = [part for part in images[num_session_classes:] if len(part)]
        if not self.forgetting:
            raise UsageError(f"--session_share {session_share}: no image is left to forget ({num_classes} classes)")
        order = torch.randperm(num_session_classes, generator=generator)
        self.classes = [part.tolist() for part in torch.tensor_split(order, num_sessions)]
        self.tasks = [torch.cat([images[label] for label in part]) for part in self.classes]
        self.num_classes, self.num_tasks, self.num_epochs = num_classes, num_sessions, num_epochs
        self.seed, self.batch_size = seed, batch_size
        self.updates, self.forget_classes = updates, forget_classes

    def batches(self, task: int, epoch: int) -> list[Draw]:
        generator = _generator(self.seed, 1 + task, epoch)
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


class ClassDraw:
    """Draws images class by class without replacement. Labels are sorted once, so a draw never scans the dataset."""

    def __init__(self, targets: Tensor, num_classes: int):
        self.order = torch.argsort(targets, stable=True)
        self.start = torch.searchsorted(targets[self.order], torch.arange(num_classes + 1)).tolist()

    def __call__(self, classes, samples: int | None, generator: Generator) -> Tensor:
        """Up to `samples` images of each class, all where a class has fewer: indices [<= len(classes) * samples]."""
        drawn = []
        for label in classes:
            own = self.order[self.start[label] : self.start[label + 1]]
            drawn.append(own[torch.randperm(len(own), generator=generator)[:samples]])
        return torch.cat(drawn)


def _generator(seed: int, *position: int) -> Generator:
    """A generator for each place of a stream, so that a place can be drawn again without what came before."""
    mixed = np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(mixed) >> 1)
