"""Sequential fine-tuning, the lower bound: every weight follows the stream, nothing is kept and nothing held back.

Source: the lower bound of continual learning since its beginnings (McCloskey and Cohen 1989). Classes not met yet are
masked, as for every method without a mask of its own. All weights of a small network train, whatever `--trainable`
says, here and in the methods of replay that extend this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from backbone import features
from backbone.heads import linear_head
from models.base import ContinualModel, ModelArgs, trains_whole
from utils.args import option
from utils.classes import mask_unseen
from utils.contracts import Batch, StreamInfo


@dataclass(kw_only=True)
class FinetuneArgs(ModelArgs):
    lr: float = option(1e-4, "learning rate of Adam, constant", "ours", low=0, high=100)
    trainable: Literal["all", "head"] = option(
        "all",
        "what trains of a ViT: every weight, or the linear head alone; a small network always trains whole",
        "ours",
    )


class Finetune(ContinualModel):
    Args = FinetuneArgs
    published = {"seq-glyphs": {"lr": 0.0003}}  # command/choose_glyphs.sh

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FinetuneArgs):
        super().__init__(backbone, info, args)
        self.trains_whole = trains_whole(backbone, args.trainable)
        backbone.requires_grad_(self.trains_whole)
        self.head = linear_head(backbone.num_features, info.num_classes)

    @property
    def has_fixed_features(self) -> bool:
        return not self.trains_whole

    def fixed_features(self, x: Tensor) -> Tensor:
        """Features of the network, [B, D]."""
        return features(self.backbone, x)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.fixed_features(x) if fixed is None else fixed)

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(mask_unseen(self(batch.x).float(), batch.seen), batch.y)
