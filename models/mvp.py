"""MVP: prompts, logit masks and keys of a pool whose entries are all kept in use, for a stream without task borders.

Source: Moon et al., ICCV 2023, arXiv:2308.09303; released code (moonjunyyy/Si-Blurry c4024ce) in the form of FlyGCL
(AnAppleCore/FlyGCL, 79a6b51), whose losses are the same. The paper's four parts: instance-wise logit masking
(`use_mask`), contrastive visual prompt tuning (`use_contrastiv`), adaptive feature scaling (`use_afs`), gradient
similarity-based focal loss (`use_mcr`).
Departures from the paper, as in the released code:
1. The focal factor is averaged over the batch before it meets the cross-entropy, so it scales the step of the whole
   batch and does not favour minor classes; `per_sample_focal` weighs each image's own cross-entropy.
2. The contrastive loss divides the distances of an image by the masses of all images of the batch, not by its own.
3. How often an entry was chosen also decides at test time, so that test images too are pushed to rare entries.
4. The pool has an entry per task, as in FlyGCL (`e_pool`; all others: 10). That number is all it is told of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.prompts import by_block
from backbone.vit import Prompts, embed, encode, run_blocks
from models.base import ModelArgs, PromptMethod, check_blocks
from utils.args import option
from utils.classes import mask_unseen
from utils.contracts import Batch, StreamInfo
from utils.device import full_precision

ALL = "all published scripts"


@dataclass(kw_only=True)
class MvpArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam, constant", ALL, low=0, high=100)
    e_pool: int = option(
        5, "entries of the pool; default: --n_tasks", "FlyGCL: number of tasks or internal steps; all others: 10", low=1
    )
    len_g_prompt: int = option(5, "tokens of the G-prompt per block", "Si-Blurry and FlyGCL; MISA and MePo: 10", low=1)
    len_e_prompt: int = option(20, "tokens of an E-prompt per block", ALL, low=1)
    pos_g_prompt: tuple[int, ...] = option((0, 1), "blocks that take the G-prompt", ALL, low=0)
    pos_e_prompt: tuple[int, ...] = option((2, 3, 4), "blocks that take an E-prompt", ALL, low=0)
    prompt_func: Literal["prompt_tuning", "prefix_tuning"] = option("prompt_tuning", "how prompts enter a block", ALL)
    use_last_layer: bool = option(False, "the query passes the last block too", ALL)
    use_mask: bool = option(True, "the chosen entry scales the logits", "paper; one MePo script: off")
    use_contrastiv: bool = option(True, "rare entries are preferred, keys pushed apart", "paper")
    use_afs: bool = option(True, "features are scaled by their distance to the class weight in the loss", "paper")
    use_mcr: bool = option(True, "focal factor of images whose gradient disagrees with the batch", "paper (GSF)")
    alpha: float = option(0.5, "share of the focal term", ALL, low=0, high=1, where={"use_mcr": (True,)})
    gamma: float = option(2.0, "exponent of the focal factor", ALL, low=0, where={"use_mcr": (True,)})
    margin: float = option(0.5, "added to the distance that scales features", ALL, low=0, where={"use_afs": (True,)})
    per_sample_focal: bool = option(
        False, "the focal factor weighs each image by itself", "released code: off", where={"use_mcr": (True,)}
    )


class Mvp(PromptMethod):
    """P pool entries, each an E-prompt, a key [D], a mask over the C classes, and how often training chose it."""

    Args = MvpArgs
    one_per_task = ("e_pool",)
    published = {
        "backbone vit_tiny_icons": {"len_g_prompt": 2, "len_e_prompt": 4},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.001, "len_g_prompt": 2, "len_e_prompt": 4},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MvpArgs):
        super().__init__(backbone, info, args)
        check_blocks(backbone, pos_g_prompt=args.pos_g_prompt, pos_e_prompt=args.pos_e_prompt)
        width, size = backbone.num_features, args.e_pool
        parts = 2 if args.prompt_func == "prefix_tuning" else 1
        self.g_prompts = nn.Parameter(torch.randn(1, parts * len(args.pos_g_prompt) * args.len_g_prompt, width))
        self.e_prompts = nn.Parameter(torch.randn(size, parts * len(args.pos_e_prompt) * args.len_e_prompt, width))
        self.key = nn.Parameter(torch.randn(size, width))
        self.mask = nn.Parameter(torch.full((size, info.num_classes), -1.0), requires_grad=args.use_mask)
        self.register_buffer("count", torch.zeros(size))

    def fixed_features(self, x: Tensor) -> Tensor:
        """The query: class token of the frozen network before the last block and without the last norm, [B, D]."""
        with torch.no_grad():
            return self.query(embed(self.backbone, x))

    def shared_as(self, precision: str) -> str:
        return f"class token after {self.query_blocks} blocks {precision}"

    @property
    def query_blocks(self) -> int:
        return len(self.backbone.blocks) - (not self.args.use_last_layer)

    def query(self, tokens: Tensor) -> Tensor:
        return run_blocks(self.backbone, tokens, keep=1, stop=self.query_blocks)[:, 0]

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        features, (index, _, _) = self.features(x, fixed)
        return self.logits(features, index)

    def loss(self, batch: Batch) -> Tensor:
        args = self.args
        features, (index, distance, mass) = self.features(batch.x)
        ign, cps = self.scores(features, index, batch)
        if args.use_afs:  # adaptive feature scaling, of the loss only
            features = features / cps[:, None]
        ce = F.cross_entropy(mask_unseen(self.logits(features, index), batch.seen), batch.y, reduction="none")
        if args.use_mcr:  # gradient similarity-based focal loss
            focal = (1 - args.alpha) + args.alpha * ign**args.gamma
            ce = ce * (focal if args.per_sample_focal else focal.mean())
        return ce.mean() + self.key_loss(index, distance, mass)

    def features(self, x: Tensor, query: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Class token under prompts [B, D], and what `select` gives."""
        with torch.no_grad():
            tokens = embed(self.backbone, x)
            if query is None:
                query = self.query(tokens)
        selection = self.select(query)
        return self.fc_norm(encode(self.backbone, tokens, self.prompts(selection[0]))), selection

    def select(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries chosen by queries [B, D]: rows of the pool [B], distances to their keys [B], mass of all [P].

        The mass is that before this batch is counted.
        """
        # Element by element and in float32: autocast would round a matrix product to bf16 and choose other keys.
        distance = 1 - F.cosine_similarity(query.float()[:, None], self.key, dim=-1)
        mass = self.count + 1 if self.args.use_contrastiv else torch.ones_like(self.count)
        index = (distance.detach() * mass).argmin(dim=1)
        if self.training:
            self.count += F.one_hot(index, len(self.count)).sum(dim=0)
        return index, distance.gather(1, index[:, None])[:, 0], mass

    def prompts(self, index: Tensor) -> Prompts:
        """Prompts of each block: the G-prompt for every image, E-prompt `index` [B]."""
        args = self.args
        kinds = (
            (args.pos_g_prompt, args.len_g_prompt, self.g_prompts, None),
            (args.pos_e_prompt, args.len_e_prompt, self.e_prompts, index),
        )
        return by_block(kinds, args.prompt_func == "prefix_tuning")

    def logits(self, features: Tensor, index: Tensor) -> Tensor:
        """Logits [B, C] of features [B, D] in float32, scaled by the mask of the chosen entry."""
        logits = self.head(features).float()
        return logits * self.instance_mask(index) if self.args.use_mask else logits

    def instance_mask(self, index: Tensor) -> Tensor:
        """Factors in 0 ... 2 of the logits, [B, C]."""
        return 2 * self.mask[index].sigmoid()

    @torch.no_grad()
    def scores(self, features: Tensor, index: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """ign [B] in 0 ... 2, how much an image's gradient disagrees with the batch's; cps [B], how far its feature is
        from the weight of its class, plus the margin.

        Both gradients are those of the cross-entropy to the head's weight row y_b, here in closed form.
        """
        y, weight = batch.y, self.head.weight
        with full_precision(features):
            features = features.float()
            r = mask_unseen(self.logits(features, index), batch.seen).softmax(dim=1)
            r = r - F.one_hot(y, self.info.num_classes)
            if self.args.use_mask:
                r = r * self.instance_mask(index)
            own = r.gather(1, y[:, None]) * features  # g_b
            whole = (r.T @ features)[y] / len(y)  # h_b
            # Rounding may leave the range, and a power of a negative number is NaN.
            ign = (1 - F.cosine_similarity(own, whole)).clamp(min=0)
            return ign, 1 - F.cosine_similarity(weight[y], features) + self.args.margin

    def key_loss(self, index: Tensor, distance: Tensor, mass: Tensor) -> Tensor:
        """Contrastive loss of the keys: near to the queries that chose them, far from each other. Moves keys only."""
        if not self.args.use_contrastiv:
            return distance.mean()
        mass = mass[index]  # of every image b', divides the distances of every image b
        between = 1 - F.cosine_similarity(self.key[index][:, None], self.key, dim=-1)  # [B, P], zero to itself
        apart = (between[:, None] / mass[:, None]).exp().mean()  # R, over [B, B', P]
        near = (distance[:, None] / mass).exp().mean()  # A, over [B, B']
        return -(apart / (near + apart) + 1e-6).log()
