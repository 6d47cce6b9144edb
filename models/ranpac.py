"""RanPAC: adapters trained in the first session, then ridge regression on random features, in closed form.

Source: McDonnell et al., NeurIPS 2023, arXiv:2307.02251; online form of FlyGCL (AnAppleCore/FlyGCL, 79a6b51). The first
session is told by the stream, so it is not free of task boundaries. Departures from the paper, as in FlyGCL:
1. The statistics of the first session come from adapters that still move, and all statistics from augmented images.
2. One ridge for all tasks (`--ridge fixed`); the paper searches one per task (`search`).
3. Adapters in the first blocks only, with a trained scale, beside a linear head without bias.
FlyGCL's option of prompts in place of adapters is left out. One pass is meant: a further one (`--n_epochs`) counts all
images of a task again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import need_vit
from backbone.heads import RandomRidge
from backbone.vit import embed, encode
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.classes import mask_absent
from utils.contracts import Batch, Session, StreamInfo
from utils.device import full_precision
from utils.errors import UsageError

FLYGCL = "FlyGCL, all datasets"
DROPOUT = 0.1  # of an adapter's bottleneck


@dataclass(kw_only=True)
class RanPacArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam in the first session, constant", FLYGCL, low=0, high=100)
    adapter_blocks: int = option(5, "how many blocks take an adapter, from the first on", "FlyGCL; paper: all", low=0)
    adapter_dim: int = option(64, "width of an adapter's bottleneck", FLYGCL, low=1)
    rp_dim: int = option(10000, "random features of the classifier; 0: the plain feature", FLYGCL, low=0)
    ridge: Literal["fixed", "search"] = option("fixed", "how lambda is found", "FlyGCL; paper, Mammoth, PILOT: search")
    rp_ridge: float = option(1e5, "lambda; with search, until a task has two images", FLYGCL, low=1e-8)


class RanPac(ContinualModel):
    Args = RanPacArgs
    # rp_dim in proportion to the width, 128 of 768; the rest chosen by command/choose_icons.sh, choose_glyphs.sh.
    published = {
        "backbone vit_tiny_icons": {"lr": 0.005, "rp_dim": 1700, "rp_ridge": 1000.0},
        "seq-glyphs": {"lr": 0.005, "rp_dim": 1700, "rp_ridge": 1000.0},
        "seq-digits": {"rp_dim": 1700},
    }
    needs_task_boundaries = True
    predicts_from_state = True  # whether the first session is over
    fixed_suffice = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: RanPacArgs):
        need_vit(backbone)
        super().__init__(backbone, info, args)
        if args.adapter_blocks > len(backbone.blocks):
            raise UsageError(f"--adapter_blocks {args.adapter_blocks}: the backbone has {len(backbone.blocks)}")
        width = backbone.num_features
        self.adapters = nn.ModuleList(Adapter(width, args.adapter_dim) for _ in range(args.adapter_blocks))
        self.head = nn.Linear(width, info.num_classes, bias=False)
        self.classifier = RandomRidge(width, args.rp_dim, info.num_classes, args.rp_ridge, args.ridge == "search")
        self.first_session = True

    @classmethod
    def keeps(cls, args: RanPacArgs) -> str:
        return "sums of features"

    @property
    def has_fixed_features(self) -> bool:
        return not self.first_session

    @property
    def repeats(self) -> bool:
        return self.first_session

    def features(self, x: Tensor) -> Tensor:
        """Class token with adapters, [B, D]."""
        return encode(self.backbone, embed(self.backbone, x), adapters=dict(enumerate(self.adapters)))

    def fixed_features(self, x: Tensor) -> Tensor:
        """The same in full precision, without gradient."""
        with torch.no_grad(), full_precision(x):
            return self.features(x)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        if self.first_session:
            return self.head(self.features(x))
        return self.classifier(self.fixed_features(x) if fixed is None else fixed)

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(mask_absent(self(batch.x).float(), batch.y), batch.y)

    def observe(self, batch: Batch) -> Tensor | None:
        return super().observe(batch) if self.first_session else None

    def end_batch(self, batch: Batch) -> None:
        x = self.info.augment(batch.raw) if self.first_session else batch.x  # which nothing was trained on
        self.adapters.eval()  # no dropout; there is none in the backbone
        self.classifier.add(self.fixed_features(x), batch.y)
        self.adapters.train()

    def end_task(self, session: Session) -> None:
        self.classifier.end_task()
        if self.first_session:
            self.end_first_session()

    def end_first_session(self) -> None:
        """The closed form takes over; nothing is trained any more."""
        self.first_session = False
        self.requires_grad_(False)

    def extra_state(self) -> dict[str, Any]:
        return {"first_session": self.first_session, "classifier": self.classifier.statistics()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.classifier.load_statistics(state["classifier"])
        if not state["first_session"]:
            self.end_first_session()


class Adapter(nn.Module):
    """scale * Up(dropout(relu(Down(x)))) of tokens x [B, N, D]; zero at the beginning, with Down as in `nn.Linear`."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.ones(1))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(F.dropout(F.relu(self.down(x)), DROPOUT, self.training))
