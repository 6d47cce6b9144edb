"""DER++: replay with the labels, and with the logits that the network gave when an image was stored.

Source: Buzzega et al., NeurIPS 2020, arXiv:2004.07211, Eq. 6. Memory, sizes and optimiser are those of `er`.
Departures from the paper, as `er` in this setting: classes not met yet are masked in both cross-entropies; an image is
stored once, after all updates of its batch, with the logits of the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.er import Er, ErArgs
from utils.args import option
from utils.classes import mask_unseen
from utils.contracts import Batch, StreamInfo


@dataclass(kw_only=True)
class DerppArgs(ErArgs):
    alpha: float = option(0.1, "weight of the distance to the stored logits", "Mammoth, CIFAR-100 at 500", low=0)
    beta: float = option(0.5, "weight of the cross-entropy on stored labels", "Mammoth, CIFAR-100 at 500", low=0)


class Derpp(Er):
    Args = DerppArgs

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: DerppArgs):
        super().__init__(backbone, info, args)
        self.latest: Tensor | None = None  # logits of the batch in its last update, [B, C]

    def loss(self, batch: Batch) -> Tensor:
        """L = CE(h(x), y) + alpha * ||h(x') - z'||^2 + beta * CE(h(x''), y'')."""
        x, count, size = batch.x, len(batch.y), self.args.replay_size
        if not len(self.buffer):
            self.latest = self(x).float()
            return F.cross_entropy(mask_unseen(self.latest, batch.seen), batch.y)
        images1, _, z1 = self.buffer.sample(size)
        images2, y2, _ = self.buffer.sample(size)
        logits = self(torch.cat((x, self.info.augment(images1), self.info.augment(images2)))).float()
        self.latest, logits1, logits2 = logits.split((count, size, size))
        loss = F.cross_entropy(mask_unseen(self.latest, batch.seen), batch.y)
        loss = loss + self.args.alpha * F.mse_loss(logits1, z1)
        return loss + self.args.beta * F.cross_entropy(mask_unseen(logits2, batch.seen), y2)

    def end_batch(self, batch: Batch) -> None:
        self.buffer.add(batch.raw, batch.y, self.latest.detach())
