"""SLCA, the slow learner: the whole ViT is trained, far more slowly than its classifier. Aligning the latter: optional.

Source: Zhang et al., ICCV 2023, arXiv:2303.05118; online form of FlyGCL (AnAppleCore/FlyGCL, 79a6b51); alignment as in
LAMDA-PILOT (2647455). Departures from the paper:
1. As in every online release: one pass, SGD without momentum, constant rates, no classifier alignment. What remains is
   full fine-tuning with two learning rates.
2. The MePo release makes 96 updates per arriving batch, a number meant for another method; here `--online_iter`.
Classifier alignment (`--ca_epochs`) in an online stream is an extension of this project; results with it are no
published SLCA. It departs from the offline one (PILOT):
3. Class statistics are running ones over the stream, every pass counted, so that they age while the backbone moves on;
   they take C D^2 numbers. The covariance of a class with n <= D images is of low rank: its entries off the diagonal
   are shrunk by (n - 1) / D.
4. The session of a class is the one in which it was first met; a session without new classes adds no block of logits.
5. Evaluation uses an aligned copy of the classifier and training never sees it, in place of backup and restoration.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from backbone import need_vit
from backbone.heads import linear_head
from backbone.vit import embed, encode
from models.base import ContinualModel, ModelArgs
from utils.args import option
from utils.classes import mask_for_training
from utils.contracts import Batch, Session, StreamInfo
from utils.device import full_precision
from utils.finite import FiniteRows

FLYGCL = "FlyGCL, all datasets"
WEIGHT_DECAY = 5e-4  # in training and alignment alike
RIDGE = 1e-4  # added to the diagonal of every covariance
DRAWS = 256  # features per class and epoch of the alignment, and per update


@dataclass(kw_only=True)
class SlcaArgs(ModelArgs):
    lr: float = option(5e-5, "learning rate of the backbone, constant", FLYGCL, low=0, high=100)
    lr_head: float = option(0.005, "learning rate of the classifier, constant", FLYGCL, low=0, high=100)
    train_mask: Literal["batch", "seen"] = option("batch", "classes that compete in training", "FlyGCL; MePo: seen")
    ca_epochs: int = option(
        0,
        "epochs of classifier alignment for evaluation, an extension in online streams; 0: none",
        "FlyGCL and MePo; offline, paper: 5, PILOT: 3",
        low=0,
    )
    ca_lr: float = option(0.01, "peak learning rate of the alignment, cosine per epoch", "PILOT", low=0, high=100)
    logit_norm: float = option(0.1, "temperature of normalised logits in the alignment; 0: plain", "PILOT", low=0)


class Slca(ContinualModel):
    Args = SlcaArgs
    published = {
        "backbone vit_tiny_icons": {"lr": 0.0015, "lr_head": 0.15},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.001, "lr_head": 0.1},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: SlcaArgs):
        need_vit(backbone)
        super().__init__(backbone, info, args)
        backbone.requires_grad_(True)
        self.head = linear_head(backbone.num_features, info.num_classes)
        self.borders: list[int] = []  # per session so far: classes met up to its end
        self._aligned: tuple[Tensor, Tensor] | None = None  # weight and bias for evaluation, until training goes on
        if args.ca_epochs > 0:
            self.statistics = ClassStatistics(info.num_classes, backbone.num_features)

    @classmethod
    def keeps(cls, args: SlcaArgs) -> str | None:
        return "sums of features" if args.ca_epochs > 0 else None

    @property
    def needs_task_boundaries(self) -> bool:
        return self.args.ca_epochs > 0

    def features(self, x: Tensor) -> Tensor:
        return encode(self.backbone, embed(self.backbone, x))

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        if self.training or len(self.borders) < 2:
            return self.head(self.features(x))
        return F.linear(self.features(x), *self.aligned_head())

    def loss(self, batch: Batch) -> Tensor:
        logits = mask_for_training(self(batch.x), batch.y, batch.seen, self.args.train_mask)
        return F.cross_entropy(logits, batch.y)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(self.backbone.parameters()), "lr": self.args.lr},
            {"params": list(self.head.parameters()), "lr": self.args.lr_head},
        ]
        return torch.optim.SGD(groups, weight_decay=WEIGHT_DECAY)

    def begin_task(self, session: Session) -> None:
        self.borders.append(self.borders[-1] if self.borders else 0)
        self._aligned = None

    def end_batch(self, batch: Batch) -> None:
        if self.args.ca_epochs > 0:
            self.eval()
            with torch.no_grad(), self.autocast():
                features = self.features(self.info.plain(batch.raw))
            self.train()
            self.statistics.add(features.float(), batch.y)
            self.borders[-1] = batch.seen
            self._aligned = None

    @torch.no_grad()
    def aligned_head(self) -> tuple[Tensor, Tensor]:
        """Weight [C, D] and bias [C] of the aligned classifier; rows of classes not met yet as trained.

        The draws depend on the seed and the state of training alone, so a resumed run finds the same.
        """
        if self._aligned is None:
            args, weight, bias = self.args, self.head.weight, self.head.bias
            sizes = [stop - start for start, stop in pairwise([0, *self.borders])]
            task_of_class = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(weight.device)
            met, task = len(task_of_class), len(sizes) - 1
            with full_precision(weight):
                means = shifted_means(self.statistics.mean[:met], task_of_class, task)
                factors = torch.stack([factor(self.statistics.covariance(slot)) for slot in range(met)])
                generator = Generator(weight.device).manual_seed(self.info.seed)
                epochs = (draw_epoch(means, factors, generator) for _ in range(args.ca_epochs))
                rows = weight[:met].clone(), bias[:met].clone()
                align_classifier(*rows, epochs, sizes, args.ca_epochs, args.ca_lr, args.logit_norm)
            self._aligned = torch.cat((rows[0], weight[met:])), torch.cat((rows[1], bias[met:]))
        return self._aligned

    def extra_state(self) -> dict[str, Any]:
        return {"borders": list(self.borders)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.borders, self._aligned = list(state["borders"]), None


class ClassStatistics(nn.Module):
    """Running mean [C, D] and scatter [C, D, D] of features per class, by the update of Chan et al. (1983)."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(num_classes))
        self.register_buffer("mean", torch.zeros(num_classes, width))
        self.register_buffer("scatter", torch.zeros(num_classes, width, width))
        self.finite = FiniteRows()

    def add(self, features: Tensor, slots: Tensor) -> None:
        """Counts features [B, D] of the classes slots [B]."""
        kept = self.finite(features)
        features, slots = features[kept], slots[kept]
        for slot in slots.unique():
            rows = features[slots == slot]
            before, after = self.count[slot], self.count[slot] + len(rows)
            centred, move = rows - rows.mean(dim=0), rows.mean(dim=0) - self.mean[slot]
            self.scatter[slot] += centred.T @ centred + move.outer(move) * (before * len(rows) / after)
            self.mean[slot] += move * (len(rows) / after)
            self.count[slot] = after

    def covariance(self, slot: int) -> Tensor:
        """Unbiased covariance [D, D] plus RIDGE * I; entries off the diagonal times (n - 1) / D, where that is below 1.

        With them the least eigenvalue is 0 while n <= D; shrunk, it grows with the least variance.
        """
        images, width = self.count[slot], self.mean.shape[1]
        covariance = self.scatter[slot] / (images - 1).clamp(min=1)
        share = ((images - 1) / width).clamp(max=1)
        variances = covariance.diagonal()
        return share * covariance + torch.diag((1 - share) * variances + RIDGE)


def shifted_means(mean: Tensor, task_of_class: Tensor, task: int) -> Tensor:
    """Class means [C, D] times 0.9 + 0.1 (t_c + 1) / (t + 1), for classes of the tasks t_c [C] at task t."""
    return mean * (0.9 + 0.1 * (task_of_class[:, None] + 1) / (task + 1))


def factor(covariance: Tensor) -> Tensor:
    """Lower Cholesky factor [D, D]; in double precision, since RIDGE may be lost in the rounding of large variances."""
    return torch.linalg.cholesky(covariance.double()).to(covariance.dtype)


def draw_epoch(means: Tensor, factors: Tensor, generator: Generator) -> list[tuple[Tensor, Tensor]]:
    """DRAWS features of each class from the normal distributions of means [C, D] and factors [C, D, D], shuffled.

    C batches of features [DRAWS, D] with slots [DRAWS].
    """
    noise = torch.randn(len(means), DRAWS, means.shape[1], generator=generator, device=means.device)
    features = (means[:, None] + noise @ factors.mT).flatten(0, 1)
    slots = torch.arange(len(means), device=means.device).repeat_interleave(DRAWS)
    order = torch.randperm(len(slots), generator=generator, device=means.device)
    return list(zip(features[order].split(DRAWS), slots[order].split(DRAWS), strict=True))


@torch.enable_grad()
def align_classifier(
    weight: Tensor,
    bias: Tensor,
    epochs: Iterable[list[tuple[Tensor, Tensor]]],
    sizes: list[int],
    num_epochs: int,
    lr: float,
    logit_norm: float,
    momentum: float = 0.9,
    weight_decay: float = WEIGHT_DECAY,
) -> list[Tensor]:
    """Trains weight [C, D] and bias [C] in place on batches of features [N, D] and slots [N]; the loss of each batch.

    sizes: classes of each task, in slot order; their logits share a norm. The rate falls by a cosine per epoch to 0.
    """
    trained = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs)
    losses = []
    for batches in epochs:
        for features, slots in batches:
            logits = F.linear(features, weight, bias)
            if logit_norm > 0:
                blocks = [block for block in logits.split(sizes, dim=1) if block.shape[1]]
                norm = torch.stack([block.norm(dim=1) + 1e-7 for block in blocks]).mean(dim=0)
                logits = logits / norm[:, None] / logit_norm
            loss = F.cross_entropy(logits, slots)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        scheduler.step()
    for tensor in trained:
        tensor.requires_grad_(False)
    return losses
