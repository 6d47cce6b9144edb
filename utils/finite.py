"""A gate in front of what a method keeps for good, so that numbers that are not finite do not enter it unseen."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FiniteRows(nn.Module):
    """Says which rows of a batch may enter a sum or a memory, and counts those that are not finite in `lost`.

    All may, unless `leave_out`, for the loop ends a run whose count is not 0; with it, which the loop sets for
    `--on_nan skip`, the finite ones alone. Looking at them then waits for the device.
    """

    lost: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lost", torch.zeros((), dtype=torch.int64), persistent=False)
        self.leave_out = False

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor | slice:
        """For rows [B, ...] an index of those that may enter. Finite means that the sum of their squares is."""
        finite = rows.flatten(1).float().square().sum(dim=1).isfinite()
        self.lost += (~finite).sum()
        return finite if self.leave_out else slice(None)
