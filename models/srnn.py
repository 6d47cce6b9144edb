"""SR-NN: supervised pretraining with a penalty on features that are active too often, a rival representation of OML.

Source: the Set-KL penalty of Liu et al., AAAI 2019, arXiv:1811.06626, as the release of OML has it (khurramjaved96/mrcl
2855a6b, `srnn_omniglot.py`): with a_j the mean of feature j over a batch and r_j = beta / (a_j + 1e-4), the mean over j
of r_j - log r_j - 1 where a_j > beta, and 0 elsewhere. Departures are those of `supervised`: AdamW, a cosine schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backbone import features
from models.supervised import Supervised, SupervisedArgs
from utils.args import option
from utils.contracts import Batch

RELEASE = "mrcl 2855a6b"
EPSILON = 1e-4  # added to the mean activation


@dataclass(kw_only=True)
class SrnnArgs(SupervisedArgs):
    beta: float = option(
        0.1, "mean activation above which a feature is held back", RELEASE, low=1e-6, where={"sparsity": ("set-kl",)}
    )
    sparsity: Literal["set-kl", "mean"] = option("set-kl", "penalty; mean: the mean activation itself", RELEASE)


class Srnn(Supervised):
    Args = SrnnArgs
    published = Supervised.published | {"omniglot": Supervised.published["omniglot"] | {"n_epochs": 30}}

    def loss(self, batch: Batch) -> Tensor:
        z = features(self.backbone, batch.x)
        return self.loss_of(self.head(z), batch) + self.penalty(z.float())

    def penalty(self, z: Tensor) -> Tensor:
        """Of features [B, D], a scalar."""
        active = z.mean(dim=0)
        if self.args.sparsity == "mean":
            return active.mean()
        ratio = self.args.beta / (active + EPSILON)
        return torch.where(active > self.args.beta, ratio - ratio.log() - 1, 0).mean()
