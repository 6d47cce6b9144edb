"""ImageNet-1K (ILSVRC 2012), 1,000 classes, 1,281,167 / 50,000 images; pretraining data of MePo's and MISA's stages.

Russakovsky et al., IJCV 2015, arXiv:1409.0575; 145 GB; terms of access on image-net.org, so it is not fetched.
Layout: `train/<wnid>/` and, for a test accuracy only, `val/<wnid>/` (or `valid`, `validation`). `--samples` images per
class, drawn once with `--subset_seed`, are decoded and used. Training transform of MePo's script: random resized crop,
flip, brightness by up to 63/255, here on the centre square that is kept of each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Generator, Tensor

from datasets.base import PublicArgs, PublicDataset
from utils.args import option
from utils.data.augment import random_flip, random_resized_crop, uniform
from utils.data.listing import Listed, class_folders, part_folder, remembered_listing
from utils.data.splits import sample_classes
from utils.errors import UsageError

TESTING = ("val", "valid", "validation")  # not test, whose labels nobody has


@dataclass(kw_only=True)
class ImagenetArgs(PublicArgs):
    samples: int | None = option(None, "training images per class that are used; default: all", low=1)
    subset_seed: int = option(0, "which images these are", low=0)


class Imagenet(PublicDataset):
    Args = ImagenetArgs
    num_classes = 1000
    folders = ("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
    markers = (("train/n01440764",),)
    counts = (1_281_167, 50_000)
    address = "https://image-net.org/challenges/LSVRC/2012/"
    fit = "crop"

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        part = folder / "train"
        if not train:
            part, _ = part_folder(folder, TESTING)
            if part is None:
                raise UsageError(f"{folder}: holds no val; the validation images are needed for a test accuracy")
        paths, labels = self.class_folders(part, names_in=folder / "train")
        super().check_count(part, len(paths), train)
        if train and self.args.samples is not None:
            paths, labels = sample_classes(paths, labels, self.args.samples, self.args.subset_seed)
        return paths, labels

    def list_classes(self, folder: Path, known: Sequence[str], nested: bool, own: Sequence[Path]) -> Listed:
        def listing(part: Path) -> Listed:
            return class_folders(part, self.args.skip_bad, known, nested, own)

        return remembered_listing(folder, self.places.cache, listing, known, self.args.skip_bad)

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """Done before the images of each class are chosen."""

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        images = random_flip(random_resized_crop(images, generator), generator)
        factor = uniform((len(images), 1, 1, 1), 1 - 63 / 255, 1 + 63 / 255, generator)
        return (images * factor.to(images.device, non_blocking=True)).clamp(0, 1)
