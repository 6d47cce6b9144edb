"""What the parts of a run hand to each other: a batch, what a method may know of the stream, a dataset's places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One update's worth of images.

    x: [B, 3, H, W] float, augmented and normalised. y: [B] int64, slots in order of appearance.
    raw: [B, 3, H, W] uint8, as the dataset holds them. seen: number of classes met so far, this batch included.
    indices: [B] int64 on the CPU, names of the images for `StreamInfo.images`; None in a batch that did not arrive.
    """

    x: Tensor
    y: Tensor
    raw: Tensor
    seen: int
    indices: Tensor | None = None


@dataclass(frozen=True)
class Session:
    """What only a method with `needs_task_boundaries` is told. index: 0 ... T-1. classes: raw labels it owns."""

    index: int
    classes: list[int]


@dataclass(frozen=True)
class StreamInfo:
    """What every method may know before the first image.

    num_classes: size of the classifier. num_tasks: sessions of the stream, for methods with `needs_task_boundaries`.
    num_images: length of the stream, one pass. num_updates: optimiser steps of the whole run. image_size: pixels.
    seed: for draws of the method's own. augment: raw uint8 [B, 3, H, W] to training inputs as in `Batch.x`, for images
    that a method kept. plain: the same without augmentation, as at test time. images: raw uint8 [B, 3, H, W] of images
    that have arrived, by their indices [B]; a stream cannot be read again, so an upper bound alone may ask for them.
    """

    num_classes: int
    num_tasks: int
    num_images: int
    num_updates: int
    image_size: int
    seed: int
    augment: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    images: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Places:
    """Where a dataset finds its files (`--data_dir`), where it keeps what it makes of them (`--cache_dir`), the side in
    pixels of the network's input, and the folders that the run itself writes to, which hold no data."""

    data: Path
    cache: Path
    size: int
    own: tuple[Path, ...] = ()
