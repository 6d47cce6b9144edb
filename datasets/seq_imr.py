"""ImageNet-R, 200 classes, 30,000 renditions of ImageNet objects (art, cartoons, graffiti, toys ...).

Hendrycks et al., ICCV 2021, arXiv:2006.16241; 2.0 GB; images are for research, their rights rest with their owners.
With folders `train` and `test` (FlyGCL's layout, any author's split) these are the parts; `--train_list` and
`--test_list` give a split as lists. The official archive has none: then 80 % of each class's images, drawn once with
seed 0 from the sorted file names, are for training.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.decode import split_classes
from utils.download import Download


class SeqImr(PublicDataset):
    num_classes = 200
    folders = ("imagenet-r", "ImageNet-R")
    markers = (("train", "test"), ("n01443537",))
    address = "https://github.com/hendrycks/imagenet-r"
    downloads = (
        Download(
            "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
            "imagenet-r.tar",
            "md5:a61312130a589d0ca1a8fca1f2bd3337",
            name_inside="imagenet-r",
        ),
    )
    counts = (24_000, 6_000)
    policy = "imagenet"

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        if (folder / "train").is_dir():
            return self.class_folders(folder / ("train" if train else "test"), names_in=folder / "train")
        paths, labels = self.class_folders(folder)
        return split_classes(paths, labels, 0.8, seed=0, train=train)

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """Parts of the split drawn here are not published: four fifths of each class, rounded down."""
        if (folder / "train").is_dir() or abs(found - self.counts[0 if train else 1]) > self.num_classes:
            super().check_count(folder, found, train)
