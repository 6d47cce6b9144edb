"""GTSRB, 43 German traffic signs, 39,209 training images of 15 to 250 pixels.

Stallkamp et al., Neural Networks 32, 2012; 0.3 GB; for research. The numbers of the field rest on a random split of
the training images, 80/20, seed 0 (MISA, MePo and FlyGCL): the default. `--split official` tests on the 12,630 test
images. Layouts: that of the archives; torchvision's, whose training images are others (26,640); Kaggle's, with
`Train/0` ... `Train/42`. Labels are the numbers that the folders are named by. The shorter side becomes 8/7 of the
network's input and the centre is taken, where the release crops at random, in testing too. No AutoAugment, as released.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.base import PublicArgs, PublicDataset
from utils.args import option
from utils.data.download import Download
from utils.data.splits import authors_split
from utils.errors import UsageError
from utils.files.text import read_text


@dataclass(frozen=True)
class Layout:
    """training: folder of the class folders, named by `digits` digits. test: of the test images. lists: where the list
    of these with their classes, an archive of its own, is found; column: of their names."""

    training: str
    digits: int
    test: str
    lists: tuple[str, ...]
    column: str = "Filename"

    def first_class(self) -> str:
        return f"{self.training}/{0:0{self.digits}d}"


OFFICIAL = "Final_Test/Images"
LAYOUTS = (
    Layout(
        "Final_Training/Images",
        5,
        OFFICIAL,
        ("GT-final_test/GT-final_test.csv", "GT-final_test.csv", f"{OFFICIAL}/GT-final_test.csv"),
    ),
    Layout("Training", 5, OFFICIAL, ("../GT-final_test.csv", "GT-final_test.csv")),  # torchvision
    Layout("Train", 1, ".", ("Test.csv",), "Path"),  # Kaggle
)
ARCHIVE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


@dataclass(kw_only=True)
class GtsrbArgs(PublicArgs):
    split: Literal["authors", "official"] = option("authors", "training and test images", "MISA, MePo and FlyGCL")


class SeqGtsrb(PublicDataset):
    Args = GtsrbArgs
    num_classes = 43
    folders = ("GTSRB", "gtsrb/GTSRB", "gtsrb")
    address = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
    downloads = (
        Download(
            f"{ARCHIVE}GTSRB_Final_Training_Images.zip",
            "Final_Training.zip",
            "md5:f33fd80ac59bff73c82d25ab499e03a3",
            name_inside="GTSRB/Final_Training",
            most=10**9,
        ),
        Download(
            f"{ARCHIVE}GTSRB_Final_Test_Images.zip",
            "Final_Test.zip",
            "md5:c7e4e6327067d32654124b0fe9e82185",
            name_inside="GTSRB/Final_Test",
            most=10**9,
        ),
        Download(
            f"{ARCHIVE}GTSRB_Final_Test_GT.zip", "GT-final_test.zip", "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5", most=10**8
        ),
    )
    download_to = "GTSRB"
    fit = "crop"
    settings = {**PublicDataset.settings, "eval_period": 2000}  # MISA and MePo scripts, but for MVP's: 1000

    markers = tuple((layout.first_class(),) for layout in LAYOUTS)

    @property
    def counts(self) -> tuple[int, int]:
        return (31_367, 7_842) if self.args.split == "authors" else (39_209, 12_630)

    def find(self, data: Path) -> Path | None:
        """With the official split, that which holds the test images and their list, so that they are fetched, too."""
        folder = super().find(data)
        if folder is not None and self.args.split == "official" and self.args.download:
            layout = _layout(folder)
            if not (folder / layout.test).exists() or _list_of(folder, layout) is None:
                return None
        return folder

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        layout = _layout(folder)
        if self.args.split == "official" and not train:
            return self._official_test(folder, layout)
        known = [f"{label:0{layout.digits}d}" for label in range(self.num_classes)]
        paths, labels = self.class_folders(folder / layout.training, known=known)
        if self.args.split == "authors":
            paths, labels = self.drawn_over(folder, paths, labels)
        order = sorted(range(len(paths)), key=labels.__getitem__)  # as numbers: 2 before 10
        if self.args.split == "authors":
            order = [order[row] for row in authors_split(len(paths), seed=0, train=train, in_order=True)]
        return [paths[row] for row in order], [labels[row] for row in order]

    def _official_test(self, folder: Path, layout: Layout) -> tuple[list[Path], list[int]]:
        """Test images and their classes."""
        file = _list_of(folder, layout)
        if file is None:
            raise UsageError(
                f"{folder}: holds no {layout.lists[0]}, which --split official tests on; add --download to fetch it"
            )
        try:
            text = read_text(file)
            table = csv.DictReader(text.splitlines(), delimiter=";" if ";" in text.partition("\n")[0] else ",")
            rows = [(row[layout.column], int(row["ClassId"])) for row in table]
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise UsageError(
                f"{file}: cannot be read as the list of GTSRB_Final_Test_GT.zip ({type(error).__name__}: {error})"
            ) from None
        return self.named(folder / layout.test, [name for name, _ in rows], train=False), [label for _, label in rows]


def _layout(folder: Path) -> Layout:
    return next(layout for layout in LAYOUTS if (folder / layout.first_class()).exists())


def _list_of(folder: Path, layout: Layout) -> Path | None:
    return next((folder / place for place in layout.lists if (folder / place).exists()), None)
