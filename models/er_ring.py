"""Experience replay of the older protocols: each update adds the loss of samples of earlier tasks, kept in rings.

Source: Chaudhry et al. 2019, arXiv:1902.10486, as the baseline of the BCL release (phquang/bilevel-continual-learning
b3bab95): loss = cross-entropy of the minibatch + that of a draw from earlier tasks, `inner_steps` steps of SGD, one
ring per task whose write position goes on at a border.
1. The released file cannot be imported, and divides its indices to fractions; this is the form that was intended.
2. The memory keeps raw samples, augmented anew; draws are of written places only.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.base import FeatureArgs, RingMethod
from utils.args import option
from utils.contracts import Batch


@dataclass(kw_only=True)
class ErRingArgs(FeatureArgs):
    lr: float = option(0.03, "learning rate of SGD, constant", "BCL: its run on permuted MNIST", low=0, high=100)
    inner_steps: int = option(1, "steps of SGD per minibatch", "BCL", low=1, high=1000)
    n_memories: int = option(256, "samples kept per task", "BCL: its run on permuted MNIST", low=1)
    replay_batch_size: int = option(128, "samples replayed per step, at most", "BCL; its README: 64", low=1)


class ErRing(RingMethod):
    Args = ErRingArgs
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {"backbone": "mlp-128-128-128"},
        "rot-mnist": {"backbone": "mlp-128-128-128"},
        "seq-cifar100": {"backbone": "resnet18-20-pool", "n_tasks": 20},
    }

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
