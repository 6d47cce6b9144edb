"""FDR, function distance regularisation: after each step a second one, back to what stored images gave at task ends.

Source: Benjamin et al., ICLR 2019, arXiv:1805.08289; release: Mammoth. A step on the cross-entropy of the batch, then,
with a memory, one on
    alpha * mean over replayed images of the L2 distance of the softmax of their logits to that of the stored ones.
At the end of a task the memory is shared anew among all tasks so far: earlier ones keep their first images, and the
task adds a draw of its own, which it reads again for that. Faults of the release that are mended:
1. `alpha` is an option there that nothing uses.
2. Its shares are those of one task fewer, so that two tasks want the whole memory each.
3. Logits of augmented images are stored beside the images as they are; here both are of the image at test time.
Classes not met yet are left out of both steps; Mammoth masks nothing (`--train_mask none`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import MAMMOTH_SPLITS
from models.er import Er, ErArgs
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError
from utils.finite import FiniteRows

SIZE = 128  # images per pass over the samples of a task
TASKS = 3  # column of the memory: images, slots, logits, tasks


@dataclass(kw_only=True)
class FdrArgs(ErArgs):
    alpha: float = option(1.0, "weight of the distance, in a step of its own", "Mammoth: 1 in effect", low=0)
    exact_reservoir: bool = False  # no reservoir: no option of this method


OWN = {"lr": 0.03, "optimizer": "plain", "train_mask": "none", "memory_size": 500}  # Mammoth's recorded best values


class Fdr(Er):
    Args = FdrArgs
    scenarios = ("class-il", "task-il", "domain-il")
    needs_task_boundaries = True
    rereads = True
    published = {
        "*": {"batch_size": 32, "online_iter": 1},
        "seq-cifar10": MAMMOTH_SPLITS["seq-cifar10"] | OWN,
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FdrArgs):
        if args.memory_size < info.num_tasks:
            raise UsageError(f"--memory_size {args.memory_size}: fdr keeps an image of each of {info.num_tasks} tasks")
        super().__init__(backbone, info, args)
        self.finite = FiniteRows()

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.masked(self(batch.x), batch), batch.y)

    def observe(self, batch: Batch) -> Tensor:
        loss = super().observe(batch)
        if not len(self.buffer):
            return loss
        images, _, stored, _ = self.buffer.sample(self.args.replay_size)
        with self.autocast():
            logits = self(self.info.augment(images))
        p, q = (self.masked(z, batch).softmax(dim=1) for z in (logits, stored))
        distance = self.args.alpha * (p - q).norm(dim=1).mean()
        self.optimizer.zero_grad(set_to_none=True)
        distance.backward()
        self.optimizer.step()
        return loss + distance.detach()

    def end_batch(self, batch: Batch) -> None:
        """Nothing is stored before the task is over."""

    @torch.no_grad()
    def end_updates(self, session: Session) -> None:
        if not session.num_samples:
            return
        share = self.args.memory_size // (session.index + 1)
        drawn = torch.zeros(session.num_samples, dtype=torch.bool)
        drawn[torch.randperm(session.num_samples, generator=self.buffer.generator)[:share]] = True
        added = []
        self.eval()
        for batch, chosen in zip(session.again(SIZE), drawn.split(SIZE)):
            if not chosen.any():
                continue
            chosen = chosen.to(batch.y.device)
            with self.autocast():
                logits = self(batch.x[chosen]).float()
            kept = self.finite(logits)
            raw, y = batch.raw[chosen][kept], batch.y[chosen][kept]
            added.append((raw, y, logits[kept], torch.full_like(y, session.index)))
        self.train()
        self.buffer.share_out(share, TASKS, *(torch.cat(column) for column in zip(*added)))
