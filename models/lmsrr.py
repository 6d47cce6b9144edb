"""LMSRR: fuses pretrained ViTs, trains their last blocks, and holds these where learnt switches say so, with replay.

Source: Ye, Zhong et al., NeurIPS 2025, OpenReview 24vq7c6MpR, and the release (CL-Coder236/LMSRR ee3228b). Per update
    loss = cross-entropy over all classes + alpha sum w d / sum w + beta mean (h(x') - z')^2:
d, for each network and trainable block, is the mean squared distance of all tokens after it to what the blocks that the
network had when the session began make of the same batch (MLRO; from the second session on); its switch is
w = softmax((s + g) / tau)[0], s learnt, g Gumbel noise of this update (ARO); x' are images of a reservoir and z' the
logits that they had when they were stored. Class tokens z of the networks are fused to a_1 conv3(z) + a_2 conv5(z)
(MSIDF), a the softmax of three weights, of which the third has no branch. Trunks and final norms are frozen; SGD is
plain.
The release departs from the paper in the mean (the figure has a sum: `--aro sum`), in the square (Eq. 11: a distance),
in the cross-entropy, which Eq. 14 has over batch and memory (`--replay labels`, or `both` with the logits), and in the
temperature, which the text wants large for draws that are nearly 0 or 1, as the small one of the code makes them.
1. Trunks run once per image, without gradient, for the blocks that train and the old ones, of which alone there is a
   copy: 2.25 passes of a ViT-B per update where the release makes 4, with the same numbers.
2. The denominator is clamped, which counts where every switch is off.
3. Images are resized to the network's input before they are augmented (bilinear); in the release after it (bicubic).
   Statistics and augmentation are the project's: crop after padding and flip, on CIFAR-100, Tiny ImageNet and
   ImageNet-R AutoAugment, too. The release has mean 0 and std 1 for ImageNet-R and Cars196, ImageNet's for CUB-200; no
   AutoAugment; a random resized crop on ImageNet-R, a crop of 224 from 300 on CUB-200, a flip alone on Cars196. On
   rotated MNIST, neither here nor there is anything normalised or augmented.
4. LayerNorm has timm's eps 1e-6, in the authors' networks 1e-12.
5. On si-blurry, which the paper has not, the old blocks are taken at the borders of sessions. With several updates per
   batch its images are stored once, with the logits of the last of them. A_auc there needs an `--eval_period`: the
   published runs look at the ends of tasks alone.
The paper evaluates with the task told (`task_final`). Its first network has seen the labels of ImageNet-1K, so that
ImageNet-R and Tiny ImageNet are not new to it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import Several
from backbone.products import Stage
from backbone.vit import each_block, embed, run_blocks
from models.base import ContinualModel, ModelArgs, unfreeze_last
from utils.args import RunArgs, option
from utils.buffer import ReservoirBuffer
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError
from utils.finite import FiniteRows

RUNS = "LMSRR: its runs"
LEAST = 1e-30  # of the denominator: far below any sum of switches that counts, far above what a float32 divides by


@dataclass(kw_only=True)
class LmsrrArgs(ModelArgs):
    lr: float = option(0.03, "learning rate of SGD, constant", RUNS, low=0, high=100)
    alpha: float = option(
        0.3, "weight of the distance to old features", f"{RUNS}; CIFAR-10, MNIST, Tiny ImageNet: 0.1", low=0
    )
    beta: float = option(
        0.2, "weight of the distance to stored logits", RUNS, low=0, where={"replay": ("logits", "both")}
    )
    buffer_size: int = option(500, "images kept", f"{RUNS}; also 200 and 1000", low=0)
    minibatch_size: int = option(32, "images replayed per update, at most", RUNS, low=1, high=10_000)
    trainable_blocks: int = option(3, "last blocks of each network that train", "LMSRR", low=1)
    tau: float = option(0.1, "temperature of the switches", "LMSRR", low=1e-3)
    aro: Literal["mean", "sum"] = option(
        "mean", "distances are averaged by their switches, or summed", "LMSRR: its code; its figure: sum"
    )
    fusion: Literal["both", "3", "5", "none"] = option(
        "both", "branches by width of their kernel; none: features are concatenated", "LMSRR; others: Fig. 2c"
    )
    replay: Literal["logits", "labels", "both"] = option(
        "logits", "what is replayed; labels: in the cross-entropy", "LMSRR: its code; Eq. 14: labels too"
    )


PAIR = "orig21k_1k+sup21k"
RARELY = {"eval_period": -1, "eval_passes": "last"}  # as released; others would cost more than training
LONG = RARELY | {"backbone": PAIR, "class_order": "natural", "n_tasks": 10}


class Lmsrr(ContinualModel):
    Args = LmsrrArgs
    scenarios = ("class-il", "task-il", "domain-il", "si-blurry")
    needs_task_boundaries = True
    published = {
        "*": {"backbone": "vit_tiny_glyphs+vit_tiny_icons", "batch_size": 32, "online_iter": 1},
        "seq-cifar10": LONG | {"n_tasks": 5, "alpha": 0.1, "autoaugment": False},
        "seq-cifar100": LONG,
        "rot-mnist": RARELY | {"backbone": PAIR, "alpha": 0.1, "inputs": "plain"},
        "seq-tinyimg": LONG | {"alpha": 0.1, "n_epochs": 10},
        "seq-imr": LONG | {"n_epochs": 10},
        "seq-cub200": LONG | {"n_epochs": 20},
        "seq-cars196": LONG | {"n_tasks": 14, "n_epochs": 20},
        # Not of its paper
        **{name: {"backbone": PAIR} for name in ("seq-mnist", "seq-fmnist", "perm-mnist")},
        **{name: {"backbone": PAIR} for name in ("seq-nch", "seq-gtsrb", "seq-wikiart")},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: LmsrrArgs):
        if not isinstance(backbone, Several):
            refuse_one("one network")
        shapes = [(vit.embed_dim, len(vit.blocks)) for vit in backbone.networks]
        if len(set(shapes)) > 1:
            listed = ", ".join(f"width {width} and {depth} blocks" for width, depth in shapes)
            raise UsageError(f"--backbone: lmsrr fuses networks of one width and depth, and these have {listed}")
        super().__init__(backbone, info, args)
        backbone.requires_grad_(False)
        unfreeze_last(backbone, args.trainable_blocks, "trainable_blocks")
        count, width = len(shapes), shapes[0][0]
        self.fusion = None if args.fusion == "none" else Fusion(count, args.fusion)
        self.head = nn.Linear(count * width if self.fusion is None else width, info.num_classes)
        self.selector = nn.Parameter(torch.randn(count, args.trainable_blocks, 2))  # s, by network and block
        self.buffer = ReservoirBuffer(args.buffer_size, info.seed, exact=True)
        self.old: list[nn.Module] = []  # last blocks of each network as the session began, from the second one on
        self.latest: Tensor | None = None  # logits of the batch in its last update, [B, C]
        self.finite = FiniteRows()
        self.register_buffer("switches", torch.zeros(count, args.trainable_blocks), persistent=False)  # sum of all w
        self.draws = 0

    @classmethod
    def prepare(cls, run: RunArgs, args: LmsrrArgs) -> list[Stage]:
        """No stage. Raises UsageError for one network alone, and for options without effect."""
        if "+" not in run.backbone:
            refuse_one(run.backbone)
        if args.alpha == 0 and (args.tau, args.aro) != (LmsrrArgs.tau, LmsrrArgs.aro):
            raise UsageError("--tau, --aro: have no effect with --alpha 0, which draws no switches")
        if args.buffer_size == 0 and args.minibatch_size != LmsrrArgs.minibatch_size:
            raise UsageError("--minibatch_size: has no effect with --buffer_size 0")
        return []

    @classmethod
    def keeps(cls, args: LmsrrArgs) -> str:
        return "a memory of images"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.classify(self.backbone.each(x))

    def classify(self, z: list[Tensor]) -> Tensor:
        """Class tokens [B, D] of each network to logits [B, C]."""
        return self.head(torch.cat(z, dim=1) if self.fusion is None else self.fusion(z))

    def loss(self, batch: Batch) -> Tensor:
        args, shift = self.args, None
        if self.old:
            logits, shift = self.held(batch.x)
        else:
            logits = self(batch.x).float()
        self.latest = logits.detach()
        y, count = batch.y, min(args.minibatch_size, len(self.buffer))
        again = stored = logits[:0]
        if count:
            images, slots, stored = self.buffer.sample(count)
            again = self(self.info.augment(images)).float()
            if args.replay != "logits":
                logits, y = torch.cat((logits, again)), torch.cat((y, slots))
        loss = F.cross_entropy(logits, y)
        if shift is not None:
            loss = loss + args.alpha * shift
        if count and args.replay != "labels":
            loss = loss + args.beta * F.mse_loss(again, stored)
        return loss

    def held(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] of a batch, and how far its features are from what the old blocks make of them."""
        trunks = self.trunks(x)
        now = [each_block(blocks, tokens) for blocks, tokens in zip(self.last(), trunks)]
        with torch.no_grad():
            before = [each_block(blocks, tokens) for blocks, tokens in zip(self.old, trunks)]
        ends = zip(self.backbone.networks, now)
        logits = self.classify([vit.norm(tokens[-1][:, :1])[:, 0] for vit, tokens in ends]).float()
        pairs = [zip(*layers) for layers in zip(now, before)]
        distances = [[F.mse_loss(new.float(), old.float()) for new, old in layers] for layers in pairs]
        return logits, self.weighted(torch.stack([torch.stack(own) for own in distances]))

    @torch.no_grad()
    def trunks(self, x: Tensor) -> list[Tensor]:
        """What the frozen blocks of each network make of images, [B, N, D] each."""
        networks = self.backbone.networks
        return [run_blocks(vit, embed(vit, x), stop=len(vit.blocks) - self.args.trainable_blocks) for vit in networks]

    def last(self) -> list[nn.Module]:
        """The blocks of each network that train."""
        return [vit.blocks[-self.args.trainable_blocks :] for vit in self.backbone.networks]

    def weighted(self, distances: Tensor) -> Tensor:
        """Distances by network and block [S, L] to one, by switches that are drawn."""
        w = self.switch(self.draw())
        self.switches += w.detach()
        self.draws += 1
        total = (w * distances).sum()
        return total if self.args.aro == "sum" else total / w.sum().clamp(min=LEAST)

    def draw(self) -> Tensor:
        """Uniform numbers [S, L, 2] of an update."""
        return torch.rand(self.selector.shape, device=self.selector.device)

    def switch(self, u: Tensor) -> Tensor:
        """w [S, L] in [0, 1]."""
        gumbel = -torch.log(-torch.log(u + 1e-20) + 1e-20)
        return ((self.selector + gumbel) / self.args.tau).softmax(dim=-1)[..., 0]

    def end_batch(self, batch: Batch) -> None:
        if self.latest is None:  # every update of the batch was left out (`--on_nan skip`)
            return
        kept = self.finite(self.latest)
        self.buffer.add(batch.raw[kept], batch.y[kept], self.latest[kept])
        self.latest = None

    def begin_task(self, session: Session) -> None:
        if session.index > 0 and self.args.alpha > 0:
            self.old = self.copies()

    def copies(self) -> list[nn.Module]:
        """Of the last blocks, frozen."""
        return [copy.deepcopy(blocks).requires_grad_(False) for blocks in self.last()]

    def configure_optimizer(self) -> torch.optim.Optimizer:
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trainable, lr=self.args.lr)

    def measures(self) -> dict[str, float]:
        """The mean switch of each network and block, the first ones 0, and the weights of the fusion's branches, with
        what is left to those that are not there."""
        found = {}
        if self.draws:
            mean = (self.switches / self.draws).tolist()
            found = {f"switch_{s}_{block}": w for s, own in enumerate(mean) for block, w in enumerate(own)}
        if self.fusion is not None:
            branches = zip(("fusion_3", "fusion_5"), (self.fusion.conv1, self.fusion.conv2))
            weights = self.fusion.fusion_weight.softmax(dim=0).tolist()
            own = {name: weight for (name, conv), weight in zip(branches, weights) if conv is not None}
            found |= own | {"fusion_unused": 1 - sum(own.values())}
        return found

    def extra_state(self) -> dict[str, Any]:
        state = {"buffer": self.buffer.state_dict(), "latest": self.latest}
        old = [blocks.state_dict() for blocks in self.old]
        return state | {"old": old, "switches": self.switches.clone(), "draws": self.draws}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.buffer.load_state_dict(state["buffer"])
        self.latest, self.draws = state["latest"], state["draws"]
        self.switches.copy_(state["switches"])
        self.old = self.copies() if state["old"] else []
        for blocks, weights in zip(self.old, state["old"], strict=True):
            blocks.load_state_dict(weights)


class Fusion(nn.Module):
    """Class tokens of S networks to one feature [B, D], by convolutions along the D numbers, with the networks as their
    channels. kind: "3" or "5": the branch of that kernel alone, with its weight of the three; "both"."""

    def __init__(self, networks: int, kind: str):
        super().__init__()
        self.fusion_weight = nn.Parameter(torch.ones(3))
        self.conv1 = branch(networks, 3) if kind in ("both", "3") else None
        self.conv2 = branch(networks, 5) if kind in ("both", "5") else None

    def forward(self, z: list[Tensor]) -> Tensor:
        stacked, weights = torch.stack(z, dim=1), self.fusion_weight.softmax(dim=0)
        branches = [(conv, a) for conv, a in zip((self.conv1, self.conv2), weights) if conv is not None]
        return sum(a * conv(stacked)[:, 0] for conv, a in branches)


def branch(networks: int, kernel: int) -> nn.Conv1d:
    conv = nn.Conv1d(networks, 1, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.constant_(conv.bias, 0.1)
    return conv


def refuse_one(what: str) -> NoReturn:
    raise UsageError(
        f"--backbone: lmsrr fuses several ViTs, and {what} is not; join them with +, as vit_tiny_glyphs+vit_tiny_icons"
    )
