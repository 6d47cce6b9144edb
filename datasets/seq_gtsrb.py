"""GTSRB, 43 German traffic signs, 39,209 training images of 15 to 250 pixels.

Stallkamp et al., Neural Networks 32, 2012; 0.3 GB; for research. The numbers of the field rest on a random split of
the training images, 80/20, seed 0 (MISA, MePo and FlyGCL): the default. `--split official` tests on the 12,630 test
images. The shorter side becomes 8/7 of the network's input and the centre is taken, where the release crops at
random, in testing too. No AutoAugment, as released.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.base import PublicArgs, PublicDataset, authors_split
from utils.args import option
from utils.decode import class_folders
from utils.download import Download
from utils.errors import UsageError
from utils.files import read_text

TRAINING, TEST = "Final_Training/Images", "Final_Test/Images"
# Where the list of the test images with their classes, an archive of its own, is found.
LISTS = ("GT-final_test/GT-final_test.csv", "GT-final_test.csv", f"{TEST}/GT-final_test.csv")
ARCHIVE = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"


@dataclass(kw_only=True)
class GtsrbArgs(PublicArgs):
    split: Literal["authors", "official"] = option("authors", "training and test images", "MISA, MePo and FlyGCL")


class SeqGtsrb(PublicDataset):
    Args = GtsrbArgs
    num_classes = 43
    folders = ("GTSRB",)
    address = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
    downloads = (
        Download(
            f"{ARCHIVE}GTSRB_Final_Training_Images.zip",
            "Final_Training.zip",
            "md5:f33fd80ac59bff73c82d25ab499e03a3",
            name_inside="GTSRB/Final_Training",
        ),
        Download(
            f"{ARCHIVE}GTSRB_Final_Test_Images.zip",
            "Final_Test.zip",
            "md5:c7e4e6327067d32654124b0fe9e82185",
            name_inside="GTSRB/Final_Test",
        ),
        Download(f"{ARCHIVE}GTSRB_Final_Test_GT.zip", "GT-final_test.zip", "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    )
    download_to = "GTSRB"
    fit = "crop"

    @property
    def markers(self) -> tuple[tuple[str, ...], ...]:
        training = f"{TRAINING}/00000"
        return ((training,),) if self.args.split == "authors" else tuple((training, TEST, file) for file in LISTS)

    @property
    def counts(self) -> tuple[int, int]:
        return (31_367, 7_842) if self.args.split == "authors" else (39_209, 12_630)

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        if self.args.split == "official" and not train:
            return _official_test(folder)
        self.class_names(folder / TRAINING)
        known = [f"{label:05d}" for label in range(self.num_classes)]
        paths, labels = class_folders(folder / TRAINING, self.args.skip_bad, known)
        if self.args.split == "official":
            return paths, labels
        rows = authors_split(len(paths), seed=0, train=train, in_order=True)
        return [paths[row] for row in rows], [labels[row] for row in rows]


def _official_test(folder: Path) -> tuple[list[Path], list[int]]:
    """Test images and their classes."""
    file = next(folder / place for place in LISTS if (folder / place).exists())
    try:
        table = csv.DictReader(read_text(file).splitlines(), delimiter=";")
        rows = [(row["Filename"], int(row["ClassId"])) for row in table]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UsageError(
            f"{file}: cannot be read as the list of GTSRB_Final_Test_GT.zip ({type(error).__name__}: {error})"
        ) from None
    return [folder / TEST / name for name, _ in rows], [label for _, label in rows]
