"""Joint training, the upper bound: all images met so far train a method evenly at any time.

Source: the upper bound of continual learning, here on the stream's own clock, so that its curve can be laid beside the
others: after each batch `updates` training batches are drawn from everything met so far. The last point is offline
training of `updates` x batches x batch size images. The stream is read again for it, which no other method may. Any
method can be trained so (`--host`) that keeps nothing of the images but its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from backbone.products import Stage
from models.base import Wrapper, WrapperArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, StreamInfo
from utils.errors import UsageError
from utils.registry import METHODS


@dataclass(kw_only=True)
class JointArgs(WrapperArgs):
    host: str = option("finetune", "method that is trained", "ours", method=True)
    updates: int = option(
        5, "updates after each arriving batch, each on images drawn evenly from all so far", "ours", low=1
    )
    joint_batch: int = option(64, "images of such an update", "ours", low=1, high=10_000)


class Joint(Wrapper):
    Args = JointArgs
    published = {
        "*": {"online_iter": 1},
        "host singleprompt on backbone vit_tiny_icons": {"lr": 0.005, "updates": 10},  # command/choose_icons.sh
        "host finetune on seq-glyphs": {"lr": 0.0003},  # command/choose_glyphs.sh, as the next
        "host singleprompt on seq-glyphs": {"lr": 0.005, "prompt_length": 20, "updates": 20},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: JointArgs):
        super().__init__(backbone, info, args)
        self.met = torch.empty(0, dtype=torch.int64)  # indices of all images met so far, each once
        self.slots = torch.empty(0, dtype=torch.int64)  # of these images
        self.generator = Generator().manual_seed(info.seed)

    @classmethod
    def prepare(cls, run: RunArgs, args: JointArgs) -> list[Stage]:
        """The host's stages. Raises UsageError for a host that would learn from more than the updates."""
        if kept := METHODS.load(args.host).keeps(args.host_args):
            raise UsageError(f"--host {args.host}: it keeps {kept} of its own; joint trains methods that keep nothing")
        return super().prepare(run, args)

    def observe(self, batch: Batch) -> Tensor | None:
        """Trains on everything met so far, this batch included; the mean loss."""
        losses = []
        met, slots = self._with(batch)
        for _ in range(self.args.updates):
            drawn = torch.randperm(len(met), generator=self.generator)[: self.args.joint_batch]
            images, y = self.info.images(met[drawn]), slots[drawn.to(slots.device, non_blocking=True)]
            losses.append(super().observe(Batch(self.info.augment(images), y, images, batch.seen)))
        losses = [loss for loss in losses if loss is not None]
        return torch.stack(losses).mean() if losses else None

    def _with(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Indices and slots of all images met, those of the batch included."""
        new = torch.where(~torch.isin(batch.indices, self.met))[0]
        fresh = batch.y[new.to(batch.y.device, non_blocking=True)]
        return torch.cat((self.met, batch.indices[new])), torch.cat((self.slots.to(fresh.device), fresh))

    def end_batch(self, batch: Batch) -> None:
        self.met, self.slots = self._with(batch)
        super().end_batch(batch)

    def extra_state(self) -> dict[str, Any]:
        own = {"met": self.met, "slots": self.slots, "generator": self.generator.get_state()}
        return super().extra_state() | own

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.met, self.slots = state["met"], state["slots"]
        self.generator.set_state(state["generator"])
