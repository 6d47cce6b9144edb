"""BCL: bilevel continual learning, which replays from one memory and checks itself on another.

Source: Pham et al. 2020, arXiv:2007.15553, and the release (phquang/bilevel-continual-learning b3bab95), followed in:
1. Gradients add up over the inner steps and the outer one; `--clear_grad` is the textbook form.
2. The KL divergence to the soft targets is a mean over samples and columns, so that it weighs little.
3. Replay indices that are among the last validation indices are left out, though the two number different memories
   (`--released_exclusion`); where none is left, the replay terms are, too, where the release fails.
4. A task's first sample fills its validation memory, its second the ring; of a minibatch, what is beyond a ring's end
   is not stored. Replay, validation and soft-target passes count for batch norm.
Departures: the memory keeps raw samples, augmented anew where they are trained on (the same as in the release under
`--inputs plain`); draws are of written places only; a minibatch of one sample gives none to the validation memory.
Published, but without data that can be had: split CUB (lr 0.03, n_memories 50, an ImageNet ResNet-18, else as permuted
MNIST) and split miniImageNet (lr 0.05, else as split CIFAR-100).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.products import Stage
from models.ftml import Ftml, FtmlArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError
from utils.rings import TaskRings


@dataclass(kw_only=True)
class BclArgs(FtmlArgs):
    form: Literal["dual", "single"] = option(
        "dual", "dual: an outer step on a validation memory; single: none, one ring per task", "BCL"
    )
    memory_strength: float = option(100.0, "weight of the KL divergence to the soft targets", "BCL: its runs", low=0)
    temperature: float = option(5.0, "temperature of the soft targets", "BCL: its runs", low=1e-3)
    replay_batch_size: int = option(128, "samples replayed per step, at most", "BCL; its README: 64", low=1)
    val_ratio: float = option(0.2, "share of n_memories that validates (form dual)", "BCL", low=0, high=0.99)
    clear_grad: bool = option(False, "clear gradients before each step (form dual), not after the last", "BCL: off")
    released_exclusion: bool = option(True, "leave out replay indices that were last validation indices", "BCL: on")


class Bcl(Ftml):
    Args = BclArgs
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {
            "backbone": "mlp-128-128-128",
            "lr": 0.03,
            "beta": 0.3,
            "inner_steps": 1,
            "n_meta": 2,
            "n_memories": 256,
        },
        "seq-cifar100": {
            "backbone": "resnet18-20-pool",
            "n_tasks": 20,
            "lr": 0.3,
            "beta": 0.1,
            "inner_steps": 2,
            "n_meta": 1,
            "n_memories": 65,
        },
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: BclArgs):
        self.is_dual, self.n_val = args.form == "dual", val_slots(args)
        super().__init__(backbone, info, args)
        self.validation = TaskRings(info.num_tasks, max(1, self.n_val), info.seed + 1)
        self.last_val = torch.empty(0, dtype=torch.int64)  # validation indices drawn last
        self.displaced: list[Tensor] = []  # raw and slot of the sample that the minibatch's first one displaced

    @classmethod
    def prepare(cls, run: RunArgs, args: BclArgs) -> list[Stage]:
        """No stage. Raises UsageError for a validation memory that is too small."""
        val_slots(args)
        return super().prepare(run, args)

    def make_memory(self) -> TaskRings:
        return TaskRings(self.info.num_tasks, self.args.n_memories - self.n_val, self.info.seed)

    def meet(self, batch: Batch) -> None:
        """Form dual: the first sample goes to the validation memory, and what it displaces there joins the minibatch;
        the rest goes to the ring."""
        raw, y, task = batch.raw, batch.y, self.task
        self.displaced = []
        if self.is_dual and len(y) > 1:
            if self.validation.holds(task):
                place = torch.tensor([task * self.n_val + self.validation.position])
                self.displaced = list(self.validation.at(place))
            else:
                self.validation.fill(task, raw[:1], y[:1])
            self.validation.write(task, raw[:1], y[:1])
            raw, y = raw[1:], y[1:]
            if self.displaced:
                raw, y = torch.cat((raw, self.displaced[0])), torch.cat((y, self.displaced[1]))
        if self.is_dual and not self.memory.holds(task):
            self.memory.fill(task, raw[:1], y[:1])
        self.memory.write(task, raw, y)

    def learn(self, batch: Batch) -> Tensor:
        args, given = self.args, batch
        if self.is_dual and len(batch.y) > 1:
            x, y = batch.x[1:], batch.y[1:]
            if self.displaced:
                raw, slot = self.displaced
                x, y = torch.cat((x, self.info.augment(raw))), torch.cat((y, slot))
            given = replace(batch, x=x, y=y)
        for _ in range(args.n_meta if self.is_dual else 1):
            start = self.weights()
            self.optimizer.zero_grad(set_to_none=True)
            for _ in range(args.inner_steps):
                self.bilevel_step(loss := self.loss(given))
            if self.is_dual and (outer := self.outer_loss()) is not None:
                self.bilevel_step(loss := outer)
            self.interpolate(start)
        return loss.detach()

    def bilevel_step(self, loss: Tensor) -> None:
        """A step of SGD; form dual as released: by the sum of the gradients since the weights were last kept."""
        if self.args.clear_grad or not self.is_dual:
            self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def loss(self, batch: Batch) -> Tensor:
        """Of an inner step: cross-entropy of the minibatch; from the second task on also of a replay draw, and how far
        that is from its soft targets."""
        loss = self.own_loss(batch.x, batch.y)
        index = self.draw_replay() if self.task > 0 else self.last_val[:0]
        if not len(index):
            return loss
        again, divergence = self.replay_losses(index)
        return loss + again + self.args.memory_strength * divergence

    def draw_replay(self) -> Tensor:
        """Flat indices of samples of earlier tasks, without those that are among the last validation indices."""
        index = self.memory.draw(self.task, min(self.memory.slots, self.args.replay_batch_size))
        if self.is_dual and self.args.released_exclusion:
            index = index[~torch.isin(index, self.last_val)]
        return index

    def replay_losses(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of replayed samples, and the mean over samples and their own columns of
        q (log q - log softmax(z / temperature)), q the soft target."""
        x, y = self.replay(self.memory, index)
        logits, q, foreign = self.own_logits(x, y), self.memory.soft_at(index), self.own.foreign(y)
        log_p = (logits / self.args.temperature).log_softmax(dim=1).masked_fill(foreign, 0.0)
        divergence = (torch.xlogy(q, q) - q * log_p).sum() / (~foreign).sum()
        return F.cross_entropy(logits, y), divergence

    def outer_loss(self) -> Tensor | None:
        """Cross-entropy of a draw from the validation memories of all tasks so far; None where they are empty."""
        tasks = self.task + 1
        self.last_val = self.validation.draw(tasks, min(tasks * self.n_val, self.args.replay_batch_size))
        return self.own_loss(*self.replay(self.validation, self.last_val)) if len(self.last_val) else None

    def begin_task(self, session: Session) -> None:
        if self.task >= 0 and self.memory.holds(self.task):
            self.keep_soft_targets(self.task)
        super().begin_task(session)
        self.validation.restart()

    @torch.no_grad()
    def keep_soft_targets(self, task: int) -> None:
        """What the network, in training mode, makes of the memory of a task that is over."""
        index = self.memory.places(task, task + 1)
        raw, y = self.memory.at(index)
        logits = self.own_logits(self.info.plain(raw), y)
        self.memory.set_soft(index, (logits / self.args.temperature).softmax(dim=1))

    def extra_state(self) -> dict[str, Any]:
        own = {"validation": self.validation.state_dict(), "last_val": self.last_val, "displaced": self.displaced}
        return super().extra_state() | own

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        device = self.own.owner.device
        self.validation.load_state_dict(state["validation"], device)
        self.last_val = state["last_val"].cpu()
        self.displaced = [kept.to(device) for kept in state["displaced"]]


def val_slots(args: BclArgs) -> int:
    """Samples per task of the validation memory, none of form single. Raises UsageError if there are not two."""
    if args.form == "single":
        return 0
    if (slots := int(args.val_ratio * args.n_memories)) < 2:
        raise UsageError(
            f"--n_memories {args.n_memories} --val_ratio {args.val_ratio}: the validation memory would hold {slots} "
            "samples per task, and needs 2; give more memory, or --form single"
        )
    return slots
