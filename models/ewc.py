"""EWC: elastic weight consolidation, a quadratic penalty per past task on the weights that mattered for it.

Source: Kirkpatrick et al. 2017, arXiv:1612.00796, as the baseline of GEM (facebookresearch/GradientEpisodicMemory
34c6b8e) and BCL (phquang/bilevel-continual-learning b3bab95):
    loss = CE + memory_strength * sum over past tasks and weights of F (p - p*)^2.
1. As released, F is the square of one gradient, that of the mean loss of the first `n_memories` samples of the task,
   not a mean of squares; there is no factor 1/2; both are taken when the next task begins.
2. The samples are kept raw and pass the test transform there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.base import FeatureArgs, TaskMethod
from utils.args import option
from utils.contracts import Batch, Session

GEM = "GEM: its run on permuted MNIST"


@dataclass(kw_only=True)
class EwcArgs(FeatureArgs):
    lr: float = option(0.1, "learning rate of SGD, constant", GEM, low=0, high=100)
    n_memories: int = option(10, "samples of a task that say which weights mattered", f"{GEM}; rotated: 1000", low=1)
    memory_strength: float = option(3.0, "weight of the penalties", f"{GEM}; rotated: 1000", low=0)


class Ewc(TaskMethod):
    Args = EwcArgs
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {"backbone": "mlp-100-100"},
        "rot-mnist": {"backbone": "mlp-100-100", "lr": 0.01, "n_memories": 1000, "memory_strength": 1000.0},
        "seq-cifar100": {
            "backbone": "resnet18-20",
            "n_tasks": 20,
            "lr": 1.0,
            "n_memories": 10,
            "memory_strength": 1.0,
        },
    }
    kept: list[Tensor] = []  # raw samples and slots of the task at hand, its first ones
    past: list[list[list[Tensor]]] = []  # per past task F and p*, each a tensor for each parameter

    @classmethod
    def keeps(cls, args: EwcArgs) -> str:
        return "weights per task"

    def meet(self, batch: Batch) -> None:
        offered = [batch.raw, batch.y]
        if self.kept:
            offered = [torch.cat(pair) for pair in zip(self.kept, offered, strict=True)]
        self.kept = [rows[: self.args.n_memories] for rows in offered]

    def loss(self, batch: Batch) -> Tensor:
        loss, parameters = self.own_loss(batch.x, batch.y), self.trained()
        for fisher, weights in self.past:
            terms = zip(fisher, parameters, weights, strict=True)
            loss = loss + self.args.memory_strength * sum((f * (p - w).square()).sum() for f, p, w in terms)
        return loss

    def begin_task(self, session: Session) -> None:
        if self.kept:
            raw, y = self.kept
            parameters = self.trained()
            gradients = torch.autograd.grad(self.own_loss(self.info.plain(raw), y), parameters)
            fisher = [gradient.square() for gradient in gradients]
            self.past = [*self.past, [fisher, [p.detach().clone() for p in parameters]]]
            self.kept = []
        super().begin_task(session)

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"kept": self.kept, "past": self.past}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        device = self.own.owner.device
        self.kept = [rows.to(device) for rows in state["kept"]]
        self.past = [[[tensor.to(device) for tensor in part] for part in task] for task in state["past"]]
