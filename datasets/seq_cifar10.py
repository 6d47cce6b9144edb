"""CIFAR-10, 10 classes, 50,000 / 10,000 images of 32x32 pixels.

Krizhevsky, 2009; 163 MB; no licence stated. The archive "python version", as torchvision keeps it; its pickles are
read by a reader that builds arrays and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Places, PublicArgs, PublicDataset
from utils.args import option
from utils.data.download import Download
from utils.errors import UsageError
from utils.files.pickles import read_arrays


@dataclass(kw_only=True)
class SeqCifar10Args(PublicArgs):
    autoaugment: bool = option(
        True, "AutoAugment after crop and flip", "MISA, MePo and FlyGCL; posterior meta-replay: none", later=True
    )


class SeqCifar10(PublicDataset):
    Args = SeqCifar10Args
    num_classes = 10
    native_size = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    folders = ("CIFAR/cifar-10-batches-py", "cifar-10-batches-py", "CIFAR10/cifar-10-batches-py")
    markers = (("data_batch_1", "test_batch"),)
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    downloads = (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "cifar-10-batches-py.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
            name_inside="cifar-10-batches-py",
            most=10**9,
        ),
    )
    download_to = "CIFAR"
    counts = (50_000, 10_000)
    policy = "cifar10"
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, args: SeqCifar10Args | None = None):
        super().__init__(args)
        if not self.args.autoaugment:
            self.policy = None

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        names = [f"data_batch_{k}" for k in range(1, 6)] if train else ["test_batch"]
        return read_batches([folder / name for name in names], "labels", self.num_classes)


def read_batches(files: list[Path], key: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N], under `key`, of CIFAR's pickled batches."""
    batches = [read_arrays(file, {"data": (-1, 3072), key: (-1,)}) for file in files]
    images = np.concatenate([batch["data"] for batch in batches]).astype(np.uint8).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch[key] for batch in batches]).astype(np.int64)
    if len(labels) != len(images) or not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(f"{files[0].parent}: labels and images of its batches do not fit; fetch the archive again")
    return images, labels
