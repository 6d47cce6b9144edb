"""What the datasets of stored pictures share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Generator, Tensor

from datasets.base import Dataset, DatasetArgs, Places, Survey
from datasets.pictures import stored
from utils.args import option
from utils.data.augment import random_shift


@dataclass(kw_only=True)
class PictureArgs(DatasetArgs):
    pictures: str | None = option(
        None,
        "folder with the pictures at another size, as command/make_pictures.sh --size writes them; none: 32 px",
        reads=(stored.SUMS,),
    )


class Pictures(Dataset):
    """Pictures of a stored file, grey ones as light ink on dark ground; those of its first sets are for training, those
    of the others for testing.

    Attributes
    ----------
    file: name of the stored file.
    """

    Args = PictureArgs
    file: ClassVar[str]
    image_size = 32
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, args: PictureArgs | None = None):
        super().__init__(args)
        self.folder = stored.FOLDER
        if self.args.pictures is not None:
            self.folder, self.image_size = Path(self.args.pictures).expanduser(), None  # any network
        self._stored: stored.Stored | None = None

    @property
    def stored(self) -> stored.Stored:
        """The pictures, read once."""
        if self._stored is None:
            self._stored = stored.read(self.folder, self.file)
        return self._stored

    def classes(self) -> list[int]:
        """Positions of the concepts that are its classes. Default: all."""
        return list(range(len(self.stored.about.concepts)))

    def class_names(self) -> list[str]:
        return [self.stored.about.concepts[concept] for concept in self.classes()]

    def survey(self, places: Places, test: bool = True) -> Survey:
        return Survey(self.counts, self.class_names())

    def part(self, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and labels of a part."""
        classes = self.classes()
        label_of = np.full(len(self.stored.about.concepts), -1)
        label_of[classes] = np.arange(len(classes))
        rows = self.stored.rows(train)
        rows = rows[label_of[self.stored.labels[rows]] >= 0]
        return self.stored.pictures[rows], label_of[self.stored.labels[rows]].astype(np.int64)

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        pictures, labels = self.part(train)
        images = 255 - pictures  # light ink on dark ground, as in `glyphs` and MNIST
        # The three channels of a grey image are one stored channel seen three times.
        return np.broadcast_to(images[:, None], (len(images), 3, *images.shape[1:])), labels

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return random_shift(images, max(1, images.shape[-1] // 16), generator)
