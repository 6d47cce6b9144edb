"""DER++: replay with the labels, and with the logits that the network gave when an image was stored.

Source: Buzzega et al., NeurIPS 2020, arXiv:2004.07211, Eq. 6. Memory, sizes and optimiser are those of `er`.
Departures from the paper:
1. As in the released code (Mammoth), whose `alpha` goes with it, the distance to the stored logits is the mean of the
   squared differences over images and classes; Eq. 6 has their squared norm, which is C times as much for each image.
2. As `er` in this setting: classes not met yet are masked in both cross-entropies, not in the paper (`--train_mask
   none`); an image is stored once, after all updates of its batch, with the logits of the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.er import Er, ErArgs
from utils.args import option
from utils.contracts import Batch, StreamInfo
from utils.finite import FiniteRows


@dataclass(kw_only=True)
class DerppArgs(ErArgs):
    alpha: float = option(
        0.1, "weight of the mean squared distance to the stored logits", "Mammoth, CIFAR-100; MISA: 0.2", low=0
    )
    beta: float = option(0.5, "weight of the cross-entropy on stored labels", "Mammoth, CIFAR-100; MISA", low=0)


class Derpp(Er):
    Args = DerppArgs

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: DerppArgs):
        super().__init__(backbone, info, args)
        self.latest: Tensor | None = None  # logits of the batch in its last update, [B, C]
        self.finite = FiniteRows()

    def loss(self, batch: Batch) -> Tensor:
        """L = CE(h(x), y) + alpha * mean (h(x') - z')^2 + beta * CE(h(x''), y''), the mean over images and classes."""
        x, count, size = batch.x, len(batch.y), self.args.replay_size
        if not len(self.buffer):
            logits = self(x).float()
            self.latest = logits.detach()
            return F.cross_entropy(self.masked(logits, batch), batch.y)
        images1, _, z1 = self.buffer.sample(size)
        images2, y2, _ = self.buffer.sample(size)
        logits = self(torch.cat((x, self.info.augment(images1), self.info.augment(images2)))).float()
        new, logits1, logits2 = logits.split((count, size, size))
        self.latest = new.detach()
        loss = F.cross_entropy(self.masked(new, batch), batch.y)
        loss = loss + self.args.alpha * F.mse_loss(logits1, z1)
        return loss + self.args.beta * F.cross_entropy(self.masked(logits2, batch), y2)

    def end_batch(self, batch: Batch) -> None:
        if self.latest is None:  # every update of the batch was left out (`--on_nan skip`)
            return
        kept = self.finite(self.latest)
        self.buffer.add(batch.raw[kept], batch.y[kept], self.latest[kept])
        self.latest = None

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"latest": self.latest}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.latest = state.get("latest")
