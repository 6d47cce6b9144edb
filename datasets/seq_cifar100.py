"""CIFAR-100, 100 classes, 50,000 / 10,000 images of 32x32 pixels.

Krizhevsky, 2009; 161 MB; no licence stated. The archive "python version", as torchvision keeps it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import Places, PublicDataset
from datasets.seq_cifar10 import read_batches
from utils.download import Download


class SeqCifar100(PublicDataset):
    num_classes = 100
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
    folders = ("CIFAR/cifar-100-python", "cifar-100-python", "CIFAR100/cifar-100-python")
    markers = (("train", "test", "meta"),)
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    downloads = (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
            name_inside="cifar-100-python",
        ),
    )
    download_to = "CIFAR"
    counts = (50_000, 10_000)
    policy = "cifar10"

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return read_batches([folder / ("train" if train else "test")], "fine_labels", self.num_classes)
