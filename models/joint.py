"""Joint training, the upper bound: every image met so far is kept, and all of them train a method evenly at any time.

Source: the upper bound of continual learning, here on the stream's own clock, so that its curve can be laid beside the
others: after each batch `updates` training batches are drawn from everything met so far. The last point is offline
training of `updates` x batches x batch size images. Any method can be trained so (`--host`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Wrapper, WrapperArgs
from utils.args import option
from utils.buffer import ReservoirBuffer
from utils.contracts import Batch, StreamInfo


@dataclass(kw_only=True)
class JointArgs(WrapperArgs):
    host: str = option("finetune", "method that is trained", method=True)
    updates: int = option(5, "updates after each arriving batch, each on images drawn evenly from all so far", low=1)
    joint_batch: int = option(64, "images of such an update", low=1, high=10_000)


class Joint(Wrapper):
    Args = JointArgs
    published = {
        "*": {"online_iter": 1},
        "host finetune on seq-glyphs": {"lr": 0.0003},  # command/choose_glyphs.sh, as the next
        "host singleprompt on seq-glyphs": {"lr": 0.005, "prompt_length": 20, "updates": 20},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: JointArgs):
        super().__init__(backbone, info, args)
        self.memory = ReservoirBuffer(info.num_images, info.seed, exact=True)

    def observe(self, batch: Batch) -> Tensor:
        """Trains on everything met so far, this batch included; the mean loss."""
        losses = []
        for _ in range(self.args.updates):
            images, slots = self._draw(batch)
            losses.append(super().observe(Batch(self.info.augment(images), slots, images, batch.seen)))
        return torch.stack(losses).mean()

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and slots drawn evenly, without repeats, from memory and batch."""
        stored = len(self.memory)
        order = torch.randperm(stored + len(batch.y), generator=self.memory.generator)[: self.args.joint_batch]
        device = batch.y.device
        old = order[order < stored].to(device, non_blocking=True)
        new = (order[order >= stored] - stored).to(device, non_blocking=True)
        if not stored:
            return batch.raw[new], batch.y[new]
        images = torch.cat((self.memory.images[old], batch.raw[new]))
        return images, torch.cat((self.memory.slots[old], batch.y[new]))

    def end_batch(self, batch: Batch) -> None:
        self.memory.add(batch.raw, batch.y)
        super().end_batch(batch)

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"memory": self.memory.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.memory.load_state_dict(state["memory"])
