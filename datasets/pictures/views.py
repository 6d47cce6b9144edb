"""Pictures with coverage as images: on white, or as views, turned, scaled and moved a little on tinted grounds.

Views are drawn once with a fixed seed and kept, as training data; every test picture is shown as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from utils.data.augment import random_affine, uniform

VIEWS = 5  # of a training picture, the first of them the picture as it is
SEED = 5
DEGREES, SCALE, SHIFT = 15, (0.8, 1.05), 1 / 16  # of a view; the shift in sides of the picture
DARKEST = 0.6  # channel of a ground
VERSION = 1  # raise it when the code below draws differently, so that cached files are made anew
PICTURES_PER_CHUNK = 256  # drawn together, which bounds the memory


def settings() -> tuple:
    """All that views hang on beside the pictures."""
    return VERSION, VIEWS, SEED, DEGREES, SCALE, SHIFT, DARKEST


def on_white(pictures: np.ndarray) -> np.ndarray:
    """Colours and coverage uint8 [N, 4, S, S] to images uint8 [N, 3, S, S]."""
    return to_bytes(painted(*premultiplied(pictures), torch.ones(len(pictures), 3, 1, 1, dtype=torch.float64)))


def views(pictures: np.ndarray) -> np.ndarray:
    """`VIEWS` images of each picture uint8 [N, 4, S, S], one after the other: uint8 [N * VIEWS, 3, S, S]."""
    generator = Generator().manual_seed(SEED)
    chunks = [on_white(pictures)[:, None]]
    for _ in range(VIEWS - 1):
        parts = [pictures[first : first + PICTURES_PER_CHUNK] for first in range(0, len(pictures), PICTURES_PER_CHUNK)]
        chunks.append(np.concatenate([view(part, generator) for part in parts])[:, None])
    return np.concatenate(chunks, axis=1).reshape(-1, 3, *pictures.shape[2:])


def view(pictures: np.ndarray, generator: Generator) -> np.ndarray:
    """One view of each picture."""
    colour, coverage = premultiplied(pictures)
    side = pictures.shape[-1]
    # A frame without coverage, which fills the gaps, since edge pixels do.
    framed = torch.nn.functional.pad(torch.cat([colour, coverage], dim=1), (side // 4,) * 4)
    moved = random_affine(framed, DEGREES, SHIFT * side, SCALE, generator)[..., side // 4 :, side // 4 :]
    moved = moved[..., :side, :side]
    ground = uniform((len(pictures), 3, 1, 1), DARKEST, 1, generator).double()
    return to_bytes(painted(moved[:, :3], moved[:, 3:], ground))


def premultiplied(pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Colours times coverage [N, 3, S, S], and coverage [N, 1, S, S], in [0, 1]; doubles, so that rounding to bytes is
    the same everywhere."""
    values = torch.from_numpy(pictures).double() / 255
    return values[:, :3] * values[:, 3:], values[:, 3:]


def painted(colour: Tensor, coverage: Tensor, ground: Tensor) -> Tensor:
    return colour + (1 - coverage) * ground


def to_bytes(images: Tensor) -> np.ndarray:
    return (images * 255).round().clamp(0, 255).to(torch.uint8).numpy()
