"""Memories of the older protocols: a ring of samples per task, and the draws from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor


class TaskRings:
    """`slots` places for the samples of each of `tasks` tasks, and one write position that all tasks share.

    A sample is a row of several tensors (input, label ...), of whatever shape and dtype, on the device of the first
    batch. A place is named by its flat index `task x slots + slot`. soft: soft targets beside the samples,
    [tasks x slots, C], once some were set. All draws come from a generator of its own, seeded with `seed`, and from
    `draw` and `choose` alone, so that they can be replaced from outside.
    """

    def __init__(self, tasks: int, slots: int, seed: int):
        self.tasks, self.slots = tasks, slots
        self.generator = Generator().manual_seed(seed)
        self.columns: list[Tensor] = []  # [tasks x slots, ...] each, made at the first batch
        self.soft: Tensor | None = None
        self.filled = torch.zeros(tasks, slots, dtype=torch.bool)  # on the CPU, where places are drawn
        self.position = 0  # of the next write

    def write(self, task: int, *rows: Tensor) -> int:
        """Writes as many rows [B, ...] as fit up to the end of the ring and gives their number; the rest is not stored.
        The next write begins behind them, at the front of the ring once its end was reached."""
        self._allocate(rows)
        stored = min(len(rows[0]), self.slots - self.position)
        first = task * self.slots + self.position
        for column, offered in zip(self.columns, rows, strict=True):
            column[first : first + stored] = offered[:stored]
        self.filled[task, self.position : self.position + stored] = True
        self.position = (self.position + stored) % self.slots
        return stored

    def fill(self, task: int, *rows: Tensor) -> None:
        """Every place of the task holds the first of the rows [B, ...]; the write position stays."""
        self._allocate(rows)
        for column, offered in zip(self.columns, rows, strict=True):
            column[task * self.slots : (task + 1) * self.slots] = offered[:1]
        self.filled[task] = True

    def restart(self) -> None:
        """The next write begins at the front of a ring."""
        self.position = 0

    def holds(self, task: int) -> bool:
        return bool(self.filled[task].any())

    def places(self, first: int, stop: int, empty: bool = False) -> Tensor:
        """Flat indices [N] of the filled places of tasks first ... stop - 1; with `empty`, of all places."""
        if empty:
            return torch.arange(first * self.slots, stop * self.slots)
        return first * self.slots + torch.where(self.filled[first:stop].flatten())[0]

    def draw(self, tasks: int, count: int, empty: bool = False) -> Tensor:
        """Flat indices of `count` filled places of tasks 0 ... tasks - 1, uniform without replacement; fewer where
        there are fewer. With `empty`, of all places."""
        places = self.places(0, tasks, empty)
        return places[torch.randperm(len(places), generator=self.generator)[:count]]

    def choose(self, tasks: int) -> int:
        """One of tasks 0 ... tasks - 1, uniform."""
        return int(torch.randint(tasks, (), generator=self.generator))

    def at(self, index: Tensor) -> tuple[Tensor, ...]:
        """The rows at flat indices [N], which lie on the CPU: input [N, ...], label [N] ..."""
        index = index.to(self.columns[0].device, non_blocking=True)
        return tuple(column[index] for column in self.columns)

    def set_soft(self, index: Tensor, targets: Tensor) -> None:
        """Puts soft targets [N, C] beside the samples at flat indices [N]."""
        if self.soft is None:
            self.soft = targets.new_zeros(self.tasks * self.slots, targets.shape[1])
        self.soft[index.to(targets.device, non_blocking=True)] = targets

    def soft_at(self, index: Tensor) -> Tensor:
        """Soft targets at flat indices [N], [N, C]; zeros where none were set."""
        assert self.soft is not None, "no soft targets were set"
        return self.soft[index.to(self.soft.device, non_blocking=True)]

    def _allocate(self, rows: tuple[Tensor, ...]) -> None:
        if not self.columns:
            self.columns = [offered.new_zeros(self.tasks * self.slots, *offered.shape[1:]) for offered in rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything later draws and contents depend on; of the samples the filled places alone."""
        filled = self.places(0, self.tasks)
        return {
            "columns": [column[filled.to(column.device)] for column in self.columns],
            "soft": None if self.soft is None else self.soft[filled.to(self.soft.device)],
            "filled": self.filled.clone(),
            "position": self.position,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Takes back what `state_dict` gave; the samples go to `device`."""
        self.filled, self.position = state["filled"].cpu().clone(), state["position"]
        self.generator.set_state(state["generator"].cpu())
        filled = self.places(0, self.tasks).to(device)
        self.columns = [self._spread(kept.to(device), filled) for kept in state["columns"]]
        self.soft = None if state["soft"] is None else self._spread(state["soft"].to(device), filled)

    def _spread(self, kept: Tensor, filled: Tensor) -> Tensor:
        column = kept.new_zeros(self.tasks * self.slots, *kept.shape[1:])
        column[filled] = kept
        return column
