"""AutoAugment of a whole batch on the images' device, with a sub-policy of its own for each image.

Source: Cubuk et al., CVPR 2019, arXiv:1805.09501. Policies, magnitudes and rounding are those of torchvision's
`transforms.AutoAugment` on uint8 tensors, which draws once per call, so that a batch shares one sub-policy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

Policy = Literal["cifar10", "imagenet", "svhn"]
Operation = Callable[[Tensor, Tensor], Tensor]  # uint8 [B, 3, H, W] and magnitudes float64 [B, 1, 1, 1] to uint8

LEVELS = 10  # steps of every range of magnitudes
RANGES = {  # lowest and highest level; the translations depend on the size, the operations left out have no magnitude
    "ShearX": (0.0, 0.3),  # pixels per row
    "ShearY": (0.0, 0.3),
    "Rotate": (0.0, 30.0),  # degrees
    "Brightness": (0.0, 0.9),  # distance of the blending factor from 1
    "Color": (0.0, 0.9),
    "Contrast": (0.0, 0.9),
    "Sharpness": (0.0, 0.9),
    "Posterize": (8.0, 4.0),  # bits, rounded
    "Solarize": (255.0, 0.0),  # threshold
}
UNSIGNED = ("Posterize", "Solarize")  # the other magnitudes get a random sign


def autoaugment(
    images: Tensor, policy: Policy, generator: Generator, per: Literal["image", "batch"] = "image"
) -> Tensor:
    """Applies the two operations of a random sub-policy, each with its probability.

    images: float [B, 3, H, W] in [0, 1], to the same, in steps of 1/255. generator: on the CPU. per: "batch" lets all
    images share one draw, which for a given state of the generator is torchvision's.
    """
    count, _, height, width = images.shape
    kinds, magnitudes = draw(policy, {"image": count, "batch": 1}[per], height, width, generator)
    kinds, magnitudes = kinds.expand(count, 2), magnitudes.expand(count, 2)
    pixels = (images * 255).round().to(torch.uint8)
    for step in range(2):
        # The groups are found on the CPU, and copies do not wait, so that the device never makes the host wait.
        for kind, operation in enumerate(OPERATIONS.values()):
            rows = (kinds[:, step] == kind).nonzero().flatten()
            if len(rows):
                magnitude = magnitudes[rows, step].view(-1, 1, 1, 1).to(images.device, non_blocking=True)
                rows = rows.to(images.device, non_blocking=True)
                pixels.index_copy_(0, rows, operation(pixels.index_select(0, rows), magnitude))
    return pixels.to(images.dtype) / 255


def draw(policy: Policy, count: int, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """First and second operation of `count` sub-policies: indices into OPERATIONS int64 [count, 2], -1 where none is
    applied, and signed magnitudes float64 [count, 2]."""
    kinds, probabilities, magnitudes, signed = sub_policies(policy, height, width)
    chosen = torch.randint(len(kinds), (count,), generator=generator)
    applied = torch.rand((count, 2), generator=generator) <= probabilities[chosen]
    negative = (torch.randint(2, (count, 2), generator=generator) == 0) & signed[chosen]
    return kinds[chosen].where(applied, -1), magnitudes[chosen] * (1 - 2 * negative.double())


@cache
def sub_policies(policy: Policy, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The P sub-policies: kinds (indices into OPERATIONS), probabilities, magnitudes, and which of these are signed,
    all [P, 2]."""
    pairs = AutoAugment(AutoAugmentPolicy(policy)).policies
    order = list(OPERATIONS)
    return (
        torch.tensor([[order.index(name) for name, _, _ in pair] for pair in pairs]),
        torch.tensor([[probability for _, probability, _ in pair] for pair in pairs]),
        torch.tensor(
            [[magnitude_of(name, level, height, width) for name, _, level in pair] for pair in pairs],
            dtype=torch.float64,
        ),
        torch.tensor([[name not in UNSIGNED for name, _, _ in pair] for pair in pairs]),
    )


def magnitude_of(name: str, level: int | None, height: int, width: int) -> float:
    """Magnitude of an operation at a level in 0 ... 9, without sign; 0 for one that has none (level None)."""
    if level is None:
        return 0.0
    ranges = RANGES | {"TranslateX": (0.0, 150 / 331 * width), "TranslateY": (0.0, 150 / 331 * height)}
    return torch.linspace(*ranges[name], LEVELS)[level].item()


def warp(pixels: Tensor, matrix: tuple[Tensor | float, ...]) -> Tensor:
    """Takes each pixel from the nearest one of the input, black where that lies outside.

    matrix: (a, b, c, d, e, f), where (x, y) comes from (ax + by + c, dx + ey + f), in pixels from the image's centre.
    """
    height, width = pixels.shape[-2:]
    x = torch.arange(width, device=pixels.device) - (width - 1) / 2
    y = (torch.arange(height, device=pixels.device) - (height - 1) / 2).view(-1, 1)
    ones = torch.ones(len(pixels), 1, 1, 1, dtype=torch.float64, device=pixels.device)
    # In this order torchvision scales to [-1, 1] and multiplies: rounding decides between two equally near pixels.
    a, b, c, d, e, f = ((entry * ones).float().view(-1, 1, 1) for entry in matrix)
    grid_x = a / (width / 2) * x + b / (width / 2) * y + c / (width / 2)
    grid_y = d / (height / 2) * x + e / (height / 2) * y + f / (height / 2)
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(pixels.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def shear_x(pixels: Tensor, magnitude: Tensor) -> Tensor:
    """Moves each row by its distance from the upper edge; `shear_y` each column by that from the left edge."""
    return warp(pixels, (1, magnitude, magnitude * pixels.shape[-2] / 2, 0, 1, 0))


def shear_y(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return warp(pixels, (1, 0, 0, magnitude, 1, magnitude * pixels.shape[-1] / 2))


def translate_x(pixels: Tensor, magnitude: Tensor) -> Tensor:
    """Moves by whole pixels, rounded towards zero."""
    return warp(pixels, (1, 0, -magnitude.trunc(), 0, 1, 0))


def translate_y(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return warp(pixels, (1, 0, 0, 0, 1, -magnitude.trunc()))


def rotate(pixels: Tensor, magnitude: Tensor) -> Tensor:
    """Turns around the centre, counter-clockwise."""
    cos, sin = magnitude.deg2rad().cos(), magnitude.deg2rad().sin()
    return warp(pixels, (cos, -sin, 0, sin, cos, 0))


def blend(pixels: Tensor, other: Tensor | float, magnitude: Tensor) -> Tensor:
    """Moves away from `other` by `magnitude` times the distance, or towards it if negative; -1 arrives."""
    factor = 1 + magnitude
    mixed = factor.float() * pixels + (1 - factor).float() * other
    return mixed.clamp(0, 255).to(torch.uint8)


def brightness(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return blend(pixels, 0, magnitude)


def grey(pixels: Tensor) -> Tensor:
    """uint8 [B, 1, H, W]."""
    red, green, blue = pixels.split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)


def color(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return blend(pixels, grey(pixels), magnitude)


def contrast(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return blend(pixels, grey(pixels).float().mean(dim=(1, 2, 3), keepdim=True), magnitude)


def sharpness(pixels: Tensor, magnitude: Tensor) -> Tensor:
    """Blends with the mean over 3 x 3 pixels in which the middle one counts five times; the border has none."""
    if min(pixels.shape[-2:]) < 3:
        return pixels
    smooth = pixels.float()
    middle = smooth[..., 1:-1, 1:-1]
    # Sums of whole numbers are exact, whatever the device; a convolution in TF32 is not.
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    squares = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    middle.copy_(((squares + 4 * middle) / 13).round())
    return blend(pixels, smooth, magnitude)


def posterize(pixels: Tensor, magnitude: Tensor) -> Tensor:
    """Keeps the upper bits."""
    lower = (8 - magnitude.round()).to(torch.uint8)
    return pixels >> lower << lower


def solarize(pixels: Tensor, magnitude: Tensor) -> Tensor:
    return torch.where(pixels >= magnitude.float(), 255 - pixels, pixels)


def invert(pixels: Tensor, _: Tensor) -> Tensor:
    return 255 - pixels


def autocontrast(pixels: Tensor, _: Tensor) -> Tensor:
    """Stretches each channel to [0, 255]; one of a single value stays."""
    low, high = pixels.amin(dim=(2, 3), keepdim=True).float(), pixels.amax(dim=(2, 3), keepdim=True).float()
    stretched = (pixels - low) * (255 / (high - low))
    return torch.where(high > low, stretched, pixels).to(torch.uint8)


def equalize(pixels: Tensor, _: Tensor) -> Tensor:
    """Makes the values of each channel about equally frequent; a channel with too few below its highest stays."""
    channels = pixels.flatten(0, 1).flatten(1).long()  # [3B, HW]
    values = torch.arange(256, device=pixels.device)
    bins = channels + 256 * torch.arange(len(channels), device=pixels.device).view(-1, 1)
    counts = torch.zeros(256 * len(channels), dtype=torch.long, device=pixels.device)
    counts.scatter_add_(0, bins.flatten(), counts.new_ones(1).expand(bins.numel()))
    counts = counts.view(-1, 256)
    below_highest = channels.shape[1] - counts.gather(1, channels.amax(dim=1, keepdim=True))
    step = below_highest // 255
    table = ((counts.cumsum(dim=1) - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, values).to(torch.uint8)
    return table.take(bins).view_as(pixels)


OPERATIONS: dict[str, Operation] = {
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Rotate": rotate,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "Invert": invert,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
}
