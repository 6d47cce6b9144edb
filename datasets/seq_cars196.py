"""Stanford Cars, 196 models of cars, 16,185 images.

Krause et al., 3dRR 2013; 1.9 GB; for non-commercial research. Its address is gone, so it is not fetched. Layouts: a
folder per class (FlyGCL), with a random split of all images, 80/20, seed 42, as released; or, with the official split
of 8,144 / 8,041 images, `cars_train` and `cars_test` with their annotations (torchvision; Kaggle's, where the images
lie in `cars_train/cars_train`), `car_ims` with `cars_annos.mat`, or `train` and `test` with a folder per class
(Kaggle's "by classes"). Labels are those of the annotations, or places among the sorted class names. No AutoAugment, as
released.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import PublicDataset
from utils.data.splits import authors_split
from utils.errors import UsageError, reason
from utils.files.mat import read_structs
from utils.files.text import refuse_pipe

# Where the annotations of the training and the test images are found.
ANNOTATIONS = (
    ("devkit/cars_train_annos.mat", "cars_train_annos.mat", "car_devkit/devkit/cars_train_annos.mat"),
    ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat", "cars_test_annos_withlabels (1).mat"),
)
ALL = "cars_annos.mat"  # of `car_ims`, in which all images are numbered anew
FIRST = ("Acura_Integra_Type_R_2001", "Acura Integra Type R 2001")  # class folders


class SeqCars196(PublicDataset):
    num_classes = 196
    mean = (0.46951303, 0.45906875, 0.45407656)
    std = (0.29279903, 0.2917511, 0.2999349)
    folders = ("CARS196/split_imgs", "CARS196", "stanford_cars", "car_data/car_data", "car_data")
    markers = (
        ("cars_train", "cars_test"),
        ("car_ims", ALL),
        *((name,) for name in FIRST),
        *((f"train/{name}", f"test/{name}") for name in FIRST),
    )
    address = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (no longer served; mirrors exist on Kaggle)"
    counts = (12_948, 3_237)

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        part = "train" if train else "test"
        if (folder / "cars_train").is_dir():
            return self._annotated(folder, train)
        if (folder / ALL).is_file():
            names, labels, tested = _read(folder / ALL, ["relative_im_path", "class", "test"])
            rows = [row for row, test in enumerate(tested) if bool(test) != train]
            paths = self.named(folder, [str(names[row]) for row in rows], train)
            return paths, [int(labels[row]) - 1 for row in rows]
        if (folder / "train").is_dir():
            return self.class_folders(folder / part, names_in=folder / "train")
        paths, labels = self.drawn_over(folder, *self.class_folders(folder))
        rows = authors_split(len(paths), seed=42, train=train, in_order=False)
        return [paths[row] for row in rows], [labels[row] for row in rows]

    def _annotated(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        places = [folder / name for name in ANNOTATIONS[0 if train else 1]]
        file = next((place for place in places if place.exists()), places[0])
        names, labels = _read(file, ["fname", "class"])
        part = folder / ("cars_train" if train else "cars_test")
        part = part / part.name if (part / part.name).is_dir() else part
        return self.named(part, [str(name) for name in names], train), [int(label) - 1 for label in labels]

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        if any((folder / name).is_dir() for name in FIRST):
            super().check_count(folder, found, train)
        else:
            self.compare_count(found, 8_144 if train else 8_041, f"images in {folder}")


def _read(file: Path, fields: list[str]) -> list[list[str | float]]:
    """Fields of the annotations in a file."""
    try:
        refuse_pipe(file)
        return read_structs(file, "annotations", fields)
    except Exception as error:  # the reader raises many types; whichever it is, the file is unusable
        raise UsageError(f"{file}: cannot be read as annotations ({type(error).__name__}: {reason(error)})") from None
