"""Experience replay of the older protocols: each update adds the loss of samples of earlier tasks, kept in rings.

Source: Chaudhry et al. 2019, arXiv:1902.10486, as the baseline of the BCL release (phquang/bilevel-continual-learning
b3bab95): loss = cross-entropy of the minibatch + that of a draw from earlier tasks, `inner_steps` steps of SGD, one
ring per task whose write position goes on at a border.
1. The released file cannot be imported, and divides its indices to fractions; this is the form that was intended.
2. The memory keeps raw samples, augmented anew; draws are of written places only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.base import ModelArgs, TaskMethod
from utils.args import option
from utils.contracts import Batch, StreamInfo
from utils.rings import TaskRings


@dataclass(kw_only=True)
class ErRingArgs(ModelArgs):
    lr: float = option(0.03, "learning rate of SGD, constant", "BCL: its run on permuted MNIST", low=0, high=100)
    inner_steps: int = option(1, "steps of SGD per minibatch", "BCL", low=1, high=1000)
    n_memories: int = option(256, "samples kept per task", "BCL: its run on permuted MNIST", low=1)
    replay_batch_size: int = option(128, "samples replayed per step, at most", "BCL; its README: 64", low=1)


class ErRing(TaskMethod):
    Args = ErRingArgs
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {"backbone": "mlp-128-128-128"},
        "rot-mnist": {"backbone": "mlp-128-128-128"},
        "seq-cifar100": {"backbone": "resnet18-20-pool", "n_tasks": 20},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ErRingArgs):
        super().__init__(backbone, info, args)
        self.memory = TaskRings(info.num_tasks, args.n_memories, info.seed)

    @classmethod
    def keeps(cls, args: ErRingArgs) -> str:
        return "a memory of images"

    def meet(self, batch: Batch) -> None:
        self.memory.write(self.task, batch.raw, batch.y)

    def loss(self, batch: Batch) -> Tensor:
        loss = self.own_loss(batch.x, batch.y)
        index = self.memory.draw(self.task, min(self.args.n_memories, self.args.replay_batch_size))
        if not len(index):
            return loss
        raw, y = self.memory.at(index)
        return loss + self.own_loss(self.info.augment(raw), y)

    def learn(self, batch: Batch) -> Tensor:
        for _ in range(self.args.inner_steps):
            self.step(loss := self.loss(batch))
        return loss.detach()

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"memory": self.memory.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.memory.load_state_dict(state["memory"], self.own.owner.device)
