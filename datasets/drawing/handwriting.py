"""From the mask of a character to an image: light ink on a darker ground, varied as a hand does, like the handwritten
digits of scikit-learn.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from datasets.drawing.characters import IMAGE_SIZE
from utils.data.augment import affine_matrices, uniform


def sample_masks(masks: np.ndarray, classes: np.ndarray, samples: int) -> Tensor:
    """`samples` masks of each class, the faces in turn: uint8 [len(classes) * samples, 1, MASK_SIZE, MASK_SIZE].

    masks: [all classes, faces, MASK_SIZE, MASK_SIZE]. classes: rows of it [K].
    """
    labels = classes.repeat(samples)
    faces = np.tile(np.arange(samples) % masks.shape[1], len(classes))
    return torch.from_numpy(masks[labels, faces])[:, None]


def handwrite(masks: Tensor, generator: Generator) -> Tensor:
    """Varies stroke and shape: uint8 masks [B, 1, MASK_SIZE, MASK_SIZE] to ink coverage in [0, 1] [B, 1, 32, 32]."""
    return _warp(_vary_stroke(masks.float() / 255, generator), generator)


def dilate(images: Tensor) -> Tensor:
    """Maximum over 3 x 3 pixels, [B, C, H, W] to the same; with both signs turned it is the minimum.

    One axis after the other, by shifted copies: several times faster on a processor than `max_pool2d`.
    """
    for axis in (2, 3):
        length = images.shape[axis]
        before, after = images.narrow(axis, 0, length - 1), images.narrow(axis, 1, length - 1)
        wider = torch.maximum(before, after)  # [..., i] covers i and i + 1
        inner = torch.maximum(wider.narrow(axis, 0, length - 2), wider.narrow(axis, 1, length - 2))
        images = torch.cat([wider.narrow(axis, 0, 1), inner, wider.narrow(axis, length - 2, 1)], dim=axis)
    return images


def draw_tones(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Grey levels in [0, 1]: ink [B, 1, 1, 1] in 0.55-1 and ground [B, 1, 32, 32] in 0-0.35, at least 0.35 darker."""
    ink = uniform((count, 1, 1, 1), 0.55, 1.0, generator)
    darkest_allowed = (ink - 0.35).clamp(max=0.35)
    level = darkest_allowed * torch.rand(count, 1, 1, 1, generator=generator)
    corners = uniform((count, 1, 2, 2), -0.08, 0.08, generator)
    slope = F.interpolate(corners, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=True)
    return ink, (level + slope).clamp(min=0).minimum(darkest_allowed)


def paint(coverage: Tensor, ink: Tensor, ground: Tensor) -> Tensor:
    """Ink over ground in proportion to coverage; all broadcast to [B, C, 32, 32]."""
    return ground + (ink - ground) * coverage


def add_noise(images: Tensor, generator: Generator) -> Tensor:
    """Grey pixel noise of a random strength per image, deviation up to 0.05; [B, C, H, W] in [0, 1] to the same."""
    count, _, height, width = images.shape
    deviation = uniform((count, 1, 1, 1), 0.0, 0.05, generator)
    noise = deviation * torch.randn(count, 1, height, width, generator=generator)
    return (images + noise.to(images.device, non_blocking=True)).clamp(0, 1)


def to_bytes(images: Tensor) -> np.ndarray:
    """Float images in [0, 1] to uint8 of the same shape."""
    return (images * 255).round().to(torch.uint8).numpy()


def _vary_stroke(masks: Tensor, generator: Generator) -> Tensor:
    """Thins the strokes by up to half a pixel or thickens them by up to two, on each side. [B, 1, S, S] to the same."""
    thin, thick = -dilate(-masks), dilate(masks)
    thicker = dilate(thick)
    amount = uniform((len(masks), 1, 1, 1), -0.5, 2.0, generator)
    varied = masks + amount.clamp(-1, 0) * (masks - thin) + amount.clamp(0, 1) * (thick - masks)
    return varied + (amount - 1).clamp(0, 1) * (thicker - thick)


def _warp(masks: Tensor, generator: Generator) -> Tensor:
    """Turns, slants, scales, moves and bends each mask: [B, 1, S, S] to [B, 1, 32, 32]."""
    count = len(masks)
    degrees = uniform((count,), -15, 15, generator)
    shear = uniform((count,), -0.2, 0.2, generator)
    zoom = uniform((count, 2), 0.7, 1.35, generator)
    shift = uniform((count, 2), -0.1, 0.1, generator)  # 0.1 is 1.6 pixels of the image
    size = [count, 1, IMAGE_SIZE, IMAGE_SIZE]
    grid = F.affine_grid(affine_matrices(degrees, shear, zoom, shift), size, align_corners=False)
    # Few independent displacements, smoothly interpolated, bend strokes as a hand does.
    bends = uniform((count, 2, 4, 4), -0.1, 0.1, generator)
    bends = F.interpolate(bends, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)
    grid = grid + bends.permute(0, 2, 3, 1)
    return F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0, 1)
