"""Reservoir memory: a uniform sample of the stream seen so far, and the replay batches drawn from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor


class ReservoirBuffer:
    """Keeps up to `size` images (uint8 [C, H, W]) with their slots and whatever else a method stores beside them.

    exact: decide image by image whether the memory is full (Vitter's algorithm R). Otherwise, as in the Si-Blurry and
    MISA releases, once per batch: when the memory fills up inside a batch, each row left over replaces the last slot.
    All draws come from a generator of its own, seeded with `seed`.
    """

    def __init__(self, size: int, seed: int, exact: bool = False):
        self.size, self.exact = size, exact
        self.generator = Generator().manual_seed(seed)
        self.seen = 0  # images offered so far
        self.columns: list[Tensor] = []  # images, slots and further ones, [size, ...] each, made at the first batch
        self.stored = 0
        self._order = torch.empty(0, dtype=torch.int64)  # replay positions drawn but not used yet

    def __len__(self) -> int:
        return self.stored

    @property
    def images(self) -> Tensor:
        """[size, C, H, W], of which the first `len(self)` are filled."""
        return self.columns[0]

    @property
    def slots(self) -> Tensor:
        """[size]"""
        return self.columns[1]

    def sample(self, count: int) -> tuple[Tensor, ...]:
        """`count` stored images, their slots, and what else was stored with them.

        Goes through random permutations of the memory, `min(count, len)` positions of each, so that repeats occur only
        when the memory holds fewer than `count` images.
        """
        position = self.draw_positions(count).to(self.images.device, non_blocking=True)
        return tuple(column[position] for column in self.columns)

    def draw_positions(self, count: int) -> Tensor:
        """Memory positions [count] of the next replay batch."""
        while len(self._order) < count:
            permutation = torch.randperm(self.stored, generator=self.generator)
            self._order = torch.cat((self._order, permutation[:count]))
        position, self._order = self._order[:count], self._order[count:]
        return position

    def add(self, images: Tensor, slots: Tensor, *others: Tensor) -> None:
        """Offers a batch in row order: images [B, C, H, W], slots [B], others [B, ...] (as many at every call)."""
        self._order = self._order[:0]
        if self.size == 0:
            self.seen += len(slots)
            return
        rows_of = (images, slots, *others)
        if not self.columns:
            self.columns = [rows.new_zeros(self.size, *rows.shape[1:]) for rows in rows_of]
        target = self._targets(len(slots))
        self.seen += len(slots)
        # Of several rows that want one position the last wins; a plain indexed write would leave that open.
        rows = torch.arange(len(target))
        writer = torch.full((self.size + 1,), -1).scatter_reduce(0, target, rows, "amax")[: self.size]
        position = torch.where(writer >= 0)[0].to(images.device, non_blocking=True)
        row = writer[writer >= 0].to(images.device, non_blocking=True)
        for column, offered in zip(self.columns, rows_of, strict=True):
            column[position] = offered[row]

    def share_out(self, share: int, column: int, *rows_of: Tensor) -> None:
        """Keeps the first `share` rows of each value in a column, and behind them these, `size` at most in all: images
        [N, C, H, W], slots [N], others [N, ...]."""
        if self.stored:
            owner = self.columns[column][: self.stored]
            first = torch.cat([torch.where(owner == value)[0][:share] for value in owner.unique()])
            rows_of = tuple(torch.cat((kept[first], new)) for kept, new in zip(self.columns, rows_of, strict=True))
        self.columns, self.stored, self.seen = [], 0, 0
        self.add(*rows_of)

    def _targets(self, count: int) -> Tensor:
        """Position that each of the next `count` rows takes [count]; `size` means that the row is not kept."""
        rows = torch.arange(count)
        free = self.size - self.stored
        self.stored = min(self.size, self.stored + count)
        if free > 0 and not self.exact:
            return (self.size - free + rows).clamp(max=self.size - 1)
        target = self.draw_targets(count)
        return torch.where(rows < free, self.size - free + rows, target).clamp(max=self.size)

    def draw_targets(self, count: int) -> Tensor:
        """For each of the next `count` rows an integer [count], uniform below the number of images seen with it."""
        seen = self.seen + 1 + torch.arange(count)
        return (torch.rand(count, dtype=torch.float64, generator=self.generator) * seen).long()

    def state_dict(self) -> dict[str, Any]:
        """Everything later draws and contents depend on."""
        return {
            "columns": [column[: self.stored].clone() for column in self.columns],
            "seen": self.seen,
            "stored": self.stored,
            "generator": self.generator.get_state(),
            "order": self._order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.stored, self._order = state["seen"], state["stored"], state["order"]
        self.generator.set_state(state["generator"])
        self.columns = []
        for filled in state["columns"]:
            column = filled.new_zeros(self.size, *filled.shape[1:])
            column[: self.stored] = filled
            self.columns.append(column)
