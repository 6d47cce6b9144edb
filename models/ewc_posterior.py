"""PF-EWC: online EWC read as a Laplace posterior, a Gaussian over the weights of one network.

Source: the prior-focused baseline of posterior meta-replay (`posterior_replay`; Henning, Cervera et al., NeurIPS 2021,
arXiv:2103.01133) and its release (chrhenning/posterior_replay_cl e60ed78); online EWC: Schwarz et al. 2018,
arXiv:1805.06370, with the terms of Huszar 2017, arXiv:1712.03847. For a task of N samples
    loss = N mean cross-entropy + L2 + ewc_lambda / 2 sum P (w - w*)^2,
L2 that of N(0, prior_variance) on the weights that no task has trained yet: the task's head, and in the first task all
that tasks share. After it P grows by the sum over its samples of their squared gradients (labels as they are) and, for
these weights, by 1 / prior_variance; w* are the weights. Models of tasks are drawn from N(w, 1 / P).
1. With `--n_fisher` n the sum is over n samples, drawn, and scaled by N / n; in the release 1 / prior_variance is, too.
2. P is kept whole: the release's decay `ewc_gamma`, which is 1 in its runs, takes effect at every step instead of once.
3. With one head (shared, growing) there is one model, which is not drawn; P of the last task would serve nothing.
4. Evaluated within a task, weights that are new in it are as sure as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from backbone import bayes
from backbone.bayes import Gaussian
from models.posterior_replay import (
    PERMUTED_MNIST,
    RARELY,
    RELEASE,
    SPLIT_CIFAR,
    SPLIT_MNIST,
    PosteriorArgs,
    PosteriorReplay,
)
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError

TOY = {"backbone": "mlp-10-10", "batch_size": 32, "n_iter": 10_001}
AT_ONCE = 2**24  # numbers in the gradients of single samples, 64 MiB


@dataclass(kw_only=True)
class EwcPosteriorArgs(PosteriorArgs):
    posterior: ClassVar[str] = "dirac"  # while it trains
    protection: ClassVar[str] = "none"

    val_sample_size: int = option(
        10,
        "draws of the weights in evaluation",
        RELEASE,
        low=1,
        high=10_000,
        where={"heads": ("split",), "det_multi_head": (False,)},
    )
    ewc_lambda: float = option(1.0, "weight of the penalty", RELEASE, low=0)
    n_fisher: int | None = option(None, "samples of a task that its squared gradients are of", f"{RELEASE}: all", low=1)
    det_multi_head: bool = option(
        False, "evaluation takes the weights as they are, also where tasks have heads of their own", RELEASE
    )


class EwcPosterior(PosteriorReplay):
    Args = EwcPosteriorArgs
    published = {
        "*": {"batch_size": 32, "online_iter": 1, "inputs": "plain"} | RARELY,
        "regression-1d": TOY | {"heads": "shared", "lr": 5e-4},
        "modes-2d": TOY | {"heads": "growing", "lr": 5e-4, "clip_grad_value": 1.0},
        "seq-mnist": SPLIT_MNIST | {"n_iter": 2001, "lr": 5e-4, "ewc_lambda": 10.0},
        "perm-mnist": PERMUTED_MNIST
        | {
            "n_iter": 5001,
            "lr": 1e-4,
            "clip_grad_norm": 100.0,
            "prior_variance": 0.1,
            "ewc_lambda": 0.01,
            "n_fisher": 200,
        },
        "seq-cifar10": SPLIT_CIFAR
        | {
            "n_epochs": 40,
            "lr": 1e-3,
            "ewc_lambda": 1000.0,
            "n_fisher": 200,
            "det_multi_head": True,
        },
    }
    rereads = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: EwcPosteriorArgs):
        super().__init__(backbone, info, args)
        self.has_one_head = args.heads != "split"
        self.register_buffer("precision", torch.zeros(self.main.size))  # P; 0: no task has trained the weight
        self.register_buffer("anchor", torch.zeros(self.main.size))  # w*

    @classmethod
    def check(cls, args: EwcPosteriorArgs, is_mlp: bool) -> None:
        if args.det_multi_head and args.heads != "split":
            raise UsageError(
                f"--det_multi_head: with --heads {args.heads} there is one head, whose model is never drawn"
            )

    def in_use(self) -> Tensor:
        """Which weights the task at hand trains, bool [P]."""
        rows = range(self.main.num_outputs) if self.has_one_head else self.outputs_of(self.task)
        return self.main.owned(rows, self.device)

    def loss(self, batch: Batch) -> Tensor:
        flat = self.source(self.task)
        loss = self.num_samples * self.mean_nll(self.training_outputs(flat, batch.x).float(), batch.y)
        new = self.in_use() & (self.precision == 0)
        loss = loss + flat.masked_fill(~new, 0).square().sum() / (2 * self.args.prior_variance)
        if self.task > 0 and self.args.ewc_lambda > 0:
            loss = loss + self.args.ewc_lambda * self.penalty()
        return loss

    def penalty(self) -> Tensor:
        return (self.precision * (self.source(self.task) - self.anchor).square()).sum() / 2

    @torch.no_grad()
    def end_updates(self, session: Session) -> None:
        if self.has_one_head and session.index == self.info.num_tasks - 1:
            return
        new = self.in_use() & (self.precision == 0)
        self.precision += self.squared_gradients(session)
        self.precision[new] += 1 / self.args.prior_variance
        self.anchor.copy_(self.source(self.task))

    def squared_gradients(self, session: Session) -> Tensor:
        """Of -log p(y | x) for the weights [P], summed over the samples of a session, or over a draw scaled to them."""

        def nll(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self.mean_nll(self.main(flat[None], x[None]).float(), y[None])

        total, wanted = session.num_samples, self.args.n_fisher or session.num_samples
        drawn = torch.zeros(total, dtype=torch.bool)
        drawn[torch.randperm(total)[:wanted] if wanted < total else slice(None)] = True
        per_sample = vmap(grad(nll), in_dims=(None, 0, 0))
        flat, squares = self.source(self.task), torch.zeros_like(self.precision)
        size = max(1, min(256, AT_ONCE // self.main.size))
        self.eval()  # of batch norm the running statistics
        for batch, chosen in zip(session.again(size), drawn.split(size)):
            if chosen.any():
                chosen = chosen.to(self.device)
                squares += per_sample(flat, batch.x[chosen], batch.y[chosen]).square().sum(0)
        self.train()
        return squares * (total / wanted) if wanted < total else squares

    def test_weights(self, task: int) -> Tensor:
        if self.has_one_head or self.args.det_multi_head:
            return self.source(task)[None]
        return bayes.draw(self.laplace(), self.test_noise())

    def laplace(self) -> Gaussian:
        """The posterior of all weights, that of heads to come the prior."""
        unknown, in_use = self.precision == 0, self.in_use()
        std = self.precision.rsqrt().masked_fill(unknown, self.args.prior_variance**0.5)
        return Gaussian(self.source(self.task).masked_fill(unknown & ~in_use, 0), std.masked_fill(unknown & in_use, 0))
