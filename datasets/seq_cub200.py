"""CUB-200-2011, 200 species of birds, 11,788 images.

Wah et al., Caltech technical report CNS-TR-2011-001; 1.1 GB; for non-commercial research. The numbers of the field rest
on a random split of all images, 80/20, seed 42 (MISA, MePo and FlyGCL): the default. `--split official` takes the
dataset's own, 5,994 / 5,794. No AutoAugment, and CIFAR-100's mean and deviation, as released.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.base import PublicArgs, PublicDataset
from utils.args import option
from utils.data.download import Download
from utils.data.splits import authors_split
from utils.errors import UsageError
from utils.files.text import read_text


@dataclass(kw_only=True)
class Cub200Args(PublicArgs):
    split: Literal["authors", "official"] = option("authors", "training and test images", "MISA, MePo and FlyGCL")


class SeqCub200(PublicDataset):
    Args = Cub200Args
    num_classes = 200
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
    folders = ("CUB_200_2011",)
    markers = (("images/001.Black_footed_Albatross",),)
    address = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    downloads = (
        Download(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "CUB_200_2011.tgz",
            "md5:97eceeb196236b17998738112f37df78",
            name_inside="CUB_200_2011",
            most=4 * 10**9,
        ),
    )

    @property
    def counts(self) -> tuple[int, int]:
        return (9_430, 2_358) if self.args.split == "authors" else (5_994, 5_794)

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        paths, labels = self.class_folders(folder / "images")
        if self.args.split == "authors":
            paths, labels = self.drawn_over(folder, paths, labels)
            rows = authors_split(len(paths), seed=42, train=train, in_order=False)
        else:
            part = _official(folder)
            names = ["/".join(path.parts[-2:]) for path in paths]
            missing = [name for name in names if name not in part]
            if missing:
                raise UsageError(f"{folder}/images.txt: does not list {missing[0]}")
            rows = [row for row, name in enumerate(names) if part[name] == train]
        return [paths[row] for row in rows], [labels[row] for row in rows]


def _official(folder: Path) -> dict[str, bool]:
    """Class/file of every image -> whether it is for training, from images.txt and train_test_split.txt."""
    try:
        names = dict(line.split() for line in read_text(folder / "images.txt").splitlines() if line.strip())
        parts = dict(line.split() for line in read_text(folder / "train_test_split.txt").splitlines() if line.strip())
        return {name: parts[number] == "1" for number, name in names.items()}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: --split official reads images.txt and train_test_split.txt, missing or damaged ({error})"
        ) from None
