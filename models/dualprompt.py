"""DualPrompt: one general prompt in early blocks, expert prompts chosen by key in the next (online form).

Source: Wang et al., ECCV 2022, arXiv:2204.04799; the online form of FlyGCL (AnAppleCore/FlyGCL, 79a6b51).
Departures from the paper, as in the released online code:
1. Prompt tuning (tokens) by default, prefix tuning as an option; in the paper it is the other way round.
2. Without task boundaries: an internal step counter moves by images seen (`step_schedule samples`). Of the tasks it is
   told only how many there are, by default the number of steps, as in FlyGCL. The MISA and MePo releases move the
   counter at every task end (`task`) and read the prompt table with the index inside the slice (`prompt_index local`),
   so that in training only the first prompts of the table are ever used.
3. Training masks the logits of classes absent from the batch (`train_mask batch`); in the paper, of past classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.prompts import PromptPool, by_block, uniform
from backbone.vit import Prompts, class_position, embed, encode
from models.base import ModelArgs, PromptMethod, check_blocks
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.step_clock import StepClock

ALL = "FlyGCL, MISA and MePo, all datasets"


@dataclass(kw_only=True)
class DualPromptArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam, constant", ALL, low=0, high=100)
    len_g_prompt: int = option(5, "tokens of the G-prompt per block", "FlyGCL; MISA and MePo: 10", low=1)
    len_e_prompt: int = option(20, "tokens of an E-prompt per block", ALL, low=1)
    pos_g_prompt: tuple[int, ...] = option((0, 1), "blocks that take the G-prompt", ALL, low=0)
    pos_e_prompt: tuple[int, ...] = option((2, 3, 4), "blocks that take an E-prompt", ALL, low=0)
    e_pool: int = option(10, "E-prompts in the pool, at least one per step", ALL, low=1)
    prompt_func: Literal["prompt_tuning", "prefix_tuning"] = option("prompt_tuning", "how prompts enter a block", ALL)
    lambd: float = option(1.0, "weight of the distance between query and chosen key", ALL, low=0)
    step_num: int = option(
        5, "internal steps, each with its own slice of the pool; default: --n_tasks", "FlyGCL: number of tasks", low=1
    )
    step_schedule: Literal["samples", "task"] = option("samples", "what moves the step counter", "FlyGCL; MISA: task")
    prompt_index: Literal["global", "local"] = option("global", "row read in training", "FlyGCL; MISA: local (a fault)")
    train_mask: Literal["batch", "seen"] = option("batch", "classes that compete in the training loss", ALL)


class DualPrompt(PromptMethod):
    Args = DualPromptArgs
    one_per_task = ("step_num",)
    # The shipped networks see 17 tokens, not 197.
    published = {
        "backbone vit_tiny_icons": {"len_g_prompt": 2, "len_e_prompt": 4},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.001, "len_g_prompt": 2, "len_e_prompt": 4},  # command/choose_glyphs.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: DualPromptArgs):
        super().__init__(backbone, info, args)
        check_blocks(backbone, pos_g_prompt=args.pos_g_prompt, pos_e_prompt=args.pos_e_prompt)
        width = backbone.num_features
        parts = 2 if args.prompt_func == "prefix_tuning" else 1
        self.pool_size = max(args.e_pool, args.step_num)
        self.g_prompt = nn.Module()
        self.g_prompt.prompts = uniform(1, parts * len(args.pos_g_prompt) * args.len_g_prompt, width)
        self.e_prompt = PromptPool(self.pool_size, parts * len(args.pos_e_prompt) * args.len_e_prompt, width)
        self.clock = StepClock(args.step_num, info.num_images)  # its step is the counter s

    @property
    def needs_task_boundaries(self) -> bool:
        return self.args.step_schedule == "task"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, fixed)[0])

    def loss(self, batch: Batch) -> Tensor:
        features, distance = self.features(batch.x)
        logits = self.masked(self.head(features), batch)
        return F.cross_entropy(logits, batch.y) + self.args.lambd * distance.mean()  # Eq. 6

    def features(self, x: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token under prompts [B, D], and the distance of each query to its key [B]."""
        with torch.no_grad():
            tokens = embed(self.backbone, x)
            if query is None:
                query = encode(self.backbone, tokens)
        index, distance = self.select(query)
        return self.fc_norm(encode(self.backbone, tokens, self.prompts(index))), distance

    def select(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the prompt table for queries [B, D], and their key distances [B].

        Training matches the slice of keys of the current step, once it lies inside the pool; evaluation all keys.
        """
        width = max(1, self.pool_size // self.args.step_num)
        start, stop = 0, self.pool_size
        if self.training and self.clock.step * width < self.pool_size:
            start, stop = self.clock.step * width, (self.clock.step + 1) * width
        distance, index = self.e_prompt.select(query, start=start, stop=stop)
        distance, index = distance[:, 0], index[:, 0]
        if self.args.prompt_index == "local":
            index = index - start
        self.e_prompt.count(index)
        return index, distance

    def tables(self) -> tuple[Tensor, Tensor]:
        """All G-prompts [1, L_G, D] and all E-prompts [M, L_E, D] as they enter the blocks."""
        return self.g_prompt.prompts, self.e_prompt.prompts

    def prompts(self, index: Tensor) -> Prompts:
        """Prompts of each block: the G-prompt for every image, E-prompt `index` [B]."""
        args, (g_table, e_table) = self.args, self.tables()
        kinds = (
            (args.pos_g_prompt, args.len_g_prompt, g_table, None),
            (args.pos_e_prompt, args.len_e_prompt, e_table, index),
        )
        return by_block(kinds, args.prompt_func == "prefix_tuning", class_position(self.backbone))

    def end_batch(self, batch: Batch) -> None:
        if self.args.step_schedule == "samples":
            self.clock.add(len(batch.y))

    def end_task(self, session: Session) -> None:
        if self.args.step_schedule == "task":
            self.clock.step += 1

    def extra_state(self) -> dict[str, Any]:
        return {"clock": self.clock.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.clock.load_state_dict(state["clock"])
