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
from backbone.heads import ClassSums
from backbone.vit import embed, encode
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.contracts import Batch, StreamInfo
from utils.files.atomic import written_whole


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
        self.sums = ClassSums(info.num_classes, backbone.num_features)

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
        self.sums.add(features, batch.y)

    def covariance(self) -> Tensor:
        """Covariance across the class means, [D, D] float64."""
        return torch.cov(self.sums.means().T)

    def end_stream(self) -> None:
        if self.args.save_to:
            path = Path(self.args.save_to) / self.product(self.args)
            with written_whole(path) as temporary, open(temporary, "wb") as file:
                np.save(file, self.covariance().cpu().numpy())

    def configure_optimizer(self) -> None:
        return None
