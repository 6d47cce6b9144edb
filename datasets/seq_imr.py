"""ImageNet-R, 200 classes, 30,000 renditions of ImageNet objects (art, cartoons, graffiti, toys ...).

Hendrycks et al., ICCV 2021, arXiv:2006.16241; 2.0 GB; images are for research, their rights rest with their owners.
With folders `train` and `test` (FlyGCL's layout, any author's split, other usual names) these are the parts;
`--train_list` and `--test_list` give a split as lists. The official archive has none: then 80 % of each class's images,
drawn once with seed 0 from the sorted file names, are for training.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.data.download import Download
from utils.data.splits import split_classes
from utils.errors import UsageError


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
            most=8 * 10**9,
        ),
    )
    counts = (24_000, 6_000)
    policy = "imagenet"

    def find(self, data: Path) -> Path | None:
        for folder in (*(data / name for name in self.folders), data):
            if (folder / self.markers[1][0]).exists() or self._parts_of(folder) is not None:
                return folder
        return None

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        parts = self._parts_of(folder)
        if parts is not None and (folder / self.markers[1][0]).exists():
            raise UsageError(f"{folder}: holds class folders beside {parts[0].name}; move one of them out of there")
        if parts is not None:
            return self.class_folders(parts[0 if train else 1], names_in=parts[0])
        paths, labels = self.drawn_over(folder, *self.class_folders(folder))
        return split_classes(paths, labels, 0.8, seed=0, train=train)

    def _parts_of(self, folder: Path) -> tuple[Path, Path] | None:
        parts = self.part_folder(folder, True), self.part_folder(folder, False)
        return None if None in parts else parts

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """Parts of the split drawn here are not published: four fifths of each class, rounded down."""
        tolerated = 0 if self._parts_of(folder) else self.num_classes
        if abs(found - self.counts[0 if train else 1]) > tolerated:
            super().check_count(folder, found, train)
