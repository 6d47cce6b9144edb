"""What a dataset declares about itself; order, batches and devices belong to the stream and the loop."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from utils.args import option
from utils.contracts import Places, Votes
from utils.data.augment import crop_and_flip
from utils.data.autoaugment import autoaugment
from utils.data.decode import MAX_PIXELS, Fit, bad_message, content_sha256, decoded, unreadable
from utils.data.download import Download, obtain
from utils.data.listing import (
    TESTING,
    TRAINING,
    Listed,
    class_folders,
    class_names,
    labels_of,
    not_looked_at,
    part_folder,
    read_list,
    unseen,
)
from utils.errors import UsageError, reason


@dataclass(kw_only=True)
class DatasetArgs:
    """Options of a dataset. Each field is an `utils.args.option` with default, help text and source."""


@dataclass(frozen=True)
class Survey:
    """What was found before anything is read. counts: images of the training and the test part (0 where it was not
    asked for), None if nobody knows. class_names: by label, None where only the labels are known. notes: lines worth
    saying. what: the dataset holds."""

    counts: tuple[int, int] | None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    what: str = "images"

    def lines(self, name: str, num_classes: int) -> list[str]:
        """What to say of the dataset at the start of a run."""
        text = f"{name}: {num_classes:,} classes"
        if self.counts is not None:
            tests = f" and {self.counts[1]:,} test" if self.counts[1] else ""
            text += f", {self.counts[0]:,} training{tests} {self.what}"
        if self.class_names:
            first = ", ".join(one_line(name) for name in self.class_names[:5])
            text += f"; classes {first}" + (", ..." if len(self.class_names) > 5 else "")
        return [text, *(f"{name}: {one_line(note)}" for note in self.notes)]


def one_line(name: str) -> str:
    """A name of a file as text of one line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)


class Dataset:
    """One dataset for classification, of images or plain numbers. A dataset file defines exactly one subclass.

    Attributes
    ----------
    Args: dataclass of the dataset's own options.
    num_classes: labels are the integers 0 ... num_classes - 1. Known after `inspect`, `survey` or `load`.
    image_size: side in pixels of its images if the network must have that input size; None: any network.
    native_size: side in pixels of its images on disk, where all have the same; the input of a network that has no size
        of its own, if `image_size` says nothing.
    grey: whether its three channels are one seen three times; a small network is built for one.
    num_inputs: numbers per sample of a dataset that holds no images; they are network input as they are, and sizes,
        `mean` and `std` are not asked for.
    num_targets: numbers to predict of each sample; labels then name the function that a sample belongs to. None: the
        label is what is to be predicted.
    num_slots: how many of the first numbers of a sample are zero, for a method to say in them which function the sample
        is of (OML); 0: none.
    mean, std: per-channel statistics in [0, 1] with which images are normalised.
    counts: images of the training and the test part; known after `inspect`. A dataset that leaves them out can be run,
        but not planned (`--dry_run`), and wrong options of a method are answered only when it is loaded.
    max_domains: transforms (`shift`) under which its images can come one after the other, in a domain-incremental
        stream of `--n_tasks` domains; 0: none.
    tasks: raw labels (`utils.classes`) of each task of data that come in tasks; `load` gives these labels then, so that
        images of domains are held as they are and `shift` is not asked for. None: the stream makes the tasks.
    settings: options of the run that fit this dataset (eval_period ...); a method's published values come before them.
    small_settings: further ones where the network is a small one that begins untrained.
    """

    Args: ClassVar[type[DatasetArgs]] = DatasetArgs
    num_classes: int
    image_size: ClassVar[int | None] = None
    native_size: ClassVar[int | None] = None
    grey: ClassVar[bool] = False
    num_inputs: ClassVar[int | None] = None
    num_targets: ClassVar[int | None] = None
    num_slots: ClassVar[int] = 0
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    counts: tuple[int, int] | None = None
    max_domains: ClassVar[int] = 0
    tasks: ClassVar[list[list[int]] | None] = None
    settings: ClassVar[dict[str, Any]] = {}
    small_settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, args: DatasetArgs | None = None):
        self.args = args or self.Args()

    @classmethod
    def at(cls, data: Path) -> type[Dataset]:
        """The dataset as it lies at `--data_dir`: the class itself, or one of its own where only the data say what it
        declares. Raises UsageError for data that it cannot be."""
        return cls

    def inspect(self, places: Places) -> None:
        """Makes class count and counts known, without reading an image. Default: they are, as the file says them."""

    def survey(self, places: Places, test: bool = True) -> Survey:
        """Finds the data of both parts, with everything that `load` needs beside the images; test: of the test part,
        too. Raises UsageError for what is missing. Default: what the file says."""
        self.inspect(places)
        return Survey(self.counts)

    def is_there(self, places: Places, train: bool) -> bool:
        """Whether `load` would neither fetch nor make the images of a part. Default: it does not."""
        return True

    def digest(self, places: Places, train: bool) -> str | None:
        """SHA-256 of a part: names, labels and content of its images in their order, never where they lie. None where
        the data are not there; nothing is fetched, made or decoded. Default: of the arrays that `load` gives."""
        if not self.is_there(places, train):
            return None
        images, labels, *targets = self.load(places, train)
        digest = hashlib.sha256(repr((images.dtype.str, images.shape)).encode())
        for start in range(0, len(images), 4096):
            digest.update(np.ascontiguousarray(images[start : start + 4096]).data)
        digest.update(np.asarray(labels, dtype="<i8").tobytes())
        for numbers in targets:
            digest.update(np.asarray(numbers, dtype="<f4").tobytes())
        return digest.hexdigest()

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, ...]:
        """The training or the test part: images uint8 [N, 3, H, W] (may be memory-mapped) or numbers float32
        [N, num_inputs], labels int64 [N], and of a dataset with `num_targets` these, float32 [N, num_targets].

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

    def draw(self, path: Path, model: Any, tasks: list[list[int]]) -> None:
        """Draws what a trained method predicts to a PNG file. The method is in evaluation mode, without gradients; an
        error here costs the picture alone. tasks: raw labels of each task, in the order of their columns. Default:
        nothing."""


def ask(model: Any, inputs: np.ndarray) -> Votes:
    """What a method says of numbers float32 [N, F], on the CPU: its votes, or, of one that does not tell tasks apart,
    its outputs [1, N, ...] without a score."""
    device = next(model.parameters()).device
    parts = [part.to(device) for part in torch.from_numpy(inputs).split(4096)]
    votes = [model.votes(part) if model.tells_tasks_apart else Votes(model(part)[None], {}) for part in parts]
    scores = {name: torch.cat([part.scores[name] for part in votes], dim=1).cpu() for name in votes[0].scores}
    return Votes(torch.cat([part.outputs for part in votes], dim=1).float().cpu(), scores)


@dataclass(kw_only=True)
class PublicArgs(DatasetArgs):
    download: bool = option(False, "fetch the data from its official address if it is not there", decides=False)
    skip_bad: bool = option(False, "leave out images that cannot be read, and list them")
    augment_per: Literal["image", "batch"] = option(
        "image",
        "random draws of the training transform: one per image, or one for a whole batch as released trainers do",
    )
    train_list: str | None = option(
        None,
        "file with the training images, a path below the data per line, with or without a label after it",
        decides=False,  # the images do
    )
    test_list: str | None = option(None, "file with the test images; both lists must be given", decides=False)
    max_pixels: int = option(MAX_PIXELS, "pixels of an image that is still read", "Pillow's limit", low=1, later=True)
    input_size: int | None = option(
        None,
        "side in pixels to which images are brought for a network without a size of its own, as resnet18-20; default: "
        "that of the images on disk, where all have one",
        low=8,
        high=10_000,
        later=True,
    )


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
    fit: how images of any shape become squares, see `utils.data.decode`.
    policy: AutoAugment policy of the published training transform, or None.
    names: of the classes by label, where no folder says them.
    known_bad: images that are damaged in the published archive, as class/file; they are no part of it.
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
    names: ClassVar[Sequence[str] | None] = None
    known_bad: ClassVar[tuple[str, ...]] = ()
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    settings = {"backbone": "sup21k"}

    def __init__(self, args: DatasetArgs | None = None):
        super().__init__(args)
        # One listing of each folder for both parts, so that an image that arrives meanwhile is in one of them at most.
        self._listings: dict[Path, Listed] = {}
        self._parts: dict[tuple[Path, bool], tuple[list[Path], list[int]]] = {}
        self._drawn: dict[Path, tuple[list[Path], list[int]]] = {}  # what a random split is drawn over
        self._arrays: dict[tuple[Path, bool], tuple[np.ndarray, np.ndarray]] = {}
        self.places: Places | None = None  # of the listing
        self._class_names: list[str] | None = None
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2].removeprefix("plugin_datasets_").replace("_", "-")

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        """Image files of a part and their labels. Must be given unless `read` is."""
        raise NotImplementedError

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a part, as `load` gives them. Given by datasets that are no files of one image each."""
        return self.decode(folder, *self.part(folder, places, train), places, train)

    def decode(
        self, folder: Path, paths: list[Path], labels: list[int], places: Places, train: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images of files below `folder` with their labels, read from the cache or decoded into it."""
        size = min(places.size, self.stored_size or places.size)
        given = self.title(train), self.args.skip_bad, self.args.max_pixels
        images, kept = decoded(folder, paths, size, self.fit, places.cache, *given)
        return images, np.asarray(labels, dtype=np.int64)[kept]

    def title(self, train: bool) -> str:
        return f"{self.name} {'train' if train else 'test'}"

    def survey(self, places: Places, test: bool = True) -> Survey:
        folder = self._found(places)
        counts = []
        for train in (True, False) if test else (True,):
            if self._is_listed():
                counts.append(len(self.part(folder, places, train)[0]))
            else:
                counts.append(len(self._loaded(folder, places, train)[1]))
            if not counts[-1]:
                raise UsageError(f"{self.title(train)}: no image in {folder}{unseen(self._others())}")
        notes = [note for listed in self._listings.values() for note in listed.notes]
        names = self._class_names or self.names
        return Survey(
            (counts[0], counts[1] if test else 0),
            None if names is None else list(names),
            [*dict.fromkeys([*self._notes, *notes]), *not_looked_at(self._others())],
        )

    def _others(self) -> Counter[str]:
        """How many files of the listings are no images, by ending."""
        return sum((Counter(listed.others) for listed in self._listings.values()), Counter())

    def images(self, places: Places) -> list[Path]:
        """The image files of both parts, for those who look at them one by one."""
        folder = self._found(places)
        return [p for train in (True, False) for p in self.part(folder, places, train)[0]] if self._is_listed() else []

    def digest(self, places: Places, train: bool) -> str | None:
        try:
            folder = self.find(places.data)
            if folder is None:
                return None
            if not self._is_listed():
                return super().digest(places, train)
            paths, labels = self.part(folder, places, train)
        except UsageError:
            return None
        content = content_sha256(folder, paths, places.cache, self.title(train))
        return hashlib.sha256(content.encode() + np.asarray(labels, dtype="<i8").tobytes()).hexdigest()

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return self._loaded(self._found(places), places, train)

    def _found(self, places: Places) -> Path:
        """The folder that holds the data, fetched if that is wanted."""
        folder = self.find(places.data)
        if folder is None and self.args.download and self.downloads:
            obtain(self.downloads, places.data / self.download_to, lambda: self.find(places.data) is not None)
            folder = self.find(places.data)
        if folder is None:
            raise UsageError(self._missing(places.data))
        if self._lists() != (None, None) and not self._is_listed():
            raise UsageError(f"--train_list and --test_list: {self.name} takes none")
        return folder

    def _is_listed(self) -> bool:
        """Whether its images are files of their own."""
        return type(self).files is not PublicDataset.files

    def _loaded(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """As `load`. What is no list of images is kept, as the survey has to read it."""
        if (folder, train) in self._arrays:
            return self._arrays[folder, train]
        with self._readable(folder):
            images, labels = self.read(folder, places, train)
        labels = np.asarray(labels, dtype=np.int64)
        if not self._is_listed():
            self.check_part(folder, labels.tolist(), train)
            self._arrays[folder, train] = images, labels
        return images, labels

    def part(self, folder: Path, places: Places, train: bool) -> tuple[list[Path], list[int]]:
        """Files and labels of a part, by the dataset's own split or by the lists that were given; listed once."""
        if (folder, train) not in self._parts:
            self.places = places
            with self._readable(folder):
                paths, labels = self._listed(folder, train)
            self.check_part(folder, labels, train)
            self._parts[folder, train] = paths, labels
            self._check_apart(folder)
        return self._parts[folder, train]

    def _check_apart(self, folder: Path) -> None:
        """Raises UsageError if links make one folder of images a part of both parts."""
        parts = [self._parts.get((folder, train), ([], []))[0] for train in (True, False)]
        train, test = ({os.path.realpath(f): f for f in {os.path.dirname(path) for path in part}} for part in parts)
        for real in sorted(train.keys() & test.keys()):
            if train[real] != test[real]:
                raise UsageError(
                    f"{test[real]}: is the same folder as {train[real]}; a link makes training images test images"
                )

    @contextlib.contextmanager
    def _readable(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except (UsageError, OSError, MemoryError):
            raise
        except Exception as error:  # files that somebody else wrote make their readers raise anything
            raise UsageError(f"{folder}: cannot be read as {self.name} ({reason(error)}); fetch it again") from error

    def check_part(self, folder: Path, labels: list[int], train: bool) -> None:
        """Compares a part that was just listed or read with what is published."""
        if self._lists() == (None, None):
            self.check_count(folder, len(labels), train)
        if labels and not 0 <= min(labels) <= max(labels) < self.num_classes:
            raise UsageError(
                f"{folder}: holds labels {min(labels)} ... {max(labels)}, {self.name} has {self.num_classes} classes"
            )

    def find(self, data: Path) -> Path | None:
        """The folder that holds the data."""
        for folder in (*(data / name for name in self.folders), data):
            if any(all((folder / part).exists() for part in parts) for parts in self.markers):
                return folder
        return None

    def part_folder(self, folder: Path, train: bool) -> Path | None:
        """The folder of a part by its usual names, in any case; None if there is none."""
        found, others = part_folder(folder, TRAINING if train else TESTING)
        self._notes += [f"{folder / name} is not looked at, {found.name} is taken" for name in others]
        return found

    def class_folders(
        self,
        folder: Path,
        names_in: Path | None = None,
        known: Sequence[str] | None = None,
        nested: bool = False,
        without: tuple[Path, ...] = (),
    ) -> tuple[list[Path], list[int]]:
        """Images below `folder/<class>/` and their labels, by the order of the class names; listed once.

        names_in: the folder that has the classes, where another part of the dataset may lack some. known: their names
        by label. nested: as in `class_folders`. without: folders that hold no data. Warns of a number of classes below
        the published one, and raises UsageError for one above it.
        """
        own = (*self.places.own, *without)
        if folder not in self._listings:
            names = class_names(folder, own)
            if len(names) > self.num_classes:
                raise UsageError(f"{folder}: holds {len(names)} folders, {self.name} has {self.num_classes} classes")
            self.compare_count(len(names), self.num_classes, f"class folders in {folder}")
            if known is None:
                known = names if names_in in (None, folder) else class_names(names_in, own)
            self._listings[folder] = self.list_classes(folder, known, nested, own)
            self._class_names = self._class_names or self._listings[folder].names
        listed = self._listings[folder]
        if not self.known_bad:
            return listed.paths, listed.labels
        rows = [k for k, path in enumerate(listed.paths) if "/".join(path.parts[-2:]) not in self.known_bad]
        return [listed.paths[k] for k in rows], [listed.labels[k] for k in rows]

    def drawn_over(self, folder: Path, paths: list[Path], labels: list[int]) -> tuple[list[Path], list[int]]:
        """The images of a random split, from all that are there: with `--skip_bad` those that can be read, as if the
        others were removed. Where there are as many as were published, a bad one is one of these and keeps its place in
        the draw. Raises UsageError if no image of a class can be read."""
        if not self.args.skip_bad or len(paths) == self.published():
            return paths, labels
        if folder not in self._drawn:
            self._drawn[folder] = self._without_bad(folder, paths, labels)
        return self._drawn[folder]

    def _without_bad(self, folder: Path, paths: list[Path], labels: list[int]) -> tuple[list[Path], list[int]]:
        """As `drawn_over`, of images some of which may be bad; says so."""
        title = f"{self.name} all"
        bad, file = unreadable(folder, paths, self.places.cache, title, self.args.max_pixels)
        if not bad:
            return paths, labels
        print(f"warning: {bad_message(title, bad, f'left out, listed in {file}')}", file=sys.stderr)
        kept = np.delete(np.arange(len(paths)), [row for row, _, _ in bad])
        if lost := {*labels} - {labels[row] for row in kept}:
            name = paths[labels.index(min(lost))].parent.name
            raise UsageError(f"{folder}: no image of class {name} can be read; remove the class")
        return [paths[row] for row in kept], [labels[row] for row in kept]

    def published(self) -> int | None:
        """Images of both parts together."""
        return sum(self.counts)

    def list_classes(self, folder: Path, known: Sequence[str], nested: bool, own: Sequence[Path]) -> Listed:
        return class_folders(folder, self.args.skip_bad, known, nested, own)

    def named(self, folder: Path, names: Sequence[str], train: bool) -> list[Path]:
        """Files that annotations or a list name, below `folder`. Raises UsageError if some are missing, before others
        are decoded, unless bad ones are left out."""
        paths = [folder / name for name in names]
        missing = [(k, str(names[k]), "No such file") for k, path in enumerate(paths) if not os.path.lexists(path)]
        if missing and not self.args.skip_bad:
            raise UsageError(bad_message(self.title(train), missing, "leave them out with --skip_bad"))
        return paths

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

    def _lists(self) -> tuple[str | None, str | None]:
        return self.args.train_list, self.args.test_list

    def _listed(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        lists = self._lists()
        if lists == (None, None):
            return self.files(folder, train)
        if None in lists:
            raise UsageError("--train_list and --test_list: give both or none")
        entries = [read_list(Path(file)) for file in lists]
        self.check_classes(len({entry.folder for entry in entries[0] + entries[1]}), f"{lists[0]} and {lists[1]}")
        names = [{entry.name for entry in part} for part in entries]
        if both := sorted(names[0] & names[1]):
            raise UsageError(f"{lists[0]} and {lists[1]}: both name {both[0]} ({len(both)} images in all)")
        trained = {entry.folder for entry in entries[0]}
        if lost := next((entry for entry in entries[1] if entry.folder not in trained), None):
            raise UsageError(f"{lost.where}: class {lost.folder} has no training image in {lists[0]}")
        label_of = labels_of(entries[0] + entries[1])
        self._class_names = sorted(label_of, key=label_of.get)
        own = [entry for entry in entries[0 if train else 1] if entry.name not in self.known_bad]
        return self.named(folder, [entry.name for entry in own], train), [label_of[entry.folder] for entry in own]

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
