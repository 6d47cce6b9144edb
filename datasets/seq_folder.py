"""Your own images: a folder per class, below `train` and `test`, or one tree that is split; any number of classes.

`--data_dir` is the folder itself. With `train/<class>/` and `test/<class>/` these are the parts (`val` serves as test);
with `<class>/` alone `--test_share` of each class's images, drawn with `--split_seed`, are for testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Places, PublicArgs, PublicDataset
from utils.args import option
from utils.decode import class_folders, class_names, split_classes
from utils.errors import UsageError


@dataclass(kw_only=True)
class FolderArgs(PublicArgs):
    test_share: float = option(
        0.2, "share of each class's images for testing, where there is no test folder", low=0, high=0.9
    )
    split_seed: int = option(0, "which images these are", low=0)


class SeqFolder(PublicDataset):
    Args = FolderArgs
    settings = {}  # the shipped network is the default, as no download is needed
    policy = None

    def find(self, data: Path) -> Path:
        if not data.is_dir():
            raise UsageError(f"--data_dir {data}: no such folder; seq-folder reads <class>/ or train/<class>/ there")
        return data

    def inspect(self, places: Places) -> None:
        folder = self.find(places.data)
        self.counts = len(self._parts(folder, True)[0]), len(self._parts(folder, False)[0])

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        if places.cache.resolve() == folder.resolve() and not (folder / "train").is_dir():
            raise UsageError(f"--cache_dir {places.cache}: holds the class folders; name another folder")
        return super().read(folder, places, train)

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """No number is published."""

    def check_classes(self, found: int, where: str) -> None:
        self.num_classes = found

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        if not (folder / "train").is_dir():
            self.num_classes = len(class_names(folder))
            paths, labels = class_folders(folder, self.args.skip_bad)
            return split_classes(paths, labels, 1 - self.args.test_share, self.args.split_seed, train)
        held = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
        if held is None:
            raise UsageError(f"{folder}: holds train, but neither test nor val")
        known = class_names(folder / "train")
        self.num_classes = len(known)
        return class_folders(folder / "train" if train else held, self.args.skip_bad, known)
