"""Glyphs of which a share is drawn as pretraining never shows them: outlined, inverted, coloured, on textured ground,
blurred or faint, one or two of these at a time.

`SHARE` and `STRENGTH` say how far such a set is from pretraining; strength 0 is as in pretraining, 1 as strange as it
gets while still legible.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from datasets.drawing import characters, handwriting
from utils.data.augment import uniform

SHARE = 0.4  # of the images that are renditions, in training and test
STRENGTH = 0.4

TRAIN_FACES, TEST_FACES = characters.SANS + characters.MONO, characters.SERIF
TRAIN_SAMPLES, TEST_SAMPLES = 40, 10  # images per class
TRAIN_SEED, TEST_SEED = 3, 4

KINDS = ("outlined", "inverted", "coloured", "textured", "blurred", "faint")
CLASSES_PER_CHUNK = 20  # synthesised together, which bounds the memory


def load(root: Path, name: str, chosen: slice, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels of the chosen ones of all `characters`, kept in the folder `name` of
    `root`."""
    part, settings = _drawing(train)
    faces, samples, seed, *_ = settings
    images = characters.cached(
        root / name,
        part,
        settings,
        lambda: synthesise(root, characters.characters(root)[chosen], faces, samples, seed),
    )
    return images, np.arange(len(images) // samples, dtype=np.int64).repeat(samples)


def is_drawn(root: Path, name: str, train: bool) -> bool:
    """Whether `load` would find the images."""
    return characters.is_cached(root / name, *_drawing(train))


def _drawing(train: bool) -> tuple[str, tuple]:
    """What the file of a part is called, and the settings it depends on."""
    if train:
        return "train", (TRAIN_FACES, TRAIN_SAMPLES, TRAIN_SEED, SHARE, STRENGTH)
    return "test", (TEST_FACES, TEST_SAMPLES, TEST_SEED, SHARE, STRENGTH)


def synthesise(root: Path, text: str, faces: tuple[str, ...], samples: int, seed: int) -> np.ndarray:
    """`samples` images of each character of `text`, in their order: uint8 [N, 3, 32, 32]."""
    masks = characters.base_masks(root, text, faces)
    generator = Generator().manual_seed(seed)
    chunks = []
    for classes in np.arange(len(masks)).reshape(-1, CLASSES_PER_CHUNK):
        coverage = handwriting.handwrite(handwriting.sample_masks(masks, classes, samples), generator)
        kinds = draw_kinds(len(coverage), SHARE, generator)
        chunks.append(handwriting.to_bytes(rendition(coverage, kinds, STRENGTH, generator)))
    return np.concatenate(chunks)


def draw_kinds(count: int, share: float, generator: Generator) -> dict[str, Tensor]:
    """Which images get which kind, bool [B, 1, 1, 1] each: one or two kinds for a `share` of the images, else none."""
    rank = torch.rand(count, len(KINDS), generator=generator).argsort(dim=1)  # a permutation per image
    number = torch.randint(1, 3, (count, 1), generator=generator)
    number = number * (torch.rand(count, 1, generator=generator) < share)
    return {kind: (rank[:, k : k + 1] < number)[:, :, None, None] for k, kind in enumerate(KINDS)}


def rendition(coverage: Tensor, kinds: dict[str, Tensor], strength: float, generator: Generator) -> Tensor:
    """Draws ink coverage [B, 1, 32, 32] with the kinds chosen for each image: float [B, 3, 32, 32] in [0, 1].

    Every kind is computed for the whole batch and taken where it was chosen; the sets are small.
    """
    coverage = torch.where(kinds["outlined"], outline(coverage, strength), coverage)
    ink, ground = handwriting.draw_tones(len(coverage), generator)
    inverted = kinds["inverted"] & invert(len(coverage), strength, generator)
    ink, ground = torch.where(inverted, 1 - ink, ink), torch.where(inverted, 1 - ground, ground)
    ink = torch.where(kinds["coloured"], tint(ink, strength, generator), ink)
    ground = torch.where(kinds["coloured"], tint(ground, strength, generator), ground)
    ground = torch.where(kinds["textured"], ground + texture(len(coverage), strength, generator), ground)
    images = handwriting.paint(coverage, ink, ground).clamp(0, 1)
    images = torch.where(kinds["blurred"], blur(images, strength, generator), images)
    images = torch.where(kinds["faint"], fade(images, strength), images)
    return handwriting.add_noise(images, generator)


def outline(coverage: Tensor, strength: float) -> Tensor:
    """Morphological gradient: the rim of the strokes. strength: how much of the inside is emptied."""
    return coverage.lerp(handwriting.dilate(coverage) + handwriting.dilate(-coverage), strength)


def invert(count: int, strength: float, generator: Generator) -> Tensor:
    """Whether ink and ground swap, bool [B, 1, 1, 1]. There is no half an inversion: strength is its probability."""
    return torch.rand(count, 1, 1, 1, generator=generator) < strength


def tint(tone: Tensor, strength: float, generator: Generator) -> Tensor:
    """Moves grey levels [B, 1, H, W] towards a random hue; [B, 3, H, W]. The mean of the channels stays."""
    hue = torch.rand(len(tone), 1, generator=generator)
    phase = 2 * math.pi * (hue + torch.tensor([[0.0, 1 / 3, 2 / 3]]))
    return tone + 0.4 * strength * phase.cos()[:, :, None, None]


def texture(count: int, strength: float, generator: Generator) -> Tensor:
    """Stripes, checks or coarse noise, to be added to the ground: [B, 1, 32, 32] in +- 0.25 strength."""
    size = characters.IMAGE_SIZE
    angle = uniform((count, 1, 1, 1), 0, math.pi, generator)
    frequency = uniform((count, 1, 1, 1), 0.6, 1.6, generator)  # radians per pixel: periods of 4 to 10 pixels
    y, x = torch.arange(size).float().view(1, 1, -1, 1), torch.arange(size).float().view(1, 1, 1, -1)
    stripes = (frequency * (angle.cos() * x + angle.sin() * y)).sin()
    crossing = (frequency * (angle.cos() * y - angle.sin() * x)).sin()
    noise = F.interpolate(uniform((count, 1, size // 2, size // 2), -1, 1, generator), scale_factor=2, mode="bilinear")
    patterns = torch.stack([stripes.sign(), (stripes * crossing).sign(), noise])
    choice = torch.randint(len(patterns), (count,), generator=generator)
    return 0.25 * strength * patterns[choice, torch.arange(count)]


def blur(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Gaussian blur of random width, deviation up to 2 pixels at full strength; [B, C, H, W] to the same."""
    count, channels, height, width = images.shape
    deviation = 2 * strength * uniform((count, 1), 0.5, 1, generator) + 1e-3  # never zero: it is divided by
    offsets = torch.arange(-4, 5).float()
    line = torch.softmax(-(offsets**2) / (2 * deviation**2), dim=1)  # [B, 9]
    kernel = (line[:, :, None] * line[:, None, :]).repeat_interleave(channels, dim=0)[:, None]
    padded = F.pad(images, (4,) * 4, mode="replicate").reshape(1, count * channels, height + 8, width + 8)
    return F.conv2d(padded, kernel, groups=count * channels).reshape(images.shape)


def fade(images: Tensor, strength: float) -> Tensor:
    """Low contrast: moves each image [B, C, H, W] towards its own mean colour."""
    return images.lerp(images.mean(dim=(2, 3), keepdim=True).expand_as(images), 0.7 * strength)
