"""A dataset part in memory, and the step from stored bytes to network input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

ON_DEVICE_LIMIT = 4 * 2**30  # bytes; larger sets stay in host memory (or memory-mapped) and travel batch by batch


class ImageSet:
    """Images uint8 [N, 3, H, W] and raw labels int64 [N] of one dataset part, served by index on `device`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: torch.device):
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        self.device = device
        self._images = images
        if device.type != "cpu" and images.nbytes <= ON_DEVICE_LIMIT:
            self._images = torch.from_numpy(np.ascontiguousarray(images)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, indices: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] on the device."""
        if isinstance(self._images, Tensor):
            return self._images[indices.to(self.device, non_blocking=True)]
        return torch.from_numpy(self._images[indices.numpy()]).to(self.device, non_blocking=True)


HOLD_OUT_SEED = 0  # one split for all runs, whatever their seeds


def hold_out(images: np.ndarray, labels: np.ndarray, share: float) -> tuple[tuple, tuple]:
    """Splits a training part into (images, labels) to train on and (images, labels) to validate on.

    share: of each class's images that is held out, rounded down but at least one; at least one is trained on, so a
    class with a single image is not validated.
    """
    labels = np.asarray(labels, dtype=np.int64)
    held = np.zeros(len(labels), dtype=bool)
    draw = np.random.default_rng(HOLD_OUT_SEED)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(1, int(share * len(rows))), len(rows) - 1)]] = True
    return (images[~held], labels[~held]), (images[held], labels[held])


class Transform:
    """uint8 images to network input: scale to [0, 1], augment (training only), normalise. One draw per image."""

    def __init__(self, dataset, device: torch.device, seed: int):
        self.dataset = dataset
        self.generator = Generator().manual_seed(seed)
        self.mean = torch.tensor(dataset.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(dataset.std, device=device).view(1, 3, 1, 1)

    def train(self, raw: Tensor) -> Tensor:
        return self._normalise(self.dataset.augment(raw.float() / 255, self.generator))

    def test(self, raw: Tensor) -> Tensor:
        return self._normalise(raw.float() / 255)

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
