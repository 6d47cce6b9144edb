"""Nearest class mean: an image belongs to the class whose mean feature is nearest. The network stays as it is.

Source: Mensink et al., IEEE TPAMI 2013, doi:10.1109/TPAMI.2013.83; on pretrained networks in continual learning: Janson
et al., arXiv:2210.04428. It has no rate, forgets nothing and does not depend on the order of the stream, so that it
tells what a network is worth on a dataset before anything is learnt: with `--backbone_path` that of any weights. The
mean is of augmented images, as the other methods see them.

What else the features tell, in `summary.json` under `own`, from the images of the stream: `between`, the share of the
variance of the features that lies between classes; `cosine`, the mean cosine of two class means; `rank`, the effective
rank of the covariance of the class means (Roy and Vetterli, EUSIPCO 2007).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import features
from backbone.heads import ClassSums
from models.base import FEATURES, ContinualModel, ModelArgs
from utils.contracts import Batch, StreamInfo

FAR = -1e9  # below every score; infinite ones would pass for an error


class Ncm(ContinualModel):
    scenarios = ("si-blurry", "class-il", "task-il", "domain-il", "shuffled")
    published = {"*": {"online_iter": 1}}
    has_fixed_features = True
    fixed_suffice = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ModelArgs):
        super().__init__(backbone, info, args)
        backbone.requires_grad_(False)
        self.sums = ClassSums(info.num_classes, backbone.num_features)

    @classmethod
    def keeps(cls, args: ModelArgs) -> str:
        return "sums of features"

    def fixed_features(self, x: Tensor) -> Tensor:
        """Features of the network, [B, D]."""
        with torch.no_grad():
            return features(self.backbone, x)

    def shared_as(self, precision: str) -> str:
        return f"{FEATURES} {precision}"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Half the squared distance to each class mean, negative and up to what all classes share, [B, C]; FAR for a
        class without images."""
        z = self.fixed_features(x) if fixed is None else fixed
        means = self.sums.total / self.sums.count.clamp(min=1)[:, None]
        scores = z.double() @ means.T - means.square().sum(dim=1) / 2
        return scores.masked_fill(self.sums.count == 0, FAR).float()

    def observe(self, batch: Batch) -> None:
        """Counts the features of a batch. Nothing is trained."""
        with self.autocast():
            z = self.fixed_features(batch.x)
        self.sums.add(z, batch.y)

    def configure_optimizer(self) -> None:
        return None

    def measures(self) -> dict[str, float]:
        """Of the features met, see above; none before two classes, or where all features are one."""
        means, count = self.sums.means(), self.sums.count[self.sums.count > 0]
        if len(means) < 2:
            return {}
        centred = means - (count @ means / count.sum())
        between = count @ centred.square().sum(dim=1)
        within = self.sums.squares.sum() - count @ means.square().sum(dim=1)
        units = F.normalize(means, dim=1)
        cosine = (units.sum(dim=0).square().sum() - len(units)) / (len(units) * (len(units) - 1))
        variances = torch.linalg.eigvalsh(torch.cov(means.T)).clamp(min=0)
        share = variances / variances.sum()
        rank = torch.special.entr(share).sum().exp()
        found = {"between": between / (between + within), "cosine": cosine, "rank": rank}
        return {name: float(value) for name, value in found.items() if value.isfinite()}
