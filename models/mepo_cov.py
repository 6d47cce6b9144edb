"""MePo stage 2, meta covariance: between-class covariance of a refined backbone's features on pretraining data.

Source: Sun et al., MePo, arXiv:2602.07940, and the released notebook (SunGL001/MePo, 55912a4): class token after the
last norm, network in evaluation mode, training transform, `samples` images per class; mean per class; covariance across
the class means with divisor (classes - 1). Every class weighs the same, spread inside a class is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbone import need_vit
from backbone.vit import embed, encode
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.contracts import Batch, StreamInfo
from utils.files.atomic import written_whole
from utils.finite import FiniteRows


@dataclass(kw_only=True)
class MepoCovArgs(ModelArgs):
    samples: int = option(200, "images per class", "MePo notebook", low=1)
    save_to: str | None = option(
        None, "folder for covariance.npy (float64 [D, D]); none: only the run folder", decides=False
    )


class MepoCov(ContinualModel):
    Args = MepoCovArgs
    scenarios = ("shuffled",)
    evaluated = False
    published = {
        "*": {"batch_size": 256, "online_iter": 1, "eval_period": -1},
        "imagenet": {"samples": 200},  # of the dataset too, so that no more than these are decoded
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MepoCovArgs):
        need_vit(backbone)
        super().__init__(backbone, info, args)
        self.register_buffer("total", torch.zeros(info.num_classes, backbone.num_features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(info.num_classes, dtype=torch.float64))
        self.finite = FiniteRows()

    @classmethod
    def product(cls, args: MepoCovArgs) -> str:
        return "covariance.npy"

    @classmethod
    def stream_options(cls, args: MepoCovArgs) -> dict[str, Any]:
        return {"samples": args.samples}

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        """Adds the features of a batch to the sums of their classes. Nothing is learned."""
        with self.autocast():
            features = encode(self.backbone, embed(self.backbone, batch.x))
        kept = self.finite(features)
        features, y = features[kept], batch.y[kept]
        self.total.index_add_(0, y, features.double())
        self.count.index_add_(0, y, torch.ones_like(y, dtype=torch.float64))

    def class_means(self) -> Tensor:
        """Mean feature of every class that occurred, [K, D] float64, by label."""
        met = self.count > 0
        return self.total[met] / self.count[met, None]

    def covariance(self) -> Tensor:
        """Covariance across the class means, [D, D] float64."""
        return torch.cov(self.class_means().T)

    def end_stream(self) -> None:
        if self.args.save_to:
            path = Path(self.args.save_to) / self.product(self.args)
            with written_whole(path) as temporary, open(temporary, "wb") as file:
                np.save(file, self.covariance().cpu().numpy())

    def configure_optimizer(self) -> None:
        return None
