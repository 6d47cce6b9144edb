"""A dataset part in memory, and the step from stored bytes to network input."""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from utils.errors import UsageError

ON_DEVICE_LIMIT = 4 * 2**30  # bytes; larger sets stay in host memory (or memory-mapped) and travel batch by batch


class ImageSet:
    """Images uint8 [N, 3, H, W] and raw labels int64 [N] of one dataset part, served by index on `device`.

    rows: the images that belong to the set, in order; None: all. Memory-mapped images are not read before they are
    asked for, unless they fit on a device of their own.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: torch.device, rows: np.ndarray | None = None):
        self.rows = torch.arange(len(labels)) if rows is None else torch.from_numpy(rows)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))[self.rows]
        self.device = device
        self._images = images
        if device.type != "cpu" and images.nbytes <= ON_DEVICE_LIMIT:
            self._images = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] on the device."""
        indices = self.rows[indices]
        if isinstance(self._images, Tensor):
            return self._images[indices.to(self.device, non_blocking=True)]
        images = torch.from_numpy(self._images[indices.numpy()])
        if self.device.type == "cuda":
            images = images.pin_memory()  # from any other memory the copy would wait for the work before it
        return images.to(self.device, non_blocking=True)


class DomainSet(ImageSet):
    """Every image under the transform of each of D domains: image d N + i is image i under `dataset.shift` for domain
    d, and its label is d C + class. Nothing is stored twice."""

    def __init__(self, images, labels, device: torch.device, rows: np.ndarray | None, dataset, num_domains: int):
        super().__init__(images, labels, device, rows)
        self.dataset, self.size = dataset, len(self.labels)
        self.labels = torch.cat([self.labels + domain * dataset.num_classes for domain in range(num_domains)])

    def raw(self, indices: Tensor) -> Tensor:
        return self.dataset.shift(super().raw(indices % self.size), indices // self.size)


def image_set(dataset, options, part: tuple, device: torch.device, rows: np.ndarray | None) -> ImageSet:
    """The set of a run. part: images and labels as the dataset loads them. rows: those that belong to it, None: all."""
    if dataset.max_domains:
        return DomainSet(*part, device, rows, dataset, options.n_tasks)
    return ImageSet(*part, device, rows)


HOLD_OUT_SEED = 0  # one split for all runs, whatever their seeds


def hold_out(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Splits the rows of a training part with labels [N] into those to train on and those to validate on.

    share: of each class's images that is held out, rounded down but at least one; at least one is trained on, so a
    class with a single image is not validated; says how many there are. One draw for all classes, as results rest on
    it: an image less changes it for all later ones. Raises UsageError if all classes have a single image.
    """
    labels = np.asarray(labels, dtype=np.int64)
    held = np.zeros(len(labels), dtype=bool)
    draw = np.random.default_rng(HOLD_OUT_SEED)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(1, int(share * len(rows))), len(rows) - 1)]] = True
    classes, images = np.unique(labels, return_counts=True)
    single = int((images == 1).sum())
    if single == len(classes):
        raise UsageError(f"--validation {share}: no class has a second training image, so nothing can be held out")
    if single:
        print(
            f"--validation: {single} of {len(classes)} classes have one image, which is not held out", file=sys.stderr
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


class Transform:
    """uint8 images to network input: scale to [0, 1], resize, augment (training only), normalise.

    size: side in pixels of the network's input.
    """

    def __init__(self, dataset, device: torch.device, seed: int, size: int):
        self.dataset, self.size = dataset, size
        self.generator = Generator().manual_seed(seed)
        self.mean = torch.tensor(dataset.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(dataset.std, device=device).view(1, 3, 1, 1)

    def train(self, raw: Tensor) -> Tensor:
        return self._normalise(self.dataset.augment(self._resized(raw), self.generator))

    def test(self, raw: Tensor) -> Tensor:
        return self._normalise(self._resized(raw))

    def _resized(self, raw: Tensor) -> Tensor:
        """Float [B, 3, S, S] in [0, 1]; bilinear with antialias, as torchvision's Resize."""
        images = raw.float() / 255
        if images.shape[-2:] == (self.size, self.size):
            return images
        resized = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return resized.clamp(0, 1)

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
