"""CIFAR-100, 100 classes, 50,000 / 10,000 images of 32x32 pixels.

Krizhevsky, 2009; 161 MB; no licence stated. The archive "python version", as torchvision keeps it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import Places, PublicDataset
from datasets.seq_cifar10 import read_batches
from utils.data.download import Download

NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
""".split()  # noqa: SIM905


class SeqCifar100(PublicDataset):
    num_classes = 100
    native_size = 32
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
            most=10**9,
        ),
    )
    download_to = "CIFAR"
    counts = (50_000, 10_000)
    policy = "cifar10"
    names = NAMES

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return read_batches([folder / ("train" if train else "test")], "fine_labels", self.num_classes)
