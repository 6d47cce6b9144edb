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
