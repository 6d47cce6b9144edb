"""LwF, learning without forgetting: on new images the network keeps giving past classes what it gave before the task.

Source: Li and Hoiem, ECCV 2016, arXiv:1606.09282, Eqs. 1 to 4, as one classifier for all tasks; release: Mammoth. From
the second task on, the loss of the batch plus
    alpha * mean over images of -sum over past classes of p log q,
p and q the softmax of the logits over the classes of past tasks at temperature `softmax_temp`, p of the network as the
task began, q as it is.
1. p is computed from the augmented images of the batch, not once from every image of a task before it begins.
2. No warm-up, in which the new rows of the classifier are trained alone before the task: it would need the images of
   the task before they come, in as many passes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import MAMMOTH_SPLITS, logits_then, weights_now
from models.finetune import Finetune, FinetuneArgs
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo


@dataclass(kw_only=True)
class LwfArgs(FinetuneArgs):
    lr: float = option(0.01, "learning rate, constant", "Mammoth, CIFAR-10", low=0, high=100)
    alpha: float = option(0.5, "weight of the distillation", "Mammoth; CIFAR-10: 3", low=0)
    softmax_temp: float = option(2.0, "temperature of the distillation", "LwF and Mammoth", low=1e-3)
    optim_wd: float = option(0.0, "weight decay", "Mammoth; CIFAR-10: 5e-4", low=0)
    optimizer: Literal["adam", "sgd"] = option("sgd", "sgd: plain", "Mammoth")


class Lwf(Finetune):
    Args = LwfArgs
    scenarios = ("class-il", "task-il")
    needs_task_boundaries = True
    published = {
        "*": {"batch_size": 32, "online_iter": 1},
        # Mammoth's recorded best values
        "seq-cifar10": MAMMOTH_SPLITS["seq-cifar10"] | {"lr": 0.01, "alpha": 3.0, "optim_wd": 5e-4},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: LwfArgs):
        super().__init__(backbone, info, args)
        self.past = 0  # classes of tasks that are over
        self.old: dict[str, Tensor] = {}  # weights as the task began, from the second one on

    def loss(self, batch: Batch) -> Tensor:
        logits = self(batch.x).float()
        loss = F.cross_entropy(self.masked(logits, batch), batch.y)
        if not self.old:
            return loss
        before = logits_then(self, self.old, batch.x)
        p, q = (z[:, : self.past] / self.args.softmax_temp for z in (before, logits))
        return loss - self.args.alpha * (p.softmax(dim=1) * q.log_softmax(dim=1)).sum(dim=1).mean()

    def begin_task(self, session: Session) -> None:
        assert session.outputs is not None  # tasks have classes of their own on these streams
        self.past = session.outputs.start
        if self.past > 0:
            self.old = weights_now(self)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        optimizer = super().configure_optimizer()
        for group in optimizer.param_groups:
            group["weight_decay"] = self.args.optim_wd
        return optimizer

    def extra_state(self) -> dict[str, Any]:
        return {"past": self.past, "old": dict(self.old)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.past = state["past"]
        self.old = {name: value.to(self.head.weight.device) for name, value in state["old"].items()}
