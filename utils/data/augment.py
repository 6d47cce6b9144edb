"""Batched image transforms: one draw per image, drawn on the CPU and applied on the images' device.

Draws travel without waiting for the device, which may still be at work on the batch before.
"""

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
    offsets = torch.randint(2 * max_pixels + 1, (2, count, 1), generator=generator).to(images.device, non_blocking=True)
    padded = F.pad(images, (max_pixels,) * 4, mode="replicate")
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.arange(width, device=images.device)  # [B, W]
    batch = torch.arange(count, device=images.device)[:, None, None]
    # Indexing around the channel axis puts that axis last.
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def crop_and_flip(images: Tensor, padding: int, generator: Generator, per: str = "image") -> Tensor:
    """Moves each image by up to `padding` pixels in both directions, black filling the gap, and mirrors every second
    one: random crop after zero padding, and horizontal flip. [B, C, S, S] to the same.

    per: image, a draw for each; batch, one draw for all.
    """
    count, _, height, width = images.shape
    draws = count if per == "image" else 1
    offsets = torch.randint(2 * padding + 1, (2, draws, 1), generator=generator).to(images.device, non_blocking=True)
    flipped = (torch.rand(draws, 1, generator=generator) < 0.5).to(images.device, non_blocking=True)
    columns = torch.arange(width, device=images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # [B, H]
    columns = offsets[1] + torch.where(flipped, columns.flip(0), columns)  # [B, W]
    batch = torch.arange(count, device=images.device)[:, None, None]
    padded = F.pad(images, (padding,) * 4)
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirrors every second image, at random. [B, C, H, W] to the same."""
    flipped = (torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5).to(images.device, non_blocking=True)
    return torch.where(flipped, images.flip(3), images)


def random_colours(images: Tensor, generator: Generator) -> Tensor:
    """Grey images, taken for how much ink covers each place, in ink and on ground of random colours: a quarter as they
    are, a quarter inverted, the others in two colours that differ by a quarter at least in some channel.
    [B, 3, H, W] to the same."""
    count = len(images)
    ground, ink = torch.rand(2, count, 3, 1, 1, generator=generator)
    alike = (ground - ink).mean(dim=1, keepdim=True).abs() < 0.25
    ink = torch.where(alike, 1 - ground.round(), ink)
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    ground = torch.where(kind < 0.5, (kind >= 0.25).float(), ground)
    ink = torch.where(kind < 0.5, (kind < 0.25).float(), ink)
    ground, ink = (colour.to(images.device, non_blocking=True) for colour in (ground, ink))
    return ground + images * (ink - ground)


def random_resized_crop(images: Tensor, generator: Generator) -> Tensor:
    """Cuts a rectangle of 8 to 100 % of the area and of aspect ratio 3/4 to 4/3 out of each image and brings it to
    the size of the image, bilinear: the transform of ImageNet training. [B, C, S, S] to the same.

    Where torchvision draws again when a rectangle does not fit, its longer side is cut to the image's here.
    """
    count = len(images)
    area = uniform((count,), 0.08, 1, generator)
    ratio = uniform((count,), math.log(3 / 4), math.log(4 / 3), generator).exp()
    extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)  # width, height
    centre = (1 - extent) * uniform((count, 2), -1, 1, generator)
    matrices = torch.cat([torch.diag_embed(extent), centre[:, :, None]], dim=2).to(images, non_blocking=True)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


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
    matrices = affine_matrices(angle, torch.zeros(count), zoom, shift).to(images, non_blocking=True)
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


def pixel_orders(count: int, pixels: int, seed: int) -> Tensor:
    """`count` random orders of the pixels of an image, [count, pixels], as GEM draws them: one after the other."""
    generator = Generator().manual_seed(seed)
    return torch.stack([torch.randperm(pixels, generator=generator) for _ in range(count)])


def permute_pixels(images: Tensor, orders: Tensor) -> Tensor:
    """Images [B, C, H, W] whose pixels change places, each by its own order [B, H * W], alike in all channels."""
    orders = orders.to(images.device, non_blocking=True)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, orders).view(images.shape)
