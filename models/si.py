"""SI, synaptic intelligence: weights that lowered the losses of past tasks are held where those tasks left them.

Source: Zenke et al., ICML 2017, arXiv:1703.04200, Eqs. 4 and 5; release: Mammoth. Loss of the batch plus
    c * sum over weights of Omega (w - w*)^2,
w* the weights at the end of the last task. At the end of each, Omega grows by omega / ((w - w*)^2 + xi), where omega
adds g (w before - w after) over all updates of the task, g the gradient of the batch's loss alone.
1. As released, gradients are clipped to [-1, 1] by value before a step, those of the penalty included; omega adds the
   gradient before that. In older versions of the release it added lr times the square of the clipped sum instead.
2. Classes not met yet are masked; Mammoth masks nothing (`--train_mask none`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import MAMMOTH_SPLITS
from models.finetune import Finetune, FinetuneArgs
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo

BEST = "Mammoth, CIFAR-10"


@dataclass(kw_only=True)
class SiArgs(FinetuneArgs):
    lr: float = option(0.03, "learning rate, constant", BEST, low=0, high=100)
    c: float = option(0.5, "weight of the penalty", BEST, low=0)
    xi: float = option(1.0, "added to the squared way of a weight, by which its importance is divided", BEST, low=1e-12)
    optimizer: Literal["adam", "sgd"] = option("sgd", "sgd: plain", "Mammoth")


class Si(Finetune):
    Args = SiArgs
    scenarios = ("class-il", "task-il", "domain-il")
    needs_task_boundaries = True
    published = {
        "*": {"batch_size": 32, "online_iter": 1},
        # Mammoth's recorded best values
        "seq-cifar10": MAMMOTH_SPLITS["seq-cifar10"] | {"lr": 0.03, "c": 0.5, "xi": 1.0, "train_mask": "none"},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: SiArgs):
        super().__init__(backbone, info, args)
        self.importance = [torch.zeros_like(p) for p in self.trained()]  # Omega
        self.path = [torch.zeros_like(p) for p in self.trained()]  # omega
        self.anchor: list[Tensor] = []  # w*, from the first task on

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.masked(self(batch.x), batch), batch.y)

    def observe(self, batch: Batch) -> Tensor:
        with self.autocast():
            loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = self.trained()
        gradients = [p.grad.clone() for p in trained]
        before = [p.detach().clone() for p in trained]
        for p, importance, anchor in zip(trained, self.importance, self.anchor, strict=True):
            p.grad += 2 * self.args.c * importance * (p.detach() - anchor)
        nn.utils.clip_grad_value_(trained, 1)
        self.optimizer.step()
        for path, gradient, first, p in zip(self.path, gradients, before, trained, strict=True):
            path += gradient * (first - p.detach())
        return loss.detach()

    def begin_task(self, session: Session) -> None:
        if not self.anchor:
            self.anchor = [p.detach().clone() for p in self.trained()]

    @torch.no_grad()
    def end_task(self, session: Session) -> None:
        for importance, path, anchor, p in zip(self.importance, self.path, self.anchor, self.trained(), strict=True):
            importance += path / ((p - anchor).square() + self.args.xi)
            anchor.copy_(p)
            path.zero_()

    def extra_state(self) -> dict[str, Any]:
        return {name: [value.clone() for value in getattr(self, name)] for name in ("importance", "path", "anchor")}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        device = self.head.weight.device
        for name in ("importance", "path", "anchor"):
            setattr(self, name, [value.to(device) for value in state[name]])
