"""Sequential fine-tuning, the lower bound: every weight follows the stream, nothing is kept and nothing held back.

Source: the lower bound of continual learning since its beginnings (McCloskey and Cohen 1989). Classes not met yet are
masked, as for every method without a mask of its own, or none is (`--train_mask none`). That tasks are told (`task-il`)
changes what is asked at test time, and nothing in training, here and in the methods that extend this one; except that
with `--optimizer sgd`, plain SGD, this is the baseline "single" of GEM and BCL, and `seen` masks the columns of other
tasks than a sample's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.heads import linear_head
from backbone.products import Stage
from models.base import FeatureArgs, FeatureMethod
from utils.args import RunArgs, option
from utils.classes import TaskColumns, mask_for_training
from utils.contracts import Batch, Session, StreamInfo

TRAIN_MASK = "classes that compete in the training loss: those met so far, or all"


@dataclass(kw_only=True)
class FinetuneArgs(FeatureArgs):
    """told: whether the run's stream tells its tasks; no option, `prepare` fills it in."""

    lr: float = option(1e-4, "learning rate, constant", "ours", low=0, high=100)
    optimizer: Literal["adam", "sgd"] = option(
        "adam", "sgd: plain; where tasks are told, on the columns of a sample's own task", "ours"
    )
    train_mask: Literal["seen", "none"] = option("seen", TRAIN_MASK, "Si-Blurry; Mammoth: none, of lwf seen")
    told: bool = False


class Finetune(FeatureMethod):
    Args = FinetuneArgs
    published = {
        "backbone vit_tiny_icons": {"lr": 0.0015, "trainable": "head"},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.0003},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FinetuneArgs):
        super().__init__(backbone, info, args)
        self.head = linear_head(backbone.num_features, info.num_classes)
        self.own = TaskColumns(info.num_classes)

    @classmethod
    def prepare(cls, run: RunArgs, args: FinetuneArgs) -> list[Stage]:
        args.told = run.scenario == "task-il"
        return super().prepare(run, args)

    @property
    def needs_task_boundaries(self) -> bool:
        """For the columns of a task; a stream without told tasks says nothing that it uses."""
        return self.args.optimizer == "sgd" and self.args.told and self.args.train_mask == "seen"

    def masked(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits [N, C] in float32, with -inf for the classes that do not compete in training (`--train_mask`)."""
        return mask_for_training(logits, batch.y, batch.seen, self.args.train_mask)

    def loss(self, batch: Batch) -> Tensor:
        logits = self(batch.x)
        masked = self.own(logits, batch.y) if self.needs_task_boundaries else self.masked(logits, batch)
        return F.cross_entropy(masked, batch.y)

    def begin_task(self, session: Session) -> None:
        self.own.begin(session.index, session.outputs)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.args.optimizer]
        return kind(self.trained(), lr=self.args.lr)

    def extra_state(self) -> dict[str, Any]:
        return {"owner": self.own.owner.clone()} if self.needs_task_boundaries else {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if self.needs_task_boundaries:
            self.own.owner.copy_(state["owner"])
