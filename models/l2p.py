"""L2P: a pool of prompts with keys; each image takes the prompts whose keys are nearest to its query (online form).

Source: Wang et al., CVPR 2022, arXiv:2112.08654; the online form of FlyGCL (AnAppleCore/FlyGCL, 79a6b51).
Departures from the paper, as in the released online code:
1. The pull term adds the mean distance of the chosen keys (`lambd`), where the paper's Eq. 5 sums over them.
2. Diversified selection (section 4.2) is on, but the frequencies behind it never move (`frequency_update never`), so it
   changes nothing; with `task` they move at every task end.
3. Training masks the logits of classes absent from the batch (`train_mask batch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.prompts import PromptPool
from backbone.vit import class_position, embed, encode, run_blocks
from models.base import ModelArgs, PromptMethod
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError

FLYGCL = "FlyGCL, all datasets"


@dataclass(kw_only=True)
class L2pArgs(ModelArgs):
    lr: float = option(
        0.005, "learning rate of Adam, constant", "FlyGCL and MePo; MISA and paper: 0.03", low=0, high=100
    )
    e_pool: int = option(30, "prompts in the pool (M)", "FlyGCL; Si-Blurry, MISA and MePo: 10", low=1)
    selection_size: int = option(5, "prompts of an image (N in the paper)", FLYGCL, low=1)
    len_e_prompt: int = option(5, "tokens of a prompt (L_p)", "FlyGCL; MISA and MePo: 10", low=1)
    lambd: float = option(0.5, "weight of the mean distance between query and chosen keys", FLYGCL, low=0)
    diversity: bool = option(True, "keys used often are avoided in training, see frequency_update", FLYGCL)
    batchwise: bool = option(False, "all images of a batch take the prompts most of them chose", "PILOT: on")
    frequency_update: Literal["never", "task"] = option(
        "never", "when the frequencies of the keys move", "released code: never"
    )
    train_mask: Literal["batch", "seen"] = option("batch", "classes that compete in the training loss", FLYGCL)


class L2p(PromptMethod):
    Args = L2pArgs
    published = {
        "backbone vit_tiny_icons": {"len_e_prompt": 2},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.005, "len_e_prompt": 2},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: L2pArgs):
        super().__init__(backbone, info, args)
        if args.selection_size > args.e_pool:
            raise UsageError(
                f"--selection_size {args.selection_size}: the pool has only {args.e_pool} prompts (--e_pool)"
            )
        width = backbone.num_features
        self.prompt = PromptPool(args.e_pool, args.len_e_prompt, width, args.diversity, args.batchwise)

    @property
    def needs_task_boundaries(self) -> bool:
        return self.args.frequency_update == "task"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, fixed)[0])

    def loss(self, batch: Batch) -> Tensor:
        features, distance = self.features(batch.x)
        logits = self.masked(self.head(features), batch)
        return F.cross_entropy(logits, batch.y) + self.args.lambd * distance.mean()  # Eq. 5

    def features(self, x: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean of the outputs at the prompts' places [B, D], and the distances of the chosen keys [B, N]."""
        with torch.no_grad():
            tokens = embed(self.backbone, x)
            if query is None:
                query = encode(self.backbone, tokens)  # q(x), section 4.2
        index, distance = self.select(query)
        prompts = (self.prompt.prompts + class_position(self.backbone))[index].flatten(1, 2)  # [B, N * L_p, D]
        tokens = torch.cat((tokens[:, :1], prompts, tokens[:, 1:]), dim=1)  # x_p, Eq. 4, behind the class token
        outputs = run_blocks(self.backbone, tokens, keep=1 + prompts.shape[1])
        return self.fc_norm(self.backbone.norm(outputs)[:, 1:].mean(dim=1)), distance

    def select(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the pool for queries [B, D], nearest first (Eq. 3), and their key distances, both [B, N]."""
        distance, index = self.prompt.select(query, self.args.selection_size)
        self.prompt.count(index)
        return index, distance

    def end_task(self, session: Session) -> None:
        if self.args.frequency_update == "task":
            self.prompt.update()
