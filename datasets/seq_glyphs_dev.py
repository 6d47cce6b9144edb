"""100 pretraining characters drawn as in `seq-glyphs`, 5,000 images; for choosing options, never for reporting.

Every class belongs to `glyphs`, so the backbone knows it, but no rendition (same fonts and licence). Options that hang
on the backbone, such as those of MePo's meta stage, are chosen here, so that the classes of the benchmark stay unseen.
"""

from __future__ import annotations

import numpy as np
from torch import Generator, Tensor

from datasets.base import Dataset, Places
from datasets.drawing import characters, renditions
from utils.data.augment import random_shift


class SeqGlyphsDev(Dataset):
    num_classes = 100
    image_size = characters.IMAGE_SIZE
    mean = std = (0.5, 0.5, 0.5)
    counts = (4_000, 1_000)
    settings = {"eval_period": 500}

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        first = characters.PRETRAINING.start
        return renditions.load(places.cache, "seq-glyphs-dev", slice(first, first + self.num_classes), train)

    def is_there(self, places: Places, train: bool) -> bool:
        return renditions.is_drawn(places.cache, "seq-glyphs-dev", train)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return random_shift(images, 2, generator)
