"""FTML: follows the meta-leader online, interpolating towards weights that fit the batch, then towards past tasks.

Source: Finn et al. 2019, arXiv:1902.08438, in the first-order form of the BCL release (phquang/bilevel-continual-
learning b3bab95). A minibatch enters its task's ring, and `inner_steps` steps of SGD on it are followed by
theta <- theta0 + beta (theta - theta0); then, `n_meta` times, the same on the whole memory of a task drawn from those
met. With `--adapt` the predictions for a told task come from a copy that took `inner_steps` steps on its memory.
1. The release replays inputs as they first came; memories here hold raw samples, augmented anew in training, plain in
   adaptation, which is the same where training augments nothing (`--inputs plain`).
2. As in the release the loss of adaptation is over all columns, those of other tasks included.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import features
from models.base import FeatureArgs, RingMethod
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.rings import TaskRings


@dataclass(kw_only=True)
class FtmlArgs(FeatureArgs):
    lr: float = option(0.03, "learning rate of SGD, constant", "BCL: its run on permuted MNIST", low=0, high=100)
    beta: float = option(0.3, "share of the way that an interpolation goes", "BCL", low=0, high=1)
    inner_steps: int = option(1, "steps of SGD before an interpolation", "BCL", low=1, high=1000)
    n_meta: int = option(2, "interpolations per minibatch", "BCL: its run on permuted MNIST", low=1, high=1000)
    n_memories: int = option(256, "samples kept per task", "BCL: its run on permuted MNIST", low=1)
    adapt: bool = option(False, "predict for a told task with a copy that was adapted to its memory", "BCL")
    adapt_lr: float = option(0.1, "learning rate of the adaptation", "BCL", low=0, high=100, where={"adapt": (True,)})


class Ftml(RingMethod):
    Args = FtmlArgs
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {"backbone": "mlp-128-128-128"},
        "rot-mnist": {"backbone": "mlp-128-128-128"},
        "seq-cifar100": {"backbone": "resnet18-20-pool", "n_tasks": 20},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FtmlArgs):
        super().__init__(backbone, info, args)
        self._copies: dict[int, nn.ModuleList] = {}  # adapted to a task, since the last update; of no checkpoint

    def observe(self, batch: Batch) -> Tensor | None:
        self._copies.clear()
        return super().observe(batch)

    def learn(self, batch: Batch) -> Tensor:
        args, memory = self.args, self.memory
        start = self.weights()
        for _ in range(args.inner_steps):
            self.step(loss := self.loss(batch))
        self.interpolate(start)
        for _ in range(args.n_meta):
            task = memory.choose(self.task + 1)
            if not memory.holds(task):  # a task without samples
                continue
            start = self.weights()
            x, y = self.replay(memory, memory.places(task, task + 1))
            for _ in range(args.inner_steps):
                self.step(loss := self.own_loss(x, y))
            self.interpolate(start)
        return loss.detach()

    def replay(self, memory: TaskRings, index: Tensor) -> tuple[Tensor, Tensor]:
        """Training inputs [N, ...] and slots [N] of the samples at flat indices [N] of a memory."""
        raw, y = memory.at(index)
        return self.info.augment(raw), y

    def moving(self) -> list[Tensor]:
        """All that `interpolate` moves: parameters that train, and buffers of floating point; counters stay out."""
        values = [value for value in self.state_dict(keep_vars=True).values() if value.is_floating_point()]
        return [value for value in values if value.requires_grad or not isinstance(value, nn.Parameter)]

    @torch.no_grad()
    def weights(self) -> list[Tensor]:
        """A copy of it."""
        return [value.clone() for value in self.moving()]

    @torch.no_grad()
    def interpolate(self, start: list[Tensor]) -> None:
        """theta <- theta0 + beta (theta - theta0), theta0 = start."""
        for value, first in zip(self.moving(), start, strict=True):
            value.copy_(first + self.args.beta * (value - first))

    def begin_task(self, session: Session) -> None:
        super().begin_task(session)
        self._copies.clear()
        self.memory.restart()

    @property
    def is_told(self) -> bool:
        return self.args.adapt

    def given(self, x: Tensor, task: int) -> Tensor:
        """With `--adapt`, for a task that was met, the logits of the copy that was adapted to it."""
        if not self.args.adapt or task > self.task or not self.memory.holds(task):
            return self(x)
        if task not in self._copies:
            self._copies[task] = self.adapted(task)
        backbone, head = self._copies[task]
        return head(features(backbone, x))

    @torch.enable_grad()
    def adapted(self, task: int) -> nn.ModuleList:
        """Backbone and head after `inner_steps` full-batch steps on the memory of a task, in evaluation mode."""
        backbone, head = network = copy.deepcopy(nn.ModuleList([self.backbone, self.head])).eval()
        raw, y = self.memory.at(self.memory.places(task, task + 1))
        x, optimizer = self.info.plain(raw), torch.optim.SGD(network.parameters(), lr=self.args.adapt_lr)
        for _ in range(self.args.inner_steps):
            loss = F.cross_entropy(head(features(backbone, x)).float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return network.requires_grad_(False)

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self._copies.clear()
