"""A dataset part in memory, and the step from what is stored to network input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from utils.args import RunArgs
from utils.classes import raw_label
from utils.contracts import Images
from utils.errors import UsageError

HALF = (0.5, 0.5, 0.5)  # mean and standard deviation with which Google's ViTs were trained
HASHED = 256  # samples read at a time
ON_DEVICE_LIMIT = 4 * 2**30  # bytes; larger sets stay in host memory (or memory-mapped) and travel batch by batch


class ImageSet:
    """Images uint8 [N, 3, H, W], or numbers float32 [N, F], and raw labels int64 [N] of one dataset part, served by
    index on `device`; and, of data that have them, the numbers that are to be predicted, `targets` float32 [N, K].

    rows: the images that belong to the set, in order; None: all. Memory-mapped images are not read before they are
    asked for, unless they fit on a device of their own.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        device: torch.device,
        rows: np.ndarray | None = None,
        targets: np.ndarray | None = None,
    ):
        self.rows = torch.arange(len(labels)) if rows is None else torch.from_numpy(rows)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))[self.rows]
        self.device = device
        self.targets = None if targets is None else torch.from_numpy(np.array(targets))[self.rows].to(device)
        self._images: np.ndarray | Tensor = images
        if device.type != "cpu" and images.nbytes <= ON_DEVICE_LIMIT:
            self._images = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], or float32 [B, F], on the device."""
        indices = self.rows[indices]
        if isinstance(self._images, Tensor):
            return self._images[indices.to(self.device, non_blocking=True)]
        images = torch.from_numpy(self._images[indices.numpy()])
        if self.device.type == "cuda":
            images = images.pin_memory()  # from any other memory the copy would wait for the work before it
        return images.to(self.device, non_blocking=True)

    def sha256(self) -> str:
        """Digest of all samples in order, as `raw` gives them."""
        digest = hashlib.sha256(f"{len(self)}".encode())
        for part in torch.arange(len(self)).split(HASHED):
            samples = self.raw(part).cpu().contiguous().numpy()
            digest.update(f"{samples.dtype} {samples.shape}".encode())
            digest.update(samples.data)
        return digest.hexdigest()


class DomainSet(ImageSet):
    """Every image under the transform of each of D domains: image d N + i is image i under `dataset.shift` for domain
    d, and its label is `raw_label` of that. Nothing is stored twice."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        device: torch.device,
        rows: np.ndarray | None,
        dataset: Images,
        num_domains: int,
    ):
        super().__init__(images, labels, device, rows)
        self.dataset, self.size = dataset, len(self.labels)
        self.labels = torch.cat([raw_label(d, self.labels, dataset.num_classes) for d in range(num_domains)])

    def raw(self, indices: Tensor) -> Tensor:
        return self.dataset.shift(super().raw(indices % self.size), indices // self.size)


def image_set(
    dataset: Images,
    options: RunArgs,
    part: tuple[np.ndarray, ...],
    device: torch.device,
    rows: np.ndarray | None,
) -> ImageSet:
    """The set of a run. part: what the dataset loads. rows: those that belong to it, None: all. Raises UsageError for
    targets that are not what the dataset declares, and for numbers that are not finite."""
    images, labels, *targets = part
    if dataset.num_inputs is not None and not (finite := np.isfinite(images).all(axis=1)).all():
        raise UsageError(f"--dataset {options.dataset}: sample {int(np.argmin(finite))} is not of finite numbers")
    check_targets(str(options.dataset), dataset, len(labels), targets)
    if dataset.max_domains and dataset.tasks is None:
        return DomainSet(images, labels, device, rows, dataset, options.n_tasks)
    return ImageSet(images, labels, device, rows, *targets)


def check_targets(name: str, dataset: Images, count: int, targets: Sequence[np.ndarray]) -> None:
    """Raises UsageError unless the dataset gives the targets, of `count` samples, that it declares."""
    size = dataset.num_targets
    if size is None:
        if targets:
            raise UsageError(f"--dataset {name}: gives targets without saying how many of a sample; set num_targets")
        return
    if size < 1:
        raise UsageError(f"--dataset {name}: num_targets = {size}; a sample has at least one, or it is None")
    if dataset.max_domains and dataset.tasks is None:
        raise UsageError(f"--dataset {name}: has max_domains and num_targets; data in domains have classes to predict")
    if not targets:
        raise UsageError(f"--dataset {name}: says num_targets = {size}, and loads no third array, the targets")
    numbers = np.asarray(targets[0])
    if numbers.shape != (count, size) or numbers.dtype != np.float32:
        raise UsageError(
            f"--dataset {name}: its targets are {numbers.dtype} {list(numbers.shape)}, by num_targets and the labels "
            f"they must be float32 {[count, size]}"
        )
    if not (finite := np.isfinite(numbers).all(axis=1)).all():
        raise UsageError(f"--dataset {name}: targets of sample {int(np.argmin(finite))} are not finite numbers")


class Transform:
    """uint8 images to network input: scale to [0, 1], resize, augment (training only), normalise. Numbers pass as they
    are.

    size: side in pixels of the network's input, None for numbers. inputs: by `TaskArgs.inputs`.
    """

    def __init__(self, dataset: Images, device: torch.device, seed: int, size: int | None, inputs: str = "published"):
        self.dataset, self.size, self.inputs, self.plain = dataset, size, inputs, inputs == "plain"
        self.generator = Generator().manual_seed(seed)
        if size is None:
            return
        self.mean, self.std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in self._statistics())

    def train(self, raw: Tensor) -> Tensor:
        if self.size is None:
            return raw
        images = self._resized(raw)
        return images if self.plain else self._normalise(self.dataset.augment(images, self.generator))

    def test(self, raw: Tensor) -> Tensor:
        if self.size is None:
            return raw
        return self._resized(raw) if self.plain else self._normalise(self._resized(raw))

    def settings(self) -> list:
        """What decides `test`."""
        if self.size is None or self.plain:
            return [self.size]
        return [self.size, *map(list, self._statistics())]

    def _statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation."""
        return (HALF, HALF) if self.inputs == "network" else (self.dataset.mean, self.dataset.std)

    def _resized(self, raw: Tensor) -> Tensor:
        """Float [B, 3, S, S] in [0, 1]; bilinear with antialias, as torchvision's Resize."""
        assert self.size is not None
        images = raw.float() / 255
        if images.shape[-2:] == (self.size, self.size):
            return images
        resized = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return resized.clamp(0, 1)

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
