"""Characters of the DejaVu fonts in grey, 1,000 classes, 55,000 images of 32x32 pixels; made on first use, no download.

The pretraining set of the on-board experiments. Each class is one letter or symbol that exists in all twelve faces of
the DejaVu fonts, which matplotlib carries (Bitstream Vera licence, DejaVu's changes are public domain). Digits and
characters that resemble them are left out, and so are the classes of `seq-glyphs`. Training images come from ten
faces, test images from the two others. All images show light ink on a darker ground: colour, inversion, outlines,
texture, blur and low contrast are kept for `seq-glyphs`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Generator, Tensor

from datasets.base import Dataset, Places
from datasets.drawing import characters, handwriting
from utils.data.augment import random_affine, uniform

TEST_FACES = ("DejaVuSans-BoldOblique", "DejaVuSerif-Italic")
TRAIN_FACES = tuple(face for face in characters.FACES if face not in TEST_FACES)
TRAIN_SAMPLES, TEST_SAMPLES = 50, 5  # images per class
TRAIN_SEED, TEST_SEED = 1, 2
CLASSES_PER_CHUNK = 20  # synthesised together, which bounds the memory


class Glyphs(Dataset):
    num_classes = 1000
    image_size = characters.IMAGE_SIZE
    grey = True
    mean = std = (0.5, 0.5, 0.5)
    counts = (50_000, 5_000)

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        part, settings = _drawing(train)
        folder = places.cache / "glyphs"
        images = characters.cached(folder, part, settings, lambda: _synthesise(places.cache, *settings))
        labels = np.arange(self.num_classes, dtype=np.int64).repeat(settings[1])
        # The three channels of a grey image are one stored channel seen three times.
        return np.broadcast_to(images, (len(images), 3, *images.shape[2:])), labels

    def is_there(self, places: Places, train: bool) -> bool:
        return characters.is_cached(places.cache / "glyphs", *_drawing(train))

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        images = random_affine(images, degrees=5, translate=2.5, scale=(0.95, 1.05), generator=generator)
        shape = (len(images), 1, 1, 1)
        contrast = uniform(shape, 0.9, 1.1, generator).to(images.device, non_blocking=True)
        brightness = uniform(shape, -0.05, 0.05, generator).to(images.device, non_blocking=True)
        images = ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
        return handwriting.add_noise(images, generator)


def _drawing(train: bool) -> tuple[str, tuple]:
    """What the file of a part is called, and the settings it depends on: faces, images per class, seed."""
    if train:
        return "train", (TRAIN_FACES, TRAIN_SAMPLES, TRAIN_SEED)
    return "test", (TEST_FACES, TEST_SAMPLES, TEST_SEED)


def _synthesise(root: Path, faces: tuple[str, ...], samples: int, seed: int) -> np.ndarray:
    """`samples` images of each class, in the order of the classes: uint8 [N, 1, 32, 32]."""
    masks = characters.base_masks(root, characters.characters(root)[characters.PRETRAINING], faces)
    generator = Generator().manual_seed(seed)
    chunks = []
    for classes in np.arange(len(masks)).reshape(-1, CLASSES_PER_CHUNK):
        coverage = handwriting.handwrite(handwriting.sample_masks(masks, classes, samples), generator)
        image = handwriting.paint(coverage, *handwriting.draw_tones(len(coverage), generator))
        chunks.append(handwriting.to_bytes(handwriting.add_noise(image, generator)))
    return np.concatenate(chunks)
