"""What the parts of a run hand to each other, and what they ask of each other: a batch, a method, a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class Batch:
    """One update's worth of images, or of samples of F numbers.

    x: [B, 3, H, W] float, augmented and normalised, or [B, F]. y: what is to be predicted: [B] int64, slots in order of
    appearance, or [B, K] float32, the targets of data that have them. raw: [B, 3, H, W] uint8, as the dataset holds
    them, or [B, F], the same as x. seen: number of classes met so far, this batch included. indices: [B] int64 on the
    CPU, names of the images for `StreamInfo.images`; None in a batch that did not arrive. functions: [B] int64 on the
    CPU, which function of the dataset each sample is of, on data with numbers to predict, for a stage alone.
    """

    x: Tensor
    y: Tensor
    raw: Tensor
    seen: int
    indices: Tensor | None = None
    functions: Tensor | None = None


@dataclass(frozen=True)
class Votes:
    """What the model of each of J tasks that have begun says of B samples, of a method that tells tasks apart.

    outputs: [J, B, C], logits in the columns of the stream, the same low number in those that a model has not; or
    numbers [J, B, K]. scores: [J, B] by criterion, larger fits better; the first one counts.
    """

    outputs: Tensor
    scores: dict[str, Tensor]


@dataclass(frozen=True)
class Session:
    """What only a method with `needs_task_boundaries` is told.

    index: 0 ... T-1. classes: raw labels it owns. outputs: the columns of its classes; all of them where tasks share
    them, None where classes come back in several tasks. num_samples: that it has. again(batch_size): its training
    samples once more in stored order, under the test transform, for a method that declares `rereads`; without that the
    loop raises RuntimeError. num_updates: that it will give, every pass counted.
    """

    index: int
    classes: list[int]
    outputs: range | None
    num_samples: int
    again: Callable[[int], Iterator[Batch]] = field(compare=False)
    num_updates: int = 0


@dataclass(frozen=True)
class StreamInfo:
    """What every method may know before the first image.

    num_classes: size of the classifier. num_tasks: sessions of the stream, for methods with `needs_task_boundaries`.
    num_images: length of the stream, one pass. num_updates: optimiser steps of the whole run. image_size: pixels,
    None for numbers. seed: for draws of the method's own. augment: raw samples as in `Batch.raw` to training inputs as
    in `Batch.x`, for images that a method kept. plain: the same without augmentation, as at test time. images: raw
    samples that have arrived, by their indices [B]; a stream cannot be read again, so an upper bound alone may ask for
    them. num_targets: K numbers that are to be predicted of each sample, None: its class. num_slots: first entries of a
    sample of numbers that are zero until a method says in them which function it is of.
    """

    num_classes: int
    num_tasks: int
    num_images: int
    num_updates: int
    image_size: int | None
    seed: int
    augment: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    images: Callable[[Tensor], Tensor] | None = None
    num_targets: int | None = None
    num_slots: int = 0


class Restored(StreamInfo):
    """The same, for a method into which the weights of a run will be put, so that it reads no product of a stage."""


@dataclass(frozen=True)
class Places:
    """Where a dataset finds its files (`--data_dir`), where it keeps what it makes of them (`--cache_dir`), the side in
    pixels of the network's input, None for numbers, and the folders that the run itself writes to, which hold no
    data."""

    data: Path
    cache: Path
    size: int | None
    own: tuple[Path, ...] = ()


class Found(Protocol):
    """What a dataset found before anything was read (`datasets.base.Survey`)."""

    @property
    def counts(self) -> tuple[int, int] | None: ...
    @property
    def class_names(self) -> list[str] | None: ...
    def lines(self, name: str, num_classes: int) -> list[str]: ...


class Images(Protocol):
    """What a run asks of a dataset (`datasets.base.Dataset` explains each)."""

    Args: ClassVar[type]
    settings: ClassVar[dict[str, Any]]
    small_settings: ClassVar[dict[str, Any]]
    max_domains: ClassVar[int]
    image_size: ClassVar[int | None]
    native_size: ClassVar[int | None]
    grey: ClassVar[bool]
    num_inputs: ClassVar[int | None]
    num_targets: ClassVar[int | None]
    num_slots: ClassVar[int]
    tasks: ClassVar[list[list[int]] | None]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    num_classes: int
    counts: tuple[int, int] | None

    def __init__(self, args: Any = None) -> None: ...
    @classmethod
    def at(cls, data: Path) -> type[Images]: ...
    def inspect(self, places: Places) -> None: ...
    def survey(self, places: Places, test: bool = True) -> Found: ...
    def digest(self, places: Places, train: bool) -> str | None: ...
    def load(self, places: Places, train: bool) -> tuple[np.ndarray, ...]: ...
    def shift(self, images: Tensor, domains: Tensor) -> Tensor: ...
    def augment(self, images: Tensor, generator: Generator) -> Tensor: ...
    def draw(self, path: Path, model: Any, tasks: list[list[int]]) -> None: ...


class Learner(Protocol):
    """What a run asks of a method (`models.base.ContinualModel` explains each), and of the module that it is."""

    Args: ClassVar[type]
    published: ClassVar[dict[str, dict[str, Any]]]
    one_per_task: ClassVar[tuple[str, ...]]
    variants: ClassVar[tuple[str, ...]]
    predicts: ClassVar[tuple[str, ...]]
    tells_tasks_apart: ClassVar[bool]
    scenarios: ClassVar[tuple[str, ...]]
    evaluated: ClassVar[bool]
    backbone: nn.Module
    optimizer: Optimizer | None
    scheduler: LRScheduler | None
    autocast: Callable[[], AbstractContextManager]
    training: bool

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: Any) -> None: ...
    @property
    def needs_task_boundaries(self) -> bool: ...
    @property
    def has_fixed_features(self) -> bool: ...
    @property
    def fixed_suffice(self) -> bool: ...
    @property
    def repeats(self) -> bool: ...
    @property
    def rereads(self) -> bool: ...
    @property
    def is_told(self) -> bool: ...
    @property
    def by_batch(self) -> str | None: ...
    @property
    def predicts_from_state(self) -> bool: ...
    @classmethod
    def cannot_wrap(cls, host: Any) -> str | None: ...
    @classmethod
    def prepare(cls, run: Any, args: Any) -> list: ...
    @classmethod
    def product(cls, args: Any) -> str | None: ...
    @classmethod
    def stream_options(cls, args: Any) -> dict[str, Any]: ...

    def label(self) -> str: ...
    def __call__(self, x: Tensor | None, fixed: Tensor | None = None) -> Tensor: ...
    def fixed_features(self, x: Tensor) -> Tensor: ...
    def shared_as(self, precision: str) -> str | None: ...
    def given(self, x: Tensor, task: int) -> Tensor: ...
    def votes(self, x: Tensor) -> Votes: ...
    def measures(self) -> dict[str, float]: ...
    def observe(self, batch: Batch) -> Tensor | None: ...
    def end_batch(self, batch: Batch) -> None: ...
    def begin_task(self, session: Session) -> None: ...
    def end_updates(self, session: Session) -> None: ...
    def end_task(self, session: Session) -> None: ...
    def end_stream(self) -> None: ...
    def configure_optimizer(self) -> Optimizer | None: ...
    def why_not_finite(self) -> str | None: ...
    def extra_state(self) -> dict[str, Any]: ...
    def load_extra_state(self, state: dict[str, Any]) -> None: ...

    def to(self, device: Any) -> Learner: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...
