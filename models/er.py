"""Experience replay (ER): every update joins the stream batch with images from a reservoir memory.

Source: Chaudhry et al. 2019, arXiv:1902.10486, in the Si-Blurry form of `er_baseline` (kangzhiq/MISA 3308d67,
moonjunyyy/Si-Blurry c4024ce). Departures from the released code:
1. The memory holds images, not dataset indices: a stream cannot be read again.
2. Half of the release's batch of 64 is new (32), the other half replayed; here both sizes are options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import TRAINABLE
from models.finetune import Finetune, FinetuneArgs
from utils.args import option
from utils.buffer import ReservoirBuffer
from utils.contracts import Batch, StreamInfo


@dataclass(kw_only=True)
class ErArgs(FinetuneArgs):
    lr: float = option(0.005, "learning rate, constant", "Si-Blurry and MISA scripts", low=0, high=100)
    memory_size: int = option(2000, "images kept", "Si-Blurry ER scripts; MISA's default: 500", low=0)
    replay_size: int = option(32, "images replayed per update", "half of the scripts' batch of 64", low=1, high=10_000)
    trainable: Literal["all", "last", "head"] = option("head", TRAINABLE, "Si-Blurry and MISA")
    optimizer: Literal["adam", "sgd", "plain"] = option(
        "adam",
        "sgd: momentum 0.9, Nesterov, weight decay 1e-4; plain: SGD with none of these",
        "Si-Blurry and MISA; Mammoth: plain",
    )
    exact_reservoir: bool = option(
        False, "decide per image, not per batch, whether the memory is full", "Si-Blurry and MISA: off"
    )


class Er(Finetune):
    Args = ErArgs
    needs_task_boundaries = False  # no optimiser makes its samples compete within their own tasks
    published = {
        "*": {"batch_size": 32},
        "backbone vit_tiny_icons": {"lr": 0.005, "trainable": "head"},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.005, "trainable": "head"},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ErArgs):
        super().__init__(backbone, info, args)
        self.buffer = ReservoirBuffer(args.memory_size, info.seed, args.exact_reservoir)

    @classmethod
    def keeps(cls, args: ErArgs) -> str:
        return "a memory of images"

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch.x, batch.y
        if len(self.buffer):
            images, slots = self.buffer.sample(self.args.replay_size)
            x, y = torch.cat((x, self.info.augment(images))), torch.cat((y, slots))
        return F.cross_entropy(self.masked(self(x), batch), y)

    def end_batch(self, batch: Batch) -> None:
        self.buffer.add(batch.raw, batch.y)  # once per image, however many updates it gave

    def configure_optimizer(self) -> torch.optim.Optimizer:
        if self.args.optimizer == "adam":
            return super().configure_optimizer()
        if self.args.optimizer == "plain":
            return torch.optim.SGD(self.trained(), lr=self.args.lr)
        return torch.optim.SGD(self.trained(), lr=self.args.lr, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def extra_state(self) -> dict[str, Any]:
        return self.buffer.state_dict()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.buffer.load_state_dict(state)
