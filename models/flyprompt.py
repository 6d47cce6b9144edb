"""FlyPrompt: one prompt expert per period of the stream, a router in closed form, several averaged heads per expert.

Source: Yan et al., ICLR 2026, arXiv:2602.01976; FlyGCL (AnAppleCore/FlyGCL, 79a6b51). No task boundaries are used:
experts change by images seen. Of the tasks it is told only how many there are, by default the number of experts. As
released, and kept here:
1. The router may choose an expert that has not been trained yet, whose score is exactly 0, when all others are negative
   (`--route_to_known` forbids it).
2. Adam's momentum moves the prompts of an expert for some steps after it has been replaced.
Departure:
3. Without softmax, `min_entropy` is the head's logits, its entropy still that of its probabilities; in the release it
   is not a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.heads import RandomRidge
from backbone.vit import Prompt, class_position, embed, encode
from models.base import ModelArgs, PromptMethod, check_blocks
from utils.args import option
from utils.classes import mask_unseen
from utils.contracts import Batch, StreamInfo
from utils.device import full_precision
from utils.step_clock import StepClock

FLYGCL = "FlyGCL, all datasets"


@dataclass(kw_only=True)
class FlyPromptArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam, constant", FLYGCL, low=0, high=100)
    len_prompt: int = option(20, "tokens of a prompt per block", FLYGCL, low=1)
    pos_prompt: tuple[int, ...] = option((0, 1, 2, 3, 4), "blocks that take a prompt", FLYGCL, low=0)
    step_num: int = option(
        5, "experts, each for as many images of the stream; default: --n_tasks", "FlyGCL: number of tasks", low=1
    )
    rp_dim: int = option(10000, "random features of the router; 0: the plain feature", FLYGCL, low=0)
    rp_ridge: float = option(1e4, "ridge of the router", FLYGCL, low=1e-8)
    ema_ratio: tuple[float, ...] = option(
        (0.9, 0.99), "share that an averaged head keeps per update; one head each", FLYGCL, low=0, high=1
    )
    ensemble_method: Literal[
        "softmax_max_prob", "softmax_mean", "softmax_min_entropy", "max_prob", "mean", "min_entropy"
    ] = option("softmax_max_prob", "how the heads of an expert are combined", FLYGCL)
    route_to_known: bool = option(False, "choose among the experts trained so far only", "FlyGCL: off")
    train_mask: Literal["batch", "seen"] = option("batch", "classes that compete in the training loss", FLYGCL)


class FlyPrompt(PromptMethod):
    """Shapes: E experts, n averaged heads of each, L prompt tokens."""

    Args = FlyPromptArgs
    one_per_task = ("step_num",)
    predicts_from_state = True  # how many classes compete
    # rp_dim in proportion to the width, 128 of 768; the rest chosen by command/choose_icons.sh, choose_glyphs.sh.
    published = {
        "backbone vit_tiny_icons": {"lr": 0.005, "len_prompt": 4, "rp_dim": 1700},
        "seq-glyphs": {"lr": 0.005, "len_prompt": 4, "rp_dim": 1700},
        "seq-digits": {"rp_dim": 1700},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FlyPromptArgs):
        super().__init__(backbone, info, args)
        check_blocks(backbone, pos_prompt=args.pos_prompt)
        width, experts, averages = backbone.num_features, args.step_num, len(args.ema_ratio)
        self.prompts = nn.Parameter(torch.rand(len(args.pos_prompt), experts, args.len_prompt, width))
        self.register_buffer("ema_weight", default_linear(width, experts, averages, info.num_classes, width))
        self.register_buffer("ema_bias", default_linear(width, experts, averages, info.num_classes))
        self.register_buffer("ema_ratio", torch.tensor(args.ema_ratio), persistent=False)
        self.router = RandomRidge(width, args.rp_dim, experts, args.rp_ridge)
        self.clock = StepClock(experts, info.num_images)  # its step is the current expert
        self.seen = info.num_classes  # classes met; all compete before the first batch
        self.copy_head(0)

    @classmethod
    def keeps(cls, args: FlyPromptArgs) -> str:
        return "sums of features"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Training: logits [B, C] of the trained head. Evaluation: combined scores [B, C] of the classes met."""
        if self.training:
            return self.head(self.features(x))
        expert = self.route(self.fixed_features(x) if fixed is None else fixed)
        logits = self.all_heads(self.features(x, expert), expert).float()
        lost = ~logits[:, :, : self.seen].isfinite().all(dim=2).all(dim=0)  # a softmax would hide it
        scores = combine(mask_unseen(logits.flatten(0, 1), self.seen).view_as(logits), self.args.ensemble_method)
        return scores.masked_fill(lost[:, None], torch.nan)

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.masked(self(batch.x), batch), batch.y)

    def features(self, x: Tensor, expert: Tensor | None = None) -> Tensor:
        """Class token [B, D] under the prompts of each image's expert [B], by default the current one."""
        with torch.no_grad():
            tokens = embed(self.backbone, x)
        current = slice(None) if expert is not None else slice(self.clock.step, self.clock.step + 1)
        tables = self.prompts[:, current] + class_position(self.backbone)
        prompts = {block: [Prompt(table, expert)] for block, table in zip(self.args.pos_prompt, tables, strict=True)}
        return self.fc_norm(encode(self.backbone, tokens, prompts))

    def fixed_features(self, x: Tensor) -> Tensor:
        """What the router sees: class token of the network without prompts, [B, D], in full precision."""
        with full_precision(x):
            return super().fixed_features(x)

    def shared_as(self, precision: str) -> str | None:
        return super().shared_as("32")

    def route(self, z: Tensor) -> Tensor:
        """Expert [B] of each image, by its feature without prompts [B, D]."""
        scores = self.router(z)
        if self.args.route_to_known:
            scores = mask_unseen(scores, self.clock.step + 1)
        return scores.argmax(dim=1)

    def all_heads(self, features: Tensor, expert: Tensor) -> Tensor:
        """Logits of the trained head and of the averaged heads of each image's expert, [1 + n, B, C]."""
        averaged = torch.einsum("bd,encd->benc", features, self.ema_weight) + self.ema_bias
        averaged = averaged[torch.arange(len(expert), device=expert.device), expert]
        return torch.cat((self.head(features)[None], averaged.transpose(0, 1)))

    @torch.no_grad()
    def end_update(self) -> None:
        expert, share = self.clock.step, 1 - self.ema_ratio
        self.ema_weight[expert].lerp_(self.head.weight, share[:, None, None])
        self.ema_bias[expert].lerp_(self.head.bias, share[:, None])

    def end_batch(self, batch: Batch) -> None:
        self.seen, expert = batch.seen, self.clock.step
        z = self.fixed_features(self.info.plain(batch.raw))
        self.router.add(z, torch.full_like(batch.y, expert))
        self.clock.add(len(batch.y))
        for new in range(expert + 1, self.clock.step + 1):
            self.begin_expert(new)

    @torch.no_grad()
    def begin_expert(self, expert: int) -> None:
        """Starts from the mean prompts of the experts before, and from the trained head."""
        self.prompts[:, expert] = self.prompts[:, :expert].mean(dim=1)
        self.copy_head(expert)

    @torch.no_grad()
    def copy_head(self, expert: int) -> None:
        self.ema_weight[expert] = self.head.weight
        self.ema_bias[expert] = self.head.bias

    def extra_state(self) -> dict[str, Any]:
        return {"clock": self.clock.state_dict(), "seen": self.seen, "router": self.router.statistics()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.clock.load_state_dict(state["clock"])
        self.seen = state["seen"]
        self.router.load_statistics(state["router"])


def default_linear(in_features: int, *shape: int) -> Tensor:
    """Weights or biases as `nn.Linear` begins with, which an expert that was never trained keeps."""
    bound = in_features**-0.5
    return torch.empty(*shape).uniform_(-bound, bound)


def combine(logits: Tensor, method: str) -> Tensor:
    """Scores [B, C] of heads [H, B, C] by `--ensemble_method`; logits of classes that do not compete are -inf."""
    probabilities = logits.softmax(dim=2)
    scores = probabilities if method.startswith("softmax_") else logits
    if method.endswith("mean"):
        return scores.mean(dim=0)
    if method.endswith("max_prob"):
        return scores.amax(dim=0)
    entropy = -(probabilities * (probabilities + 1e-8).log()).sum(dim=2)  # [H, B]
    return scores[entropy.argmin(dim=0), torch.arange(logits.shape[1], device=logits.device)]
