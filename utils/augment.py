"""Batched image transforms: one draw per image, drawn on the CPU and applied on the images' device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Float tensor of `shape`, uniform in [low, high), on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def random_shift(images: Tensor, max_pixels: int, generator: Generator) -> Tensor:
    """Moves each image by up to `max_pixels` in both directions; edge pixels fill the gap. [B, C, H, W] to the same."""
    count, _, height, width = images.shape
    offsets = torch.randint(2 * max_pixels + 1, (2, count, 1), generator=generator).to(images.device)
    padded = F.pad(images, (max_pixels,) * 4, mode="replicate")
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.arange(width, device=images.device)  # [B, W]
    batch = torch.arange(count, device=images.device)[:, None, None]
    # Indexing around the channel axis puts that axis last.
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_affine(
    images: Tensor, degrees: float, translate: float, scale: tuple[float, float], generator: Generator
) -> Tensor:
    """Turns, scales and moves each image; edge pixels fill the gap. [B, C, H, W] to the same.

    degrees: largest rotation. translate: largest shift in pixels. scale: range of the magnification, per axis.
    """
    count, _, height, width = images.shape
    angle = uniform((count,), -degrees, degrees, generator)
    zoom = uniform((count, 2), *scale, generator)
    shift = uniform((count, 2), -translate, translate, generator) * 2 / torch.tensor([width, height])
    matrices = affine_matrices(angle, torch.zeros(count), zoom, shift).to(images)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def affine_matrices(degrees: Tensor, shear: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Matrices [B, 2, 3] for `affine_grid`, which maps positions of the output to positions of the input.

    degrees: rotation [B]. shear: horizontal slant [B], in widths per height. zoom: magnification [B, 2] of x and y.
    shift: movement [B, 2] of x and y in the grid's units, where the image spans [-1, 1].
    """
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    slant = torch.eye(2).repeat(len(degrees), 1, 1)
    slant[:, 0, 1] = shear
    linear = slant @ rotation / zoom[:, :, None]
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)
