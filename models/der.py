"""DER, dark experience replay: replay with the logits that the network gave when an image was stored, without labels.

Source: Buzzega et al., NeurIPS 2020, arXiv:2004.07211, Eq. 5; release: Mammoth. It is `derpp` without its second draw;
what that departs in holds here, too. Mammoth masks nothing (`--train_mask none`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import MAMMOTH_SPLITS
from models.derpp import Derpp, DerppArgs
from utils.args import option
from utils.contracts import Batch


@dataclass(kw_only=True)
class DerArgs(DerppArgs):
    alpha: float = option(
        0.3, "weight of the mean squared distance to the stored logits", "Mammoth, CIFAR; Tiny ImageNet: 0.1", low=0
    )
    beta: float = 0.0  # no labels: no option of this method


OWN = {"lr": 0.03, "optimizer": "plain", "train_mask": "none", "memory_size": 500}  # Mammoth's recorded best values


class Der(Derpp):
    Args = DerArgs
    scenarios = ("class-il", "task-il", "domain-il", "si-blurry")
    published = {
        "*": {"batch_size": 32, "online_iter": 1},
        "seq-cifar10": MAMMOTH_SPLITS["seq-cifar10"] | OWN | {"alpha": 0.3},
        "seq-cifar100": MAMMOTH_SPLITS["seq-cifar100"] | OWN | {"alpha": 0.3},
        "seq-tinyimg": MAMMOTH_SPLITS["seq-tinyimg"] | OWN | {"alpha": 0.1},
    }

    def loss(self, batch: Batch) -> Tensor:
        """L = CE(h(x), y) + alpha * mean (h(x') - z')^2, the mean over images and classes."""
        if not len(self.buffer):
            return super().loss(batch)
        count, size = len(batch.y), self.args.replay_size
        images, _, stored = self.buffer.sample(size)
        new, old = self(torch.cat((batch.x, self.info.augment(images)))).float().split((count, size))
        self.latest = new.detach()
        return F.cross_entropy(self.masked(new, batch), batch.y) + self.args.alpha * F.mse_loss(old, stored)
