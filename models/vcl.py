"""VCL: variational continual learning, one Gaussian over the weights of one network, whose prior is its past.

Source: Nguyen et al., ICLR 2018, arXiv:1710.10628, without coresets, as the prior-focused baseline (PF-BbB) of
posterior meta-replay (`posterior_replay`; Henning, Cervera et al., NeurIPS 2021, arXiv:2103.01133) and its release
(chrhenning/posterior_replay_cl e60ed78). For task t of N samples
    loss = kl_scale KL(q || q as task t - 1 left it) + N mean cross-entropy, the first prior being N(0, prior_variance).
1. As in the release's classification the prior is the past of all weights, heads to come included, which the divergence
   has pulled towards N(0, prior_variance) by then; as in its regression these keep N(0, prior_variance) where numbers
   are predicted.
2. The divergence and its gradient are exactly 0 at a task's first step (see `posterior_replay`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from backbone import bayes
from backbone.bayes import Gaussian
from models.posterior_replay import (
    PERMUTED_MNIST,
    RARELY,
    SPLIT_CIFAR,
    SPLIT_MNIST,
    GaussianArgs,
    PosteriorReplay,
    check_local_reparam,
)
from utils.contracts import Session, StreamInfo

RUN = {"batch_size": 128, "online_iter": 1, "inputs": "plain"} | RARELY
TOY = {"backbone": "mlp-10-10", "batch_size": 32, "n_iter": 10_001, "train_sample_size": 100}


@dataclass(kw_only=True)
class VclArgs(GaussianArgs):
    posterior: ClassVar[str] = "bbb"
    protection: ClassVar[str] = "none"


class Vcl(PosteriorReplay):
    Args = VclArgs
    published = {
        "*": RUN,
        "regression-1d": TOY | {"heads": "shared", "lr": 1e-3, "clip_grad_norm": 1.0, "keep_orig_init": True},
        "modes-2d": TOY | {"lr": 5e-4},
        "seq-mnist": SPLIT_MNIST | {"n_iter": 2000, "lr": 1e-4, "kl_scale": 10.0, "keep_orig_init": True},
        "perm-mnist": PERMUTED_MNIST
        | {
            "n_iter": 2000,
            "lr": 1e-4,
            "clip_grad_norm": 1.0,
            "prior_variance": 0.1,
            "kl_scale": 1e-5,
        },
        "seq-cifar10": SPLIT_CIFAR
        | {
            "batch_size": 32,
            "n_epochs": 40,
            "lr": 5e-3,
            "clip_grad_norm": 100.0,
            "kl_scale": 1e-4,
        },
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: VclArgs):
        super().__init__(backbone, info, args)
        self.register_buffer("prior_mean", torch.zeros(self.main.size))
        self.register_buffer("prior_std", torch.full((self.main.size,), args.prior_variance**0.5))

    @classmethod
    def check(cls, args: VclArgs, is_mlp: bool) -> None:
        check_local_reparam(args, is_mlp)

    def prior(self) -> Gaussian:
        return Gaussian(self.prior_mean, self.prior_std)

    @torch.no_grad()
    def begin_task(self, session: Session) -> None:
        super().begin_task(session)
        if session.index > 0:
            past = bayes.decode(self.source(0), self.args.use_logvar_enc)
            known = torch.ones_like(past.mean, dtype=torch.bool)
            if self.info.num_targets is not None and self.args.heads == "split":
                known = self.main.owned(range(self.outputs_of(session.index).start), self.device)
            self.prior_mean.copy_(torch.where(known, past.mean, self.prior_mean))
            self.prior_std.copy_(torch.where(known, past.std, self.prior_std))
