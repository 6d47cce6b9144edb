"""A GEM file, named by `--data_dir`: the tasks of one's own, as GEM's scripts write them; images or plain numbers.

Lopez-Paz and Ranzato, NeurIPS 2017 (github.com/facebookresearch/GradientEpisodicMemory, `data/`): what `torch.save`
made of `[train, test]`, each a list with an entry `(descriptor, x, y)` per task. x float32 [N, F] or [N, 3, H, W], y
int64 [N]; descriptors are not looked at. Nothing in the file is run.

Rows of 784 (28x28, grey) or 3,072 numbers (3x32x32, colour planes first) and [N, 3, S, S] are images if all values of
the file are bytes / 255; anything else is numbers, which are network input as they are. Tasks come in the order of the
file: with disjoint labels as `--scenario task-il` (or class-il), with equal ones as domain-il.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.base import Dataset, DatasetArgs, Places, Survey
from utils.args import option
from utils.errors import UsageError
from utils.files.tensors import read_tensors

ROWS = {784: (1, 28, 28), 3072: (3, 32, 32)}  # numbers of a row -> the image that it is
EXACT = 1e-3  # by which a value times 255 may miss a byte
DRAW_SEED = 0  # one draw for all runs, whatever their seeds
CHUNK = 4096  # samples looked at at a time


@dataclass(kw_only=True)
class SeqGemArgs(DatasetArgs):
    use: float = option(
        1.0,
        "part of each task's training samples: up to 1 a share, above 1 a number of samples, at most all; one of them "
        "at least; one draw for all runs",
        low=0,
    )


class Part(NamedTuple):
    """Training or test samples: x uint8 [N, C, S, S] or float32 [N, F], raw labels int64 [N], the task of each [N]."""

    x: np.ndarray
    labels: np.ndarray
    task: np.ndarray


class SeqGem(Dataset):
    """`train`, `test`: what the file holds; None as long as nobody named one."""

    Args = SeqGemArgs
    mean = std = (0.5, 0.5, 0.5)  # with --inputs published; its default is plain
    settings = {"backbone": "mlp-128-128-128", "scenario": "task-il", "inputs": "plain", "eval_period": -1}
    train: ClassVar[Part | None] = None
    test: ClassVar[Part | None] = None

    @classmethod
    def at(cls, data: Path) -> type[Dataset]:
        if not os.path.isfile(data):
            return cls
        status = os.stat(data)
        return _file(data, status.st_size, status.st_mtime_ns)

    def __init__(self, args: DatasetArgs | None = None):
        super().__init__(args)
        if self.train is None:
            raise UsageError("seq-gem reads one file, written by torch.save as GEM's scripts do; give --data_dir FILE")
        use = self.args.use
        if use > 1 and use != int(use):
            raise UsageError(f"--use {use}: above 1 it is a number of samples, without a fraction")
        self.rows = None if use == 1 else _drawn(self.train.task, len(self.tasks), use)
        self.counts = (len(self.train.labels if self.rows is None else self.rows), len(self.test.labels))

    def survey(self, places: Places, test: bool = True) -> Survey:
        kind = "that share their classes" if self.max_domains else "with classes of their own"
        if self.num_inputs is None:
            what, each = "images", f"{self.native_size} x {self.native_size} px"
        else:
            what, each = "samples", f"{self.num_inputs:,} numbers"
        return Survey(self.counts, notes=[f"{len(self.tasks)} tasks {kind}, {what} of {each}"], what=what)

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        x, labels, _ = self.train if train else self.test
        if train and self.rows is not None:
            x, labels = x[self.rows], labels[self.rows]
        return (np.broadcast_to(x, (len(x), 3, *x.shape[2:])) if self.grey else x), labels


def _drawn(task: np.ndarray, num_tasks: int, use: float) -> np.ndarray:
    """Rows of a part of each task, in stored order. task: of each sample [N]."""
    drawn = []
    for k in range(num_tasks):
        rows = np.flatnonzero(task == k)
        count = max(1, int(use * len(rows) + 1e-9) if use <= 1 else min(int(use), len(rows)))
        drawn.append(np.sort(np.random.default_rng((DRAW_SEED, k)).permutation(rows)[:count]))
    return np.concatenate(drawn)


@functools.lru_cache(maxsize=1)  # a process reads its file once
def _file(path: Path, size: int, changed: int) -> type[Dataset]:
    """The dataset that a file is. size, changed: bytes and time, by which another file is told apart."""
    parts = _entries(path, read_tensors(path))
    first = parts[0][0][0]
    shape = first.shape[1:] if isinstance(first, Tensor) else None
    for name, tasks in zip(("training", "test"), parts):
        for k, (x, y) in enumerate(tasks):
            _check(f"{path}: {name} task {k}", x, y, shape)
    tasks, domains = _labels(path, *([y.numpy() for _, y in part] for part in parts))
    num_classes = len({label for own in tasks for label in own})
    declared: dict[str, Any] = {"num_classes": num_classes}
    declared["settings"] = SeqGem.settings | {"n_tasks": len(tasks)}
    if domains:
        declared["settings"] |= {"scenario": "domain-il"}
        declared["max_domains"] = len(tasks)
        tasks = [[k * num_classes + label for label in own] for k, own in enumerate(tasks)]
    declared["tasks"] = tasks
    image = ROWS.get(shape[0]) if len(shape) == 1 else tuple(shape)
    if image is not None and all(_is_bytes(x) for part in parts for x, _ in part):
        if image[1] != image[2]:
            raise UsageError(f"{path}: training task 0: images of {image[1]} x {image[2]} px; square ones are read")
        declared |= {"native_size": image[1], "grey": image[0] == 1}
    else:
        image = None
        declared["num_inputs"] = shape.numel()
    for name, part in zip(("train", "test"), parts):
        declared[name] = _joined(part, image, num_classes if domains else 0)
    return type("GemFile", (SeqGem,), {"__module__": __name__, "__doc__": SeqGem.__doc__, **declared})


def _entries(path: Path, content: Any) -> list[list[tuple[Any, Any]]]:
    """x and y of each task of both parts. Raises UsageError for what is no GEM file."""
    meant = "a GEM file is a list [train, test], and each of these a list with (descriptor, x, y) per task"
    if not _is_list(content, 2) or not all(_is_list(part) for part in content):
        raise UsageError(f"{path}: is no GEM file; {meant}")
    for name, part in zip(("training", "test"), content):
        for k, entry in enumerate(part):
            if not _is_list(entry, 3):
                raise UsageError(f"{path}: {name} task {k} is no (descriptor, x, y); {meant}")
    train, test = content
    if len(train) != len(test) or not train:
        count = min(len(train), len(test))
        raise UsageError(f"{path}: task {count} is missing, there are {len(train)} training and {len(test)} test tasks")
    return [[(_plain(x), _plain(y)) for _, x, y in part] for part in content]


def _plain(value: Any) -> Any:
    """A tensor without what training adds to it."""
    return value.detach() if isinstance(value, Tensor) else value


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and (length is None or len(value) == length)


def _check(task: str, x: Any, y: Any, shape: torch.Size | None) -> None:
    """Raises UsageError for samples that are not as they must be. task: how it is called. shape: of a sample of the
    first task."""
    if not _is_dense(x, torch.float32) or x.ndim not in (2, 4):
        raise UsageError(f"{task}: x is {_told(x)}; it must be float32 [N, F] or [N, 3, H, W]")
    if x.ndim == 4 and x.shape[1] != 3:
        raise UsageError(f"{task}: x is {_told(x)}; images have three channels, [N, 3, H, W]")
    if not _is_dense(y, torch.int64) or y.ndim != 1:
        raise UsageError(f"{task}: y is {_told(y)}; it must be int64 [N]")
    if len(x) != len(y):
        raise UsageError(f"{task}: has {len(x):,} samples and {len(y):,} labels")
    if not len(x) or not x[0].numel():
        raise UsageError(f"{task}: has no samples")
    if x.shape[1:] != shape:
        raise UsageError(f"{task}: samples are {list(x.shape[1:])}, those of training task 0 are {list(shape)}")
    if not all(chunk.isfinite().all() for chunk in x.split(CHUNK)):
        raise UsageError(f"{task}: x holds NaN or infinity")


def _is_dense(value: Any, dtype: torch.dtype) -> bool:
    """Whether it is a tensor of this type that has all of its numbers, each in a place of its own."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.dtype != dtype:
        return False
    return value.device.type == "cpu" and value.nbytes <= value.untyped_storage().nbytes()


def _told(value: Any) -> str:
    if isinstance(value, Tensor) and not _is_dense(value, value.dtype):
        return "a tensor of which the file does not hold every number"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"of type {type(value).__name__}"


def _labels(path: Path, train: list[np.ndarray], test: list[np.ndarray]) -> tuple[list[list[int]], bool]:
    """Labels of each task, ascending, and whether the tasks share them. Raises UsageError if they do so in part, or
    skip numbers, or are tested on others."""
    tasks = [np.unique(labels).tolist() for labels in train]
    domains = len(tasks) > 1 and tasks[0] == tasks[1]
    met: set[int] = set()
    for k, own in enumerate(tasks):
        if own[0] < 0:
            raise UsageError(f"{path}: training task {k}: has label {own[0]}; labels are 0, 1, 2 ... without gaps")
        if k and (own != tasks[0] if domains else not met.isdisjoint(own)):
            fault = "has other labels than task 0" if domains else "shares labels with an earlier one"
            raise UsageError(f"{path}: training task {k}: {fault}; tasks have the same labels, or none in common")
        met |= {*own}
    wanted = next(label for label in range(len(met) + 1) if label not in met)
    for k, own in enumerate(tasks):
        if odd := [label for label in own if label > wanted]:
            raise UsageError(
                f"{path}: training task {k}: has label {odd[0]}, and no task has {wanted}; labels are 0, 1, 2 ... "
                "without gaps"
            )
    for k, (own, tested) in enumerate(zip(tasks, test)):
        if odd := sorted({*np.unique(tested).tolist()} - {*own}):
            raise UsageError(f"{path}: test task {k}: has label {odd[0]}, which training task {k} has not")
    return tasks, domains


def _is_bytes(x: Tensor) -> bool:
    """Whether all values are bytes / 255."""
    for chunk in x.split(CHUNK):
        scaled = chunk * 255
        if scaled.min() < -EXACT or scaled.max() > 255 + EXACT or (scaled - scaled.round()).abs().max() > EXACT:
            return False
    return True


def _joined(part: list[tuple[Tensor, Tensor]], image: tuple[int, ...] | None, step: int) -> Part:
    """The tasks of a part one after the other; emptied on the way, as it takes more room. image: shape of an image,
    None for numbers. step: between the labels of one task and the next."""
    sizes = [len(y) for _, y in part]
    shape = image or (part[0][0][0].numel(),)
    x = np.empty((sum(sizes), *shape), np.float32 if image is None else np.uint8)
    labels, done = [], 0
    for k in range(len(part)):
        own, y = part[k]
        part[k] = (y, y)
        for chunk in own.split(CHUNK):
            values = chunk if image is None else (chunk * 255).round().to(torch.uint8)
            x[done : done + len(chunk)] = values.reshape(-1, *shape).numpy()
            done += len(chunk)
        labels.append(y.numpy() + k * step)
    return Part(x, np.concatenate(labels), np.repeat(np.arange(len(sizes)), sizes))
