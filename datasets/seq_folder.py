"""Your own images: a folder per class, below `train` and `test`, or one tree that is split; any number of classes.

`--data_dir` is the folder itself. With `train/<class>/` and `test/<class>/` these are the parts (train or training;
test, testing, val, valid or validation; in any case; of several test parts the first of these); with `<class>/` alone
`--test_share` of each class's images, drawn with `--split_seed`, are for testing. No data are hidden files and folders,
what systems leave behind (`__MACOSX`, `Thumbs.db`, `System Volume Information` ...), folders that runs made, and links
that lead back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import Places, PublicArgs, PublicDataset, Survey
from utils.args import option
from utils.data.listing import Listed, class_folders, class_names, own_parts
from utils.data.splits import split_classes
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
        self.counts = tuple(len(self.part(folder, places, train)[0]) for train in (True, False))

    def survey(self, places: Places, test: bool = True) -> Survey:
        survey = super().survey(places, test)
        self.counts = survey.counts
        if self.num_classes == 1:
            survey.notes.append(f"one class only, {survey.class_names[0]}; is {places.data} the right folder?")
        return survey

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        images, labels = super().load(places, train)
        lost = {*self.part(places.data, places, train)[1]} - {*labels.tolist()}
        if train and lost:
            name = self._class_names[min(lost)]
            raise UsageError(f"{places.data}: no training image of class {name} can be read; remove the class")
        return images, labels

    def check_count(self, folder: Path, found: int, train: bool) -> None:
        """No number is published."""

    def published(self) -> None:
        return None

    def check_classes(self, found: int, where: str) -> None:
        self.num_classes = found

    def files(self, folder: Path, train: bool) -> tuple[list[Path], list[int]]:
        parts = own_parts(folder, self.places.own)
        if parts is None:
            listed = self._classes(folder)
            paths, labels = self.drawn_over(folder, listed.paths, listed.labels)
            return split_classes(paths, labels, 1 - self.args.test_share, self.args.split_seed, train)
        training, testing, notes = parts
        self._notes += notes
        listed = self._classes(training)
        if train:
            return listed.paths, listed.labels
        # Classes without a training image are none; nothing is to be tested on them.
        empty = [name for name in class_names(training, self.places.own) if name not in listed.names]
        held = self._listed_once(testing, [*listed.names, *empty])
        rows = [row for row, label in enumerate(held.labels) if label < self.num_classes]
        return [held.paths[row] for row in rows], [held.labels[row] for row in rows]

    def _classes(self, folder: Path) -> Listed:
        """The images that make the classes."""
        listed = self._listed_once(folder)
        self.num_classes, self._class_names = len(listed.names), listed.names
        return listed

    def _listed_once(self, folder: Path, known: Sequence[str] | None = None) -> Listed:
        if self.places.cache.resolve() == folder.resolve():
            raise UsageError(f"--cache_dir {self.places.cache}: holds the class folders; name another folder")
        if folder not in self._listings:
            self._listings[folder] = class_folders(folder, self.args.skip_bad, known, own=self.places.own)
        return self._listings[folder]
