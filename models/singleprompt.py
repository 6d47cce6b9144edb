"""SinglePrompt: one prompt per block for all images, as keys and values beside those of the block; a cosine classifier.

Source: Park, Lee, Lee, "Is Prompt Selection Necessary for Task-Free Online Continual Learning?", arXiv:2604.04420;
released code efficient-learning-lab/SinglePrompt, 665a98c. No pool, no keys and no query, so one forward pass suffices.
As released, evaluation masks nothing: classes not met yet compete with their initial directions (`--eval_mask seen`
masks them, as for the other methods). Departures:
1. The paper speaks of each self-attention block; the released scripts, followed here, prompt the first five only.
2. The variant with a replay memory is left out; `er` and its kin replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.prompts import uniform
from backbone.vit import Projected, Prompts, class_position, embed, encode
from models.base import ModelArgs, PromptMethod
from utils.args import option
from utils.classes import mask_absent
from utils.contracts import Batch, StreamInfo
from utils.device import full_precision
from utils.errors import UsageError

SCRIPTS = "SinglePrompt scripts"
TEMPERATURE = 0.1  # of the cosine logits


@dataclass(kw_only=True)
class SinglePromptArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam, constant", SCRIPTS, low=0, high=100)
    n_prompted_blocks: int = option(5, "how many blocks take a prompt, from the first on", SCRIPTS, low=1)
    prompt_length: int = option(20, "key tokens, and as many value tokens, per block", SCRIPTS, low=1)
    logit_type: Literal["cos_sim", "linear"] = option("cos_sim", "classifier; linear: with bias", SCRIPTS)


class SinglePrompt(PromptMethod):
    Args = SinglePromptArgs
    published = {
        "*": {"batch_size": 32, "eval_mask": "none"},
        "backbone vit_tiny_icons": {"lr": 0.015, "prompt_length": 4},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.02, "prompt_length": 4},  # command/choose_glyphs.sh
    }
    has_fixed_features = False  # there is no query

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: SinglePromptArgs):
        super().__init__(backbone, info, args)
        if args.n_prompted_blocks > len(backbone.blocks):
            raise UsageError(f"--n_prompted_blocks {args.n_prompted_blocks}: the backbone has {len(backbone.blocks)}")
        width = backbone.num_features
        self.prompt = uniform(args.n_prompted_blocks * 2 * args.prompt_length, width)
        kind = CosineHead if args.logit_type == "cos_sim" else nn.Linear
        self.head = kind(width, info.num_classes)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            tokens = embed(self.backbone, x)
        return self.head(self.fc_norm(encode(self.backbone, tokens, self.prompts())))

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(mask_absent(self(batch.x).float(), batch.y), batch.y)

    def prompts(self) -> Prompts:
        """Keys and values [1, L, D] of each prompted block; rows of `prompt`: all keys of a block, then its values."""
        rows = (self.prompt + class_position(self.backbone)[0]).unflatten(0, (-1, 2, 1, self.args.prompt_length))
        return {block: [Projected(key, value)] for block, (key, value) in enumerate(rows)}


class CosineHead(nn.Module):
    """Features [B, D] to cosines with the rows of weight [C, D], divided by TEMPERATURE: [B, C], in float32."""

    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.weight = nn.Linear(in_features, num_classes, bias=False).weight  # for its initialisation

    def forward(self, features: Tensor) -> Tensor:
        with full_precision(features):  # in bf16 neighbouring cosines would be one
            directions = F.normalize(features.float(), dim=1)
            return F.linear(directions, F.normalize(self.weight, dim=1)) / TEMPERATURE
