"""MePo stage 1, meta post-refinement: Reptile over pseudo task sequences drawn from pretraining data.

Source: Sun et al., MePo, arXiv:2602.07940, and the released script (SunGL001/MePo, 55912a4). Writes the refined
backbone after every meta epoch. The options have the authors' names; what they mean is in the help texts.
As the released code does, and the published numbers rest on:
1. Logits of classes outside the group are multiplied by 0, not masked with -inf: they stay in the softmax.
2. The joint pass over the group ("meta test") is a training step like the others.
3. The momentum of SGD survives the meta update. Departure: pseudo tasks are drawn from independent seeds per epoch,
   where the release reseeds with a number in 0 ... 99 and so repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import need_vit
from backbone.vit import embed, encode
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.files.tensors import write_tensors

SCRIPTS = "MePo scripts"


@dataclass(kw_only=True)
class MepoMetaArgs(ModelArgs):
    meta_epochs: int = option(
        5, "passes over all groups of classes", "scripts: 50, of which 5 (Sup-21K) are used", low=1, high=1000
    )
    group_size: int = option(100, "classes of a group, the unit of one meta update", SCRIPTS, low=2)
    num_tasks: int = option(50, "pseudo tasks that share the classes of a group", SCRIPTS, low=1)
    samples: int = option(200, "images per class in a pseudo task and in the joint pass", SCRIPTS, low=1)
    num_inner_steps: int = option(1, "repetitions of a group whose ends are averaged (R)", SCRIPTS, low=1, high=100)
    inner_lr: float = option(0.1, "Reptile rate alpha of the meta update", SCRIPTS, low=0, high=1)
    lr: float = option(1e-4, "learning rate of the backbone, SGD with momentum 0.9", SCRIPTS, low=0, high=100)
    lr_head: float = option(0.01, "learning rate of the head", SCRIPTS, low=0, high=100)
    save_to: str | None = option(
        None, "folder for the backbones meta_epoch_<e>.safetensors; none: only the run folder", decides=False
    )


class MepoMeta(ContinualModel):
    Args = MepoMetaArgs
    scenarios = ("episodes",)
    needs_task_boundaries = True
    evaluated = False
    published = {
        "*": {"batch_size": 256, "online_iter": 1, "eval_period": -1},
        "imagenet": {"samples": 200},
        "backbone ibot21k": {"meta_epochs": 30},  # the epoch that the MePo scripts use downstream
        "backbone sup21k_1k": {"meta_epochs": 2},
        # In proportion to the shipped network, 100,000 image passes; the rest by command/choose_stages_glyphs.sh. With
        # 20 images per class, pseudo tasks of two classes draw all features together (spread -2 to -4 %); of ten not.
        "glyphs": {"samples": 20, "meta_epochs": 1, "num_tasks": 10, "lr": 0.001},
        # By command/meta_gain.sh, where all steps that leave the features apart give the same within a point; 49,590
        # image passes.
        "icons": {"samples": 10, "meta_epochs": 1, "num_tasks": 10, "lr": 0.001, "inner_lr": 0.5},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MepoMetaArgs):
        need_vit(backbone)
        super().__init__(backbone, info, args)
        backbone.requires_grad_(True)
        width = backbone.num_features
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, info.num_classes))
        self.register_buffer("group", torch.zeros(info.num_classes), persistent=False)  # 1 for classes of the group
        self.groups_per_epoch = info.num_classes // min(args.group_size, info.num_classes)
        self.groups = 0  # meta updates done
        self.repetition = 0  # r of R inside the group
        self.start: dict[str, Tensor] = {}  # w0, weights at the start of the group
        self.moved: dict[str, Tensor] = {}  # sum over r of (w_r - w0)

    @classmethod
    def product(cls, args: MepoMetaArgs) -> str:
        return f"meta_epoch_{args.meta_epochs}.safetensors"

    @classmethod
    def stream_options(cls, args: MepoMetaArgs) -> dict[str, Any]:
        return {
            "meta_epochs": args.meta_epochs,
            "group_size": args.group_size,
            "num_pseudo_tasks": args.num_tasks,
            "samples": args.samples,
            "repetitions": args.num_inner_steps,
        }

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(encode(self.backbone, embed(self.backbone, x)))

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self(batch.x).float() * self.group, batch.y)

    def begin_task(self, session: Session) -> None:
        """Start of a repetition; at the first one w0 is kept."""
        self.group.zero_()
        self.group[session.classes] = 1
        if self.groups == self.repetition == 0:
            self._save(0)  # the untouched backbone, as the released script does
        if self.repetition == 0:
            self.start = {name: weight.detach().clone() for name, weight in self.named_parameters()}
            self.moved = {name: torch.zeros_like(weight) for name, weight in self.start.items()}

    @torch.no_grad()
    def end_task(self, session: Session) -> None:
        """End of a repetition; after the last one w <- w0 + alpha * mean_r(w_r - w0)."""
        self.repetition += 1
        for name, weight in self.named_parameters():
            self.moved[name] += weight - self.start[name]
            if self.repetition == self.args.num_inner_steps:
                mean = self.moved[name] / self.args.num_inner_steps
                weight.copy_(self.start[name] + self.args.inner_lr * mean)
        if self.repetition == self.args.num_inner_steps:
            self.repetition = 0
            self.groups += 1
            if self.groups % self.groups_per_epoch == 0:
                self._save(self.groups // self.groups_per_epoch)

    def _save(self, epoch: int) -> None:
        """The backbone without the head, as it stands after a meta epoch."""
        if self.args.save_to:
            write_tensors(Path(self.args.save_to) / f"meta_epoch_{epoch}.safetensors", self.backbone.state_dict())

    def configure_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(self.backbone.parameters()), "lr": self.args.lr},
            {"params": list(self.head.parameters()), "lr": self.args.lr_head},
        ]
        return torch.optim.SGD(groups, momentum=0.9)

    def extra_state(self) -> dict[str, Any]:
        return {
            "groups": self.groups,
            "repetition": self.repetition,
            "group": self.group,
            "start": self.start,
            "moved": self.moved,
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.groups, self.repetition = state["groups"], state["repetition"]
        self.start, self.moved = state["start"], state["moved"]
        self.group.copy_(state["group"])
