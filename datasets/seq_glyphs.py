"""Further characters of the DejaVu fonts, 200 classes, 10,000 images of 32x32 pixels; made on first use, no download.

Letters and symbols that `glyphs`, the pretraining set, does not contain (same fonts and licence). Training images come
from the Sans and Mono faces, test images from Serif. A share of the images are renditions that pretraining never
showed: outlines, dark ink on light ground, colour, textured ground, blur, low contrast, one or two of them at a time
(`datasets.drawing.renditions`). The others are drawn as in pretraining.
"""

from __future__ import annotations

import numpy as np
from torch import Generator, Tensor

from datasets.base import Dataset, Places
from datasets.drawing import characters, renditions
from utils.data.augment import random_shift


class SeqGlyphs(Dataset):
    num_classes = 200
    image_size = characters.IMAGE_SIZE
    mean = std = (0.5, 0.5, 0.5)
    counts = (8_000, 2_000)
    settings = {"eval_period": 500}

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        first = characters.DOWNSTREAM.start
        return renditions.load(places.cache, "seq-glyphs", slice(first, first + self.num_classes), train)

    def is_there(self, places: Places, train: bool) -> bool:
        return renditions.is_drawn(places.cache, "seq-glyphs", train)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return random_shift(images, 2, generator)
