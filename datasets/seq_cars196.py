"""Stanford Cars, 196 models of cars, 16,185 images.

Krause et al., 3dRR 2013; 1.9 GB; for non-commercial research. Its address is gone, so it is not fetched. Layouts: a
folder per class (FlyGCL), with a random split of all images, 80/20, seed 42, as released; or torchvision's
`stanford_cars`, whose official split of 8,144 / 8,041 images is then taken. No AutoAugment, as released.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset, authors_split
from utils.errors import UsageError, reason
from utils.files import refuse_pipe
from utils.mat import read_structs

DEVKIT = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")


class SeqCars196(PublicDataset):
    num_classes = 196
    mean = (0.46951303, 0.45906875, 0.45407656)
    std = (0.29279903, 0.2917511, 0.2999349)
    folders = ("CARS196/split_imgs", "CARS196", "stanford_cars")
    markers = (("cars_train", "cars_test", DEVKIT[0]), ("Acura_Integra_Type_R_2001",), ("Acura Integra Type R 2001",))
    address = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (no longer served; mirrors exist on Kaggle)"
    counts = (12_948, 3_237)

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        if (folder / DEVKIT[0]).is_file():
            return _official(folder, train)
        paths, labels = self.class_folders(folder)
        rows = authors_split(len(paths), seed=42, train=train, in_order=False)
        return [paths[row] for row in rows], [labels[row] for row in rows]

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        if (folder / DEVKIT[0]).is_file():
            self.compare_count(found, 8_144 if train else 8_041, f"images in {folder}")
        else:
            super().check_count(folder, found, train)


def _official(folder: Path, train: bool) -> tuple[list[Path], list[int]]:
    file = folder / DEVKIT[0 if train else 1]
    try:
        refuse_pipe(file)
        names, labels = read_structs(file, "annotations", ["fname", "class"])
        part = folder / ("cars_train" if train else "cars_test")
        return [part / str(name) for name in names], [int(label) - 1 for label in labels]
    except Exception as error:  # the reader raises many types; whichever it is, the file is unusable
        raise UsageError(f"{file}: cannot be read as annotations ({type(error).__name__}: {reason(error)})") from None
