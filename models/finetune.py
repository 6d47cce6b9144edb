"""Sequential fine-tuning, the lower bound: every weight follows the stream, nothing is kept and nothing held back.

Source: the lower bound of continual learning since its beginnings (McCloskey and Cohen 1989). Classes not met yet are
masked, as for every method without a mask of its own. All weights of a small network train, whatever `--trainable`
says, here and in the methods of replay that extend this one. With `--optimizer sgd` it is plain SGD, the baseline
"single" of GEM and BCL: on a stream whose tasks are told (`task-il`) the columns of other tasks than a sample's own are
masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import features
from backbone.heads import linear_head
from backbone.products import Stage
from models.base import FEATURES, ContinualModel, ModelArgs, trains_whole
from utils.args import RunArgs, option
from utils.classes import TaskColumns, mask_unseen
from utils.contracts import Batch, Session, StreamInfo


@dataclass(kw_only=True)
class FinetuneArgs(ModelArgs):
    """told: whether the run's stream tells its tasks; no option, `prepare` fills it in."""

    lr: float = option(1e-4, "learning rate, constant", "ours", low=0, high=100)
    trainable: Literal["all", "head"] = option(
        "all",
        "what trains of a ViT: every weight, or the linear head alone; a small network always trains whole",
        "ours",
    )
    optimizer: Literal["adam", "sgd"] = option(
        "adam", "sgd: plain; where tasks are told, on the columns of a sample's own task", "ours"
    )
    told: bool = False


class Finetune(ContinualModel):
    Args = FinetuneArgs
    fixed_suffice = True
    published = {
        "backbone vit_tiny_icons": {"lr": 0.0015, "trainable": "head"},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.0003},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FinetuneArgs):
        super().__init__(backbone, info, args)
        self.trains_whole = trains_whole(backbone, args.trainable)
        backbone.requires_grad_(self.trains_whole)
        self.head = linear_head(backbone.num_features, info.num_classes)
        self.own = TaskColumns(info.num_classes)

    @classmethod
    def prepare(cls, run: RunArgs, args: FinetuneArgs) -> list[Stage]:
        args.told = run.scenario == "task-il"
        return []

    @property
    def needs_task_boundaries(self) -> bool:
        """For the columns of a task; a stream without told tasks says nothing that it uses."""
        return self.args.optimizer == "sgd" and self.args.told

    @property
    def has_fixed_features(self) -> bool:
        return not self.trains_whole

    def fixed_features(self, x: Tensor) -> Tensor:
        """Features of the network, [B, D]."""
        return features(self.backbone, x)

    def shared_as(self, precision: str) -> str:
        return f"{FEATURES} {precision}"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.fixed_features(x) if fixed is None else fixed)

    def loss(self, batch: Batch) -> Tensor:
        logits = self(batch.x).float()
        masked = self.own(logits, batch.y) if self.needs_task_boundaries else mask_unseen(logits, batch.seen)
        return F.cross_entropy(masked, batch.y)

    def begin_task(self, session: Session) -> None:
        self.own.begin(session.index, session.outputs)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        trainable = [p for p in self.parameters() if p.requires_grad]
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.args.optimizer]
        return kind(trainable, lr=self.args.lr)

    def extra_state(self) -> dict[str, Any]:
        return {"owner": self.own.owner.clone()} if self.needs_task_boundaries else {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if self.needs_task_boundaries:
            self.own.owner.copy_(state["owner"])
