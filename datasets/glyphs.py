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
import torch
from torch import Generator, Tensor

from datasets.base import Dataset, Places
from datasets.drawing import characters, handwriting
from utils.data.augment import random_affine, uniform

TEST_FACES = ("DejaVuSans-BoldOblique", "DejaVuSerif-Italic")
TRAIN_FACES = tuple(face for face in characters.FACES if face not in TEST_FACES)
CLASSES_PER_CHUNK = 20  # synthesised together, which bounds the memory


class Glyphs(Dataset):
    """`folder`: of its files in the cache. `chosen`: its classes among all `characters`. `training`, `test`: faces,
    images per class and seed of a part."""

    folder = "glyphs"
    chosen = characters.PRETRAINING
    training = (TRAIN_FACES, 50, 1)
    test = (TEST_FACES, 5, 2)
    num_classes = 1000
    image_size = characters.IMAGE_SIZE
    grey = True
    mean = std = (0.5, 0.5, 0.5)
    counts = (50_000, 5_000)

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        file = self._file(places, train)
        images = characters.cached(*file, lambda: _synthesise(places.cache, self.chosen, *file[-1]))
        labels = np.arange(self.num_classes, dtype=np.int64).repeat(len(images) // self.num_classes)
        # The three channels of a grey image are one stored channel seen three times.
        return np.broadcast_to(images, (len(images), 3, *images.shape[2:])), labels

    def is_there(self, places: Places, train: bool) -> bool:
        return characters.is_cached(*self._file(places, train))

    def _file(self, places: Places, train: bool) -> tuple[Path, str, tuple[tuple[str, ...], int, int]]:
        """Folder and name of the file of a part, and the settings it depends on."""
        part = ("train", self.training) if train else ("test", self.test)
        return places.cache / self.folder, *part

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        images = random_affine(images, degrees=5, translate=2.5, scale=(0.95, 1.05), generator=generator)
        shape = (len(images), 1, 1, 1)
        contrast = uniform(shape, 0.9, 1.1, generator).to(images.device, non_blocking=True)
        brightness = uniform(shape, -0.05, 0.05, generator).to(images.device, non_blocking=True)
        images = ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
        return handwriting.add_noise(images, generator)


def _synthesise(root: Path, chosen: slice, faces: tuple[str, ...], samples: int, seed: int) -> np.ndarray:
    """`samples` images of each chosen character, in their order: uint8 [N, 1, 32, 32]."""
    masks = characters.base_masks(root, characters.characters(root)[chosen], faces)
    generator = Generator().manual_seed(seed)
    chunks = []
    for classes in torch.arange(len(masks)).split(CLASSES_PER_CHUNK):
        coverage = handwriting.handwrite(handwriting.sample_masks(masks, classes.numpy(), samples), generator)
        image = handwriting.paint(coverage, *handwriting.draw_tones(len(coverage), generator))
        chunks.append(handwriting.to_bytes(handwriting.add_noise(image, generator)))
    return np.concatenate(chunks)
