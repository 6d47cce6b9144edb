"""iCaRL: a memory of images chosen by herding, sigmoids distilled from the network before, nearest class mean at test.

Source: Rebuffi et al., CVPR 2017, arXiv:1611.07725, Algorithms 1 to 5; release: Mammoth. The loss is the binary
cross-entropy of the sigmoids of batch and replayed images, mean over images and classes; targets are the labels, and
for classes of past tasks what the network gave as the task began. `opt_wd` times the squared weights joins it. At the
end of a task each class so far has an equal share of the memory: of old classes the first images stay, and of new ones
those are taken, one by one, that keep the mean feature nearest to that of the class; the task is read again for it.
An image belongs to the class whose mean is nearest; a mean is over the images of the memory and their mirror images.
All features have length 1, and so have the means. Departures from both: the memory is replayed beside each batch, as
in `er`, where they join it to the images of a task. Before the first task is over the classifier predicts, and later
classes without images in memory are not predicted. Classes not met yet are left out of the loss, where the release has
all (`--train_mask none`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import MAMMOTH_SPLITS, logits_then, weights_now
from models.er import Er, ErArgs
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError

SIZE = 128  # images per pass over the samples of a task, or over the memory
SLOTS = 1  # column of the memory: images, slots
FAR = -1e9  # below every score; infinite ones would pass for an error


@dataclass(kw_only=True)
class IcarlArgs(ErArgs):
    opt_wd: float = option(1e-5, "weight of the squared weights in the loss", "Mammoth", low=0)
    exact_reservoir: bool = False  # no reservoir: no option of this method


# Mammoth's recorded best values, and the rates below
OWN = {"optimizer": "plain", "memory_size": 500, "train_mask": "none"}


class Icarl(Er):
    Args = IcarlArgs
    scenarios = ("class-il", "task-il")
    needs_task_boundaries = True
    rereads = True
    fixed_suffice = True
    predicts_from_state = True
    published = {
        "*": {"batch_size": 32, "online_iter": 1},
        "seq-cifar10": MAMMOTH_SPLITS["seq-cifar10"] | OWN | {"lr": 0.1},
        "seq-cifar100": MAMMOTH_SPLITS["seq-cifar100"] | OWN | {"lr": 0.3},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: IcarlArgs):
        if args.memory_size < info.num_classes:
            raise UsageError(
                f"--memory_size {args.memory_size}: icarl keeps an image of each of {info.num_classes} classes"
            )
        super().__init__(backbone, info, args)
        self.past = 0  # classes of tasks that are over
        self.old: dict[str, Tensor] = {}  # weights as the task began, from the second one on
        self._means: Tensor | None = None  # of the classes in memory, until training goes on

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        """In training the logits of the classifier; at test minus the squared distance to each class mean, [B, C], FAR
        for a class without images in memory."""
        if self.training or not len(self.buffer):
            return super().forward(x, fixed)
        z = F.normalize((self.fixed_features(x) if fixed is None else fixed).float(), dim=1)
        means = self.means()
        return (2 * z @ means.T - 2).masked_fill(means.isnan().any(dim=1), FAR)

    @torch.no_grad()
    def means(self) -> Tensor:
        """Of length 1 for each class, [C, D]; NaN for a class without images in memory."""
        if self._means is None:
            images, slots = (column[: len(self.buffer)] for column in self.buffer.columns)
            z = torch.cat([self.unit_features(self.info.plain(raw)) for raw in both_ways(images).split(SIZE)])
            slots = slots.repeat(len(z) // len(slots))
            total = z.new_zeros(self.info.num_classes, z.shape[1]).index_add_(0, slots, z)
            count = torch.bincount(slots, minlength=self.info.num_classes)
            self._means = F.normalize(total, dim=1).masked_fill((count == 0)[:, None], torch.nan)
        return self._means

    def unit_features(self, x: Tensor) -> Tensor:
        """Features of length 1, [B, D]."""
        with self.autocast():
            return F.normalize(self.fixed_features(x).float(), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch.x, batch.y
        if len(self.buffer):
            images, slots = self.buffer.sample(self.args.replay_size)
            x, y = torch.cat((x, self.info.augment(images))), torch.cat((y, slots))
        columns = batch.seen if self.args.train_mask == "seen" else self.info.num_classes
        targets = F.one_hot(y, self.info.num_classes).float()
        if self.old:
            targets[:, : self.past] = logits_then(self, self.old, x)[:, : self.past].sigmoid()
        loss = F.binary_cross_entropy_with_logits(self(x).float()[:, :columns], targets[:, :columns])
        return loss + self.args.opt_wd * sum(p.square().sum() for p in self.trained())

    def observe(self, batch: Batch) -> Tensor | None:
        self._means = None
        return super().observe(batch)

    def end_batch(self, batch: Batch) -> None:
        """Nothing is stored before the task is over."""

    def begin_task(self, session: Session) -> None:
        assert session.outputs is not None  # tasks have classes of their own on these streams
        self.past = session.outputs.start
        if self.past > 0:
            self.old = weights_now(self)

    @torch.no_grad()
    def end_updates(self, session: Session) -> None:
        if not session.num_samples:
            return
        assert session.outputs is not None
        share, met = self.args.memory_size // session.outputs.stop, []
        self.backbone.eval()
        for batch in session.again(SIZE):
            met.append((self.unit_features(batch.x), batch.y))
        z, y = (torch.cat(column) for column in zip(*met))
        rows = [torch.where(y == slot)[0] for slot in y.unique()]
        chosen = torch.cat([own[herd(z[own], share)] for own in rows])
        taken = torch.zeros(len(y), dtype=torch.bool, device=y.device).index_fill_(0, chosen, True)
        raw = torch.cat([batch.raw[kept] for batch, kept in zip(session.again(SIZE), taken.split(SIZE))])
        self.buffer.share_out(share, SLOTS, raw[chosen.argsort().argsort()], y[chosen])
        self._means = None
        self.train()

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"past": self.past, "old": dict(self.old)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.past, self._means = state["past"], None
        self.old = {name: value.to(self.head.weight.device) for name, value in state["old"].items()}


def herd(z: Tensor, count: int) -> Tensor:
    """Rows of features z [N, D], `count` at most, in the order in which they are chosen: each makes the mean of those
    chosen so far come nearest to the mean of all."""
    mean, total, free = z.mean(dim=0), torch.zeros_like(z[0]), torch.ones(len(z), dtype=torch.bool, device=z.device)
    chosen = []
    for size in range(1, min(count, len(z)) + 1):
        distance = (mean - (total + z) / size).norm(dim=1).masked_fill(~free, torch.inf)
        row = distance.argmin()
        chosen.append(row)
        total, free = total + z[row], free.index_fill(0, row, False)
    return torch.stack(chosen)


def both_ways(raw: Tensor) -> Tensor:
    """Images [N, C, H, W] and, behind them, their mirror images; numbers [N, F] have none."""
    return torch.cat((raw, raw.flip(-1))) if raw.ndim == 4 else raw
