"""What a dataset declares about itself; order, batches and devices belong to the stream and the loop."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from utils.args import option
from utils.augment import crop_and_flip
from utils.autoaugment import autoaugment
from utils.contracts import Places
from utils.decode import Fit, class_folders, class_names, decoded, read_list
from utils.download import Download, obtain
from utils.errors import UsageError, reason


@dataclass(kw_only=True)
class DatasetArgs:
    """Options of a dataset. Each field is an `utils.args.option` with default, help text and source."""


@dataclass(frozen=True)
class Survey:
    counts: tuple[int, int] | None
    class_names: list[str] | None
    notes: list[str]


class Dataset:
    """One image-classification dataset. A dataset file defines exactly one subclass.

    Attributes
    ----------
    Args: dataclass of the dataset's own options.
    num_classes: labels are the integers 0 ... num_classes - 1. Known after `inspect` or `load`.
    image_size: side in pixels of its images if the network must have that input size; None: any network.
    mean, std: per-channel statistics in [0, 1] with which images are normalised.
    counts: images of the training and the test part; known after `inspect`. A dataset that leaves them out can be run,
        but not planned (`--dry_run`), and wrong options of a method are answered only when it is loaded.
    max_domains: transforms (`shift`) under which its images can come one after the other, in a domain-incremental
        stream of `--n_tasks` domains; 0: none.
    settings: options of the run that fit this dataset (eval_period ...); a method's published values come before them.
    """

    Args: ClassVar[type[DatasetArgs]] = DatasetArgs
    num_classes: int
    image_size: ClassVar[int | None] = None
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    counts: tuple[int, int] | None = None
    max_domains: ClassVar[int] = 0
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, args: DatasetArgs | None = None):
        self.args = args or self.Args()

    def inspect(self, places: Places) -> None:
        """Makes class count and counts known, without reading an image. Default: they are, as the file says them."""

    def survey(self, places: Places, test: bool = True):
        self.inspect(places)
        return Survey(self.counts, None, [])

    def digest(self, places: Places, train: bool) -> str | None:
        import hashlib

        images, labels = self.load(places, train)
        digest = hashlib.sha256(np.ascontiguousarray(labels))
        digest.update(np.ascontiguousarray(images))
        return digest.hexdigest()

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """The training or the test part: images uint8 [N, 3, H, W] (may be memory-mapped), labels int64 [N].

        Images of another size than the network's are resized batch by batch, before `augment`.
        """
        raise NotImplementedError

    def shift(self, images: Tensor, domains: Tensor) -> Tensor:
        """Images uint8 [B, 3, H, W] under the transforms of their domains [B] (on the CPU), if it has any."""
        raise NotImplementedError

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Training transform of a batch, one draw per image: float [B, 3, S, S] in [0, 1] to the same. Default: none.

        `generator` lives on the CPU; parameters are drawn there and moved to the images' device, so that every
        device sees the same draws.
        """
        return images


@dataclass(kw_only=True)
class PublicArgs(DatasetArgs):
    download: bool = option(False, "fetch the data from its official address if it is not there", decides=False)
    skip_bad: bool = option(False, "leave out images that cannot be read, and list them")
    augment_per: Literal["image", "batch"] = option(
        "image",
        "random draws of the training transform: one per image, or one for a whole batch as released trainers do",
    )
    train_list: str | None = option(None, "file with the training images, a path below the data per line", reads=())
    test_list: str | None = option(None, "file with the test images; both lists must be given", reads=())


class PublicDataset(Dataset):
    """A benchmark as people have it on disk: found below `--data_dir`, or fetched, and decoded once.

    Attributes
    ----------
    folders: names under which it is known below `--data_dir`; the latter may also be the folder itself.
    markers: what such a folder holds; one of the alternatives, each a tuple of relative paths that are all there.
    address: where it comes from, for people. downloads: archives that `--download` fetches to `download_to`, below
        `--data_dir`, and unpacks, in order.
    stored_size: side in pixels of its images on disk where that is smaller than most networks' input; such images are
        kept at this size and enlarged batch by batch.
    fit: how images of any shape become squares, see `utils.decode`.
    policy: AutoAugment policy of the published training transform, or None.
    """

    Args = PublicArgs
    folders: ClassVar[tuple[str, ...]]
    markers: ClassVar[tuple[tuple[str, ...], ...]]
    address: ClassVar[str]
    downloads: ClassVar[tuple[Download, ...]] = ()
    download_to: ClassVar[str] = "."
    stored_size: ClassVar[int | None] = None
    fit: ClassVar[Fit] = "squash"
    policy: ClassVar[str | None] = None
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    settings = {"backbone": "sup21k"}

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2].removeprefix("plugin_datasets_").replace("_", "-")

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Image files of a part and their labels. Must be given unless `read` is."""
        raise NotImplementedError

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a part, as `load` gives them."""
        return self.decode(folder, *self._parts(folder, train), places, train)

    def decode(
        self, folder: Path, paths: list[Path], labels: list[int], places: Places, train: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images of files below `folder` with their labels, read from the cache or decoded into it."""
        size = min(places.size, self.stored_size or places.size)
        title = f"{self.name} {'train' if train else 'test'}"
        images, kept = decoded(folder, paths, size, self.fit, places.cache, title, self.args.skip_bad)
        return images, np.asarray(labels, dtype=np.int64)[kept]

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        folder = self.find(places.data)
        if folder is None and self.args.download and self.downloads:
            obtain(self.downloads, places.data / self.download_to, lambda: self.find(places.data) is not None)
            folder = self.find(places.data)
        if folder is None:
            raise UsageError(self._missing(places.data))
        lists = (self.args.train_list, self.args.test_list)
        if lists != (None, None) and type(self).files is PublicDataset.files:
            raise UsageError(f"--train_list and --test_list: {self.name} takes none")
        try:
            images, labels = self.read(folder, places, train)
        except (UsageError, OSError, MemoryError):
            raise
        except Exception as error:  # files that somebody else wrote make their readers raise anything
            raise UsageError(f"{folder}: cannot be read as {self.name} ({reason(error)}); fetch it again") from error
        if lists == (None, None):
            self.check_count(folder, len(labels), train)
        labels = np.asarray(labels, dtype=np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise UsageError(
                f"{folder}: holds labels {labels.min()} ... {labels.max()}, {self.name} has {self.num_classes} classes"
            )
        return images, labels

    def find(self, data: Path) -> Path | None:
        """The folder that holds the data."""
        for folder in (*(data / name for name in self.folders), data):
            if any(all((folder / part).exists() for part in parts) for parts in self.markers):
                return folder
        return None

    def class_names(self, folder: Path) -> list[str]:
        """Names of the class folders, sorted.

        Warns of a number of classes below the published one, and raises UsageError for one above it.
        """
        names = class_names(folder)
        if len(names) > self.num_classes:
            raise UsageError(f"{folder}: holds {len(names)} folders, {self.name} has {self.num_classes} classes")
        self.compare_count(len(names), self.num_classes, f"class folders in {folder}")
        return names

    def class_folders(self, folder: Path, names_in: Path | None = None) -> tuple[list[Path], list[int]]:
        """Images below `folder/<class>/` and their labels, by the order of the class names.

        names_in: the folder that has the classes, where another part of the dataset may lack some. Counts as
        `class_names` does.
        """
        own = self.class_names(folder)
        known = own if names_in in (None, folder) else class_names(names_in)
        return class_folders(folder, self.args.skip_bad, known)

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """Compares the images of a part with the published number."""
        part = "training" if train else "test"
        self.compare_count(found, self.counts[0 if train else 1], f"{part} images in {folder}")

    def compare_count(self, found: int, published: int, what: str) -> None:
        """Warns of a number that differs from the published one."""
        if found != published:
            print(f"warning: {self.name} has {found:,} {what}; published: {published:,}", file=sys.stderr)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """As in the released trainers: crop after padding by 4 pixels, flip, AutoAugment by the dataset's policy."""
        images = crop_and_flip(images, 4, generator, self.args.augment_per)
        return autoaugment(images, self.policy, generator, self.args.augment_per) if self.policy else images

    def _parts(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Files and labels by the dataset's own split, or by the lists that were given."""
        lists = (self.args.train_list, self.args.test_list)
        if lists == (None, None):
            return self.files(folder, train)
        if None in lists:
            raise UsageError("--train_list and --test_list: give both or none")
        names = [read_list(Path(file)) for file in lists]
        classes = sorted({name.split("/")[0] for name in names[0] + names[1]})
        self.check_classes(len(classes), f"{lists[0]} and {lists[1]}")
        if both := sorted({*names[0]} & {*names[1]}):
            raise UsageError(f"{lists[0]} and {lists[1]}: both name {both[0]} ({len(both)} images in all)")
        label_of = {name: label for label, name in enumerate(classes)}
        own = names[0 if train else 1]
        return [folder / name for name in own], [label_of[name.split("/")[0]] for name in own]

    def check_classes(self, found: int, where: str) -> None:
        """Compares the classes that lists name with the published number."""
        if found != self.num_classes:
            raise UsageError(f"{where} name {found} classes, {self.name} has {self.num_classes}")

    def _missing(self, data: Path) -> str:
        looked = ", ".join(str(data / name) for name in self.folders)
        holding = " or ".join(" and ".join(parts) for parts in self.markers)
        lines = [f"{self.name} is not there: looked for {looked} and {data} itself, holding {holding}"]
        lines.append(f"  official address: {self.address}")
        if self.downloads:
            lines.append("  add --download to fetch it, or give the folder above it as --data_dir")
        else:
            lines.append(
                "  it cannot be fetched automatically; put it there, or give the folder above it as --data_dir"
            )
        return "\n".join(lines)


def authors_split(count: int, seed: int, train: bool, in_order: bool) -> list[int]:
    """Rows of the authors' random 80/20 split of `count` images. in_order: rows ascend, else as they were drawn."""
    rows = torch.randperm(count, generator=Generator().manual_seed(seed)).tolist()
    cut = int(0.8 * count)
    rows = rows[:cut] if train else rows[cut:]
    return sorted(rows) if in_order else rows
