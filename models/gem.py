"""GEM: gradient episodic memory, which turns each gradient so that the loss of no past task rises.

Source: Lopez-Paz and Ranzato 2017, arXiv:1706.08840, and its release (facebookresearch/GradientEpisodicMemory 34c6b8e,
also in BCL's). If the gradient g of the minibatch has a negative product with that of a past task's memory, a row of M,
it becomes M'v + g, where v minimises v'(MM' + 1e-3 I)v / 2 + (Mg)'v over v >= margin. One ring per task, whose write
position goes on at a border.
1. The programme is solved as non-negative least squares on its Cholesky factor, with scipy in place of quadprog; both
   are exact. All of the projection is in double precision, as is the release's programme.
2. Where the programme cannot be solved, which ends the release, the gradient stays as it is and is counted
   (`unprojected` in `summary.json`).
3. The memory keeps raw samples, which pass the test transform; only written places count, where the release takes
   a ring's unwritten ones, too.
4. On `class-il`, which the paper has not, the classes of all tasks so far compete, those of the task at hand included
   (`--train_mask none`: those to come, too), where on told tasks those of a sample's own task do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from backbone.products import Stage
from models.base import FeatureArgs, RingMethod
from utils.args import RunArgs, option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError

RIDGE = 1e-3  # of the programme, as released


@dataclass(kw_only=True)
class GemArgs(FeatureArgs):
    """grows: whether the classes of all tasks so far compete; no option, `prepare` fills it in."""

    lr: float = option(0.1, "learning rate of SGD, constant", "GEM", low=0, high=100)
    n_memories: int = option(256, "samples kept per task", "GEM", low=1)
    margin: float = option(0.5, "least weight of a past task in the projection (memory_strength)", "GEM", low=0)
    train_mask: Literal["seen", "none"] = option(
        "seen", "classes that compete on class-il: those of tasks so far, or all", "ours; Mammoth: none", later=True
    )
    grows: bool = False


class Gem(RingMethod):
    Args = GemArgs
    scenarios = ("task-il", "domain-il", "class-il")
    published = {
        "*": {"batch_size": 10, "online_iter": 1, "inputs": "plain"},
        "perm-mnist": {"backbone": "mlp-100-100"},
        "rot-mnist": {"backbone": "mlp-100-100"},
        "seq-cifar100": {"backbone": "resnet18-20", "n_tasks": 20},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: GemArgs):
        super().__init__(backbone, info, args)
        self.unprojected = 0

    @classmethod
    def prepare(cls, run: RunArgs, args: GemArgs) -> list[Stage]:
        args.grows = run.scenario == "class-il"
        if args.train_mask == "none" and not args.grows:
            raise UsageError(f"--train_mask none: has no effect on {run.scenario}, only on class-il")
        return super().prepare(run, args)

    def begin_task(self, session: Session) -> None:
        super().begin_task(session)
        if self.args.grows and session.outputs is not None:  # one task of all columns so far
            count = session.outputs.stop if self.args.train_mask == "seen" else self.info.num_classes
            self.own.begin(session.index, range(count))

    def learn(self, batch: Batch) -> Tensor:
        earlier = [task for task in range(self.task) if self.memory.holds(task)]
        return self.descend(batch, [self.memory_gradient(self.memory.places(task, task + 1)) for task in earlier])

    def descend(self, batch: Batch, memories: list[Tensor]) -> Tensor:
        """A step by the gradient of the batch, turned where those of the memories ask for it."""
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if memories:
            self.turn(memories)
        self.optimizer.step()
        return loss.detach()

    def memory_gradient(self, index: Tensor) -> Tensor:
        """Gradient of the mean loss of samples at flat indices [N], one vector [P] over all parameters that train."""
        raw, y = self.memory.at(index)
        gradients = torch.autograd.grad(self.own_loss(self.info.plain(raw), y), self.trained())
        return torch.cat([gradient.flatten() for gradient in gradients])

    def turn(self, memories: list[Tensor]) -> None:
        """Changes the gradients of the parameters where those of the memories, [P] each, ask for it."""
        g = torch.cat([p.grad.flatten() for p in self.trained()]).double()
        rows = torch.stack(memories).double()
        products, gram = (rows @ g).cpu().numpy(), (rows @ rows.T).cpu().numpy()
        if not (products < 0).any():
            return
        v = weights_of_tasks(gram, products, self.args.margin)
        if v is None:
            self.unprojected += 1
            return
        self.set_gradient(rows.T @ torch.from_numpy(v).to(g.device) + g)

    def set_gradient(self, g: Tensor) -> None:
        """The gradient of all parameters, a vector [P]."""
        for p, part in zip(self.trained(), g.split([p.numel() for p in self.trained()]), strict=True):
            p.grad.copy_(part.view_as(p))

    def measures(self) -> dict[str, float]:
        return {"unprojected": self.unprojected}

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"unprojected": self.unprojected}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.unprojected = state["unprojected"]


def weights_of_tasks(gram: np.ndarray, products: np.ndarray, margin: float) -> np.ndarray | None:
    """v [k], the least of v'Pv / 2 + q'v with v >= margin, P = gram + RIDGE I [k, k], q = products [k]; None if there
    is no such thing in numbers. With v = u + margin, P = LL' and c = q + P margin it is the u >= 0 with the least
    |L'u + L^-1 c|."""
    P = gram + RIDGE * np.eye(len(gram))
    try:
        L = np.linalg.cholesky(P)
        v = nnls(L.T, -np.linalg.solve(L, products + P.sum(axis=1) * margin))[0] + margin
    except (np.linalg.LinAlgError, RuntimeError, ValueError):  # not positive definite, no end, not finite
        return None
    return v if np.isfinite(v).all() else None
