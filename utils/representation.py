"""How many units of a representation are active, per image and over images: OML's measures of sparsity.

`statistics` is for whoever has features, `python main.py representation` draws what it finds. Source: Javed and White,
arXiv:1905.12588, section 5.2; by "instance sparsity" it means the share that is active, so that small is sparse.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

RATIO = 4 / 9  # height to width of a map: 2304 units are 32 x 72
FLATTEST = 16  # columns to a row


class Statistics(NamedTuple):
    """instance_sparsity: mean over images of the share of units > 0. lifetimes: share of images in which each unit is
    > 0, [D]. dead: share of units that never are."""

    instance_sparsity: float
    lifetimes: Tensor
    dead: float


def statistics(features: Tensor) -> Statistics:
    """Of features [N, D], one row per image."""
    lifetimes = (features > 0).double().mean(dim=0)
    return Statistics(lifetimes.mean().item(), lifetimes, (lifetimes == 0).double().mean().item())


def map_shape(units: int) -> tuple[int, int]:
    """(rows, columns) of a map of so many units: of all rectangles with no place empty the one nearest to 4:9. If that
    is a line, as of a prime number of units, the last row of another is not full."""
    heights = [rows for rows in range(1, units + 1) if units % rows == 0]
    rows = min(heights, key=lambda rows: abs(rows * rows / units / RATIO - 1))
    if rows * rows * FLATTEST < units:
        rows = round((RATIO * units) ** 0.5)
    return rows, -(-units // rows)
