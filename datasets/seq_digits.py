"""Handwritten digits of scikit-learn, 10 classes, 1,797 images of 8x8 pixels; no download.

The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, CC BY 4.0), real handwriting of thirteen people, which scikit-learn carries. Images are enlarged to 32x32;
1,437 of them are for training, 360 for testing.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from datasets.base import Dataset, Places
from utils.data.augment import random_shift

SPLIT_SEED = 0


class SeqDigits(Dataset):
    num_classes = 10
    image_size = 32
    grey = True
    mean = std = (0.5, 0.5, 0.5)
    counts = (1_437, 360)
    settings = {"eval_period": 100}

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        parts = train_test_split(
            np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=SPLIT_SEED
        )
        rows = parts[0] if train else parts[1]
        return self.shown(digits.images[rows]), digits.target[rows].astype(np.int64)

    def shown(self, images: np.ndarray) -> np.ndarray:
        """Pen counts 0 ... 16 [N, 8, 8] to grey levels uint8 [N, 3, 32, 32]."""
        return _enlarge(images)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return random_shift(images, 2, generator)


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Pen counts 0 ... 16 [N, 8, 8] to grey levels uint8 [N, 3, 32, 32]."""
    size = (SeqDigits.image_size, SeqDigits.image_size)
    grey = F.interpolate(torch.from_numpy(images)[:, None] * (255 / 16), size, mode="bilinear", align_corners=False)
    return grey.round().to(torch.uint8).repeat(1, 3, 1, 1).numpy()
