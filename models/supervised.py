"""Supervised pretraining: every weight of the backbone and a linear head, plain epochs, AdamW with a cosine schedule.

Makes the backbones that the continual methods start from. Source of the recipe: Steiner et al. 2021, arXiv:2106.10270
(AdamW, linear warm-up, cosine decay), scaled down to the shipped network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import features
from backbone.heads import linear_head
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.classes import mask_unseen
from utils.contracts import Batch, StreamInfo
from utils.files.tensors import write_tensors


@dataclass(kw_only=True)
class SupervisedArgs(ModelArgs):
    lr: float = option(1e-3, "peak learning rate of AdamW", "ours, for vit_tiny_glyphs", low=0, high=100)
    weight_decay: float = option(0.05, "decoupled weight decay of matrices", "arXiv:2106.10270: 0.03 to 0.1", low=0)
    warmup: float = option(0.05, "share of the updates in which the rate rises", "ours", low=0, high=1)
    label_smoothing: float = option(0.1, "mass shared among the other classes", "ours", low=0, high=1)
    save_to: str | None = option(
        None, "file for the trained backbone (.safetensors); none: only the run folder", decides=False
    )


class Supervised(ContinualModel):
    Args = SupervisedArgs
    scenarios = ("shuffled", "class-il")
    published = {
        "*": {"batch_size": 256, "online_iter": 1, "eval_period": -1, "eval_batch_size": 256},
        "glyphs": {"n_epochs": 18, "batch_size": 100},
        "icons": {"n_epochs": 80, "batch_size": 256},
        # mrcl 2855a6b, `pretraining_omniglot.py`, but for the schedule
        "omniglot": {"n_epochs": 45, "lr": 1e-4, "weight_decay": 0, "label_smoothing": 0},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: SupervisedArgs):
        super().__init__(backbone, info, args)
        self.backbone.requires_grad_(True)
        self.head = linear_head(backbone.num_features, info.num_classes)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(features(self.backbone, x))

    def loss(self, batch: Batch) -> Tensor:
        return self.loss_of(self(batch.x), batch)

    def loss_of(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of logits [B, C]."""
        if batch.seen < self.info.num_classes:  # class-incremental: label smoothing would put mass on masked classes
            return F.cross_entropy(mask_unseen(logits, batch.seen), batch.y)
        return F.cross_entropy(logits, batch.y, label_smoothing=self.args.label_smoothing)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.args.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.args.lr)
        rise = max(1, round(self.args.warmup * self.info.num_updates))

        def rate(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.info.num_updates - rise)))

        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return optimizer

    def end_stream(self) -> None:
        if self.args.save_to:
            write_tensors(Path(self.args.save_to), self.backbone.state_dict())
