"""Posterior meta-replay: a hypernetwork makes a weight posterior per task; what it made for old tasks is kept in place.

Source: Henning, Cervera et al., NeurIPS 2021, arXiv:2103.01133, section 3, and the release
(chrhenning/posterior_replay_cl e60ed78). For task t of N samples
    loss = kl_scale KL(q_t || N(0, prior_variance)) + N mean cross-entropy + beta R,
R the mean over earlier tasks of how far their outputs are from what they were when the task began. No sample is kept.
The task of a test sample is told, or the one whose model is surest of it (`votes`). Of numbers the second term is
N / (2 ll_dist_std^2) mean squared error, and the surest model is that whose draws agree best. A task of domain-il has a
head of its own over the classes that all tasks share (`--heads split`), or the one head.
`--protection separate` gives each task weights of its own, `none` one set to all of them, without R.
1. The release divides fkl, rkl and w2 by the number of earlier tasks twice; `--divide_twice` does, too.
2. KL and Wasserstein distance are written such that gradients of R are exactly 0 at a task's first step, as mse's are;
   in the release rounding leaves something, which Adam makes a whole step of.
3. With `--init_with_prev_emb` a copy is taken; in the release both tasks then share the memory of their embeddings.
4. Evaluation draws weights, with local reparametrisation, too (the release's `--disable_lrt_test`).
5. The error of numbers is that of the mean over the draws; the release reports the mean of their errors, which is
   larger by their variance.
6. CIFAR-10 has its own statistics, in the release ImageNet's.
Not here: radial, AVB and SSGE posteriors, coresets, schedules of the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backbone as backbones
from backbone import bayes, small
from backbone.bayes import Gaussian
from backbone.hyper import Chunks, Hypernetwork, MainNetwork, OwnWeights, gauss_init, parse_widths
from backbone.products import Stage
from models.base import ContinualModel, ModelArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, Session, StreamInfo, Votes
from utils.errors import UsageError

RELEASE = "release: its parser"
GMM = "release: its parser, 2D modes"
TEST_SEED = 2147483647  # of the draws of evaluation, as released
# Where options have an effect
GAUSSIAN = {"posterior": ("bbb",)}
HYPER = {"protection": ("replay",)}
CHUNKS = HYPER | {"hnet_type": ("chunked_hmlp",)}
LOWEST = -100.0  # logit of a class of another task than the inferred one, below every logarithm of a float32


@dataclass(kw_only=True)
class PosteriorArgs(ModelArgs):
    """Of every method that learns a posterior over the weights of a network.

    shares_classes: whether the tasks do, as those of domains; no option, `prepare` reads it from the scenario.
    """

    heads: Literal["split", "shared", "growing"] = option(
        "split", "outputs of a task's model: its own; the same for all tasks; those of the tasks so far", "paper"
    )
    lr: float = option(1e-3, "learning rate, constant", RELEASE, low=0, high=100)
    optimizer: Literal["adam", "sgd"] = option("adam", "optimiser, made anew for each task", "release: its runs")
    clip_grad_norm: float | None = option(None, "largest norm of the gradient", f"{RELEASE}: none", low=0)
    clip_grad_value: float | None = option(
        None, "largest number in the gradient, instead of its norm", f"{RELEASE}: none", low=0
    )
    prior_variance: float = option(1.0, "variance of the Gaussian prior", RELEASE, low=1e-12, where=GAUSSIAN)
    ll_dist_std: float = option(0.05, "standard deviation of the noise of numbers", "release: its runs", low=1e-6)
    val_sample_size: int = option(
        10, "draws of the weights in evaluation, of a Gaussian posterior", RELEASE, low=1, high=10_000, where=GAUSSIAN
    )
    shares_classes: bool = False


@dataclass(kw_only=True)
class GaussianArgs(PosteriorArgs):
    """Of methods that train a Gaussian by draws from it."""

    kl_scale: float = option(1.0, "weight of the KL divergence to the prior", RELEASE, low=0, where=GAUSSIAN)
    kl_schedule: int = option(
        0,
        "steps in which that goes to 1 within a task; negative: from 1",
        f"{RELEASE}: none",
        low=-10_000,
        high=10_000,
        where=GAUSSIAN,
    )
    use_logvar_enc: bool = option(False, "a variance is coded by its logarithm", RELEASE, where=GAUSSIAN)
    train_sample_size: int = option(10, "draws of the weights per update", RELEASE, low=1, high=10_000, where=GAUSSIAN)
    local_reparam_trick: bool = option(
        False, "training draws pre-activations of an MLP, not weights", RELEASE, where=GAUSSIAN
    )
    keep_orig_init: bool = option(False, "means begin as weights of a plain network", RELEASE)


@dataclass(kw_only=True)
class PosteriorReplayArgs(GaussianArgs):
    posterior: Literal["dirac", "bbb"] = option("bbb", "dirac: a point; bbb: a diagonal Gaussian", "paper")
    protection: Literal["replay", "separate", "none"] = option(
        "replay", "replay: of posteriors; separate: weights per task; none: the same weights, fine-tuned", "paper"
    )
    beta: float = option(0.01, "weight of R", f"{RELEASE}; 2D modes: 1", low=0, where=HYPER)
    regularizer: Literal["mse", "fkl", "rkl", "w2"] = option(
        "mse",
        "R: mse: squares, of all but foreign rows of the head; KL(old || new); KL(new || old); Wasserstein-2",
        RELEASE,
        where=HYPER,
    )
    divide_twice: bool = option(
        False,
        "divide fkl, rkl and w2 by the number of earlier tasks once more, as the release does: with it the published "
        "strengths for classification were tuned, and are taken",
        "paper",
        where=HYPER | {"regularizer": ("fkl", "rkl", "w2")},
    )
    hnet_reg_batch_size: int | None = option(
        None, "earlier tasks in R, drawn per step", f"{RELEASE}: all", low=1, where=HYPER
    )
    hnet_type: Literal["hmlp", "chunked_hmlp"] = option(
        "hmlp", "hypernetwork: one with all outputs, or one that runs once per chunk of them", RELEASE, where=HYPER
    )
    hmlp_arch: str = option("10,10", "widths of its hidden layers; empty: none, it is linear", GMM, where=HYPER)
    hnet_net_act: Literal["relu", "sigmoid"] = option("relu", "its activation", RELEASE, where=HYPER)
    cond_emb_size: int = option(2, "numbers of a task's embedding", GMM, low=1, high=1_000_000, where=HYPER)
    chmlp_chunk_size: int = option(1500, "outputs of a chunk", RELEASE, low=1, where=CHUNKS)
    chunk_emb_size: int = option(2, "numbers of a chunk's embedding", GMM, low=1, high=1_000_000, where=CHUNKS)
    use_cond_chunk_embs: bool = option(False, "each task has chunk embeddings of its own", RELEASE, where=CHUNKS)
    std_normal_temb: float = option(
        1.0, "standard deviation of task embeddings at first", RELEASE, low=1e-12, where=HYPER
    )
    std_normal_emb: float = option(1.0, "standard deviation of chunk embeddings at first", RELEASE, low=0, where=CHUNKS)
    hyper_gauss_init: bool = option(
        False, "the hypernetwork begins so that its outputs suit a Gaussian", RELEASE, where=GAUSSIAN | HYPER
    )
    keep_orig_init: bool = option(
        False, "means begin as weights of a plain network (hyper_gauss_init, or separate and none)", RELEASE
    )
    init_with_prev_emb: bool = option(
        False, "a task's embedding begins as that of the task before", RELEASE, where=HYPER
    )


CHUNKED = {"hnet_type": "chunked_hmlp"}
LINEAR = CHUNKED | {"hmlp_arch": ""}
TWICE = {"divide_twice": True}  # with which the strengths of w2 and fkl in classification were tuned
# Command lines of the release by posterior and dataset; its --keep_orig_init is left out where it changes nothing.
REPLAY = {
    "dirac": {
        "modes-2d": {"beta": 0.01, "n_iter": 5001, "lr": 1e-4, "hmlp_arch": "10,10", "cond_emb_size": 2},
        "regression-1d": {
            **{"beta": 0.1, "n_iter": 10_001, "lr": 1e-3, "clip_grad_norm": 1.0},
            **{"hmlp_arch": "50,50", "cond_emb_size": 8},
        },
        "seq-mnist": {
            **{"beta": 10.0, "batch_size": 32, "n_iter": 5000, "lr": 5e-4},
            **CHUNKED | {"chmlp_chunk_size": 8000, "hmlp_arch": "10,10,10,10"},
            **{"cond_emb_size": 32, "chunk_emb_size": 32, "std_normal_emb": 0.1},
        },
        "perm-mnist": {
            **{"beta": 100.0, "batch_size": 32, "n_iter": 5000, "lr": 5e-4, "clip_grad_norm": 1.0},
            **CHUNKED | {"chmlp_chunk_size": 40_000, "hmlp_arch": "50,50"},
            **{"cond_emb_size": 16, "chunk_emb_size": 16, "std_normal_emb": 0.1},
        },
        "seq-cifar10": {
            **{"beta": 50.0, "n_epochs": 40, "lr": 5e-4},
            **LINEAR | {"chmlp_chunk_size": 7000, "cond_emb_size": 16, "chunk_emb_size": 16, "std_normal_temb": 0.01},
        },
    },
    "bbb": {
        "modes-2d": {
            **{"beta": 0.1, "regularizer": "w2", **TWICE, "n_iter": 5001, "lr": 5e-4, "clip_grad_norm": 1.0},
            **{"train_sample_size": 10, "local_reparam_trick": True},
            **{"hmlp_arch": "50,50", "hnet_net_act": "sigmoid", "cond_emb_size": 32, "hyper_gauss_init": True},
        },
        "regression-1d": {
            **{"beta": 10.0, "regularizer": "fkl", "n_iter": 5001, "lr": 5e-4},
            **{"train_sample_size": 10, "local_reparam_trick": True, "hmlp_arch": "10,10", "cond_emb_size": 8},
        },
        "seq-mnist": {
            **{"beta": 100.0, "regularizer": "w2", **TWICE, "batch_size": 128, "n_iter": 5000, "lr": 1e-4},
            **{"train_sample_size": 10, "kl_scale": 1e-4},
            **LINEAR | {"chmlp_chunk_size": 2500, "cond_emb_size": 32, "chunk_emb_size": 32},
            **{"use_cond_chunk_embs": True, "std_normal_temb": 0.1, "std_normal_emb": 0.1},
        },
        "perm-mnist": {
            **{"beta": 1.0, "regularizer": "fkl", **TWICE, "batch_size": 128, "n_iter": 5000, "lr": 1e-5},
            **{"train_sample_size": 10, "kl_scale": 1e-4},
            **LINEAR | {"chmlp_chunk_size": 32_000, "cond_emb_size": 64, "chunk_emb_size": 32},
            **{"use_cond_chunk_embs": True, "std_normal_temb": 0.1},
        },
        "seq-cifar10": {
            **{"beta": 25.0, "n_epochs": 60, "lr": 1e-3, "train_sample_size": 10, "kl_scale": 1e-4},
            **CHUNKED | {"chmlp_chunk_size": 9000, "hmlp_arch": "100,100", "hyper_gauss_init": True},
            **{"cond_emb_size": 16, "chunk_emb_size": 16, "std_normal_emb": 0.01},
        },
    },
}
# The same; on regression-1d, where the release has none, those above without their hypernetworks. Fine-tuning takes
# them, too, though the release tuned that by itself: the rows differ in what is kept alone.
SEPARATE = {
    "dirac": {
        "modes-2d": {"n_iter": 10_001, "lr": 1e-3, "clip_grad_norm": 1.0},
        "regression-1d": {"n_iter": 10_001, "lr": 1e-3, "clip_grad_norm": 1.0},
        "seq-mnist": {"batch_size": 128, "n_iter": 5000, "lr": 5e-4},
        "perm-mnist": {"batch_size": 128, "n_iter": 5000, "lr": 1e-3, "clip_grad_norm": 1.0},
        "seq-cifar10": {"n_epochs": 40, "lr": 5e-4},
    },
    "bbb": {
        "modes-2d": {
            **{"n_iter": 10_001, "lr": 1e-3, "clip_grad_norm": 1.0},
            **{"train_sample_size": 1, "local_reparam_trick": True},
        },
        "regression-1d": {
            **{"n_iter": 5001, "lr": 5e-4, "train_sample_size": 10, "local_reparam_trick": True},
            **{"keep_orig_init": True},
        },
        "seq-mnist": {"batch_size": 128, "n_iter": 2000, "lr": 1e-3, "train_sample_size": 50, "kl_scale": 0.01},
        "perm-mnist": {
            **{"batch_size": 128, "n_iter": 5000, "lr": 1e-4, "clip_grad_norm": 1.0},
            **{"train_sample_size": 10, "kl_scale": 5e-5},
        },
        "seq-cifar10": {
            **{"n_epochs": 80, "lr": 0.01, "train_sample_size": 10, "kl_scale": 0.01, "keep_orig_init": True},
        },
    },
}
TOY = {"backbone": "mlp-10-10", "batch_size": 32}
SPLIT_MNIST = {"backbone": "mlp-100-100", "n_tasks": 5, "class_order": "natural"}
PERMUTED_MNIST = {"backbone": "mlp-1000-1000", "n_tasks": 10, "permutations": "henning"}
SPLIT_CIFAR = {
    **{"backbone": "resnet32-16", "n_tasks": 5, "class_order": "natural"},
    **{"inputs": "published", "autoaugment": False},
}
RARELY = {"eval_period": -1, "eval_passes": "last"}  # any other evaluation would cost more than what it looks at


class PosteriorReplay(ContinualModel):
    Args = PosteriorReplayArgs
    published = {
        "*": {"batch_size": 128, "online_iter": 1, "inputs": "plain"} | RARELY,
        "modes-2d": TOY,
        "regression-1d": TOY | {"heads": "shared"},
        "seq-mnist": SPLIT_MNIST,
        "perm-mnist": PERMUTED_MNIST,
        "seq-cifar10": SPLIT_CIFAR | {"batch_size": 32},
    }
    published |= {
        f"{posterior} {protection} on {dataset}": values
        for protection, lines in {"replay": REPLAY, "separate": SEPARATE, "none": SEPARATE}.items()
        for posterior, datasets in lines.items()
        for dataset, values in datasets.items()
    }
    variants = ("posterior", "protection")
    scenarios = ("task-il", "class-il", "domain-il")
    predicts = ("classes", "numbers")
    tells_tasks_apart = True
    needs_task_boundaries = True
    predicts_from_state = True  # which tasks are learnt, and their columns

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: PosteriorReplayArgs):
        if not backbones.is_small(backbone):
            refuse_vit(type(backbone).__name__)
        super().__init__(backbone, info, args)
        self.check(args, isinstance(backbone, small.Mlp))
        self.main = MainNetwork(backbone, head_width(args, info))
        self.is_gaussian = args.posterior == "bbb"
        self.source = self.make_source()
        self.task, self.updates = -1, 0  # the task at hand, its updates so far
        self.num_samples, self.num_updates = 0, 0  # that it has, that it will give
        self.columns: list[range] = []  # of the classes of each task that has begun
        self.targets: list[Tensor] = []  # outputs [n] for earlier tasks, as the task at hand began
        self.ended: list[Tensor] = []  # outputs [n] for each task, as it ended
        self.running: list[list[Tensor]] = []  # buffers of the network after each earlier task
        self._noise: Tensor | None = None  # of evaluation

    @classmethod
    def prepare(cls, run: RunArgs, args: PosteriorReplayArgs) -> list[Stage]:
        """No stage. Raises UsageError for a network that it cannot fill, or options that do not go together."""
        if not small.is_small(run.backbone):
            refuse_vit(run.backbone)
        args.shares_classes = run.scenario == "domain-il"
        if args.shares_classes and args.heads == "growing":
            raise UsageError("--heads growing: tasks of --scenario domain-il share their classes; split or shared")
        cls.check(args, run.backbone.startswith("mlp"))
        return []

    @classmethod
    def check(cls, args: PosteriorReplayArgs, is_mlp: bool) -> None:
        """Raises UsageError for options that do not go together. is_mlp: of the network."""
        parse_widths("hmlp_arch", args.hmlp_arch)
        if args.posterior == "dirac" and args.regularizer != "mse":
            raise UsageError(
                f"--regularizer {args.regularizer}: compares Gaussians, and --posterior dirac has none; mse fits"
            )
        check_local_reparam(args, is_mlp)
        if args.protection == "replay" and args.keep_orig_init and not args.hyper_gauss_init:
            raise UsageError("--keep_orig_init: changes nothing about a hypernetwork without --hyper_gauss_init")

    def make_source(self) -> nn.Module:
        """What gives the n numbers of each task's posterior: P weights, or P means and P rhos."""
        args, main, num_tasks = self.args, self.main, self.info.num_tasks
        if args.protection != "replay":
            return OwnWeights([self.first_weights() for _ in range(num_tasks if args.protection == "separate" else 1)])
        chunks = None
        if args.hnet_type == "chunked_hmlp":
            chunks = Chunks(args.chmlp_chunk_size, args.chunk_emb_size, args.use_cond_chunk_embs, args.std_normal_emb)
        hyper = Hypernetwork(
            2 * main.size if self.is_gaussian else main.size,
            num_tasks,
            parse_widths("hmlp_arch", args.hmlp_arch),
            args.cond_emb_size,
            args.hnet_net_act,
            chunks,
            args.std_normal_temb,
        )
        if args.hyper_gauss_init:
            gauss_init(hyper, main, args.std_normal_temb**2, args.keep_orig_init)
        return hyper

    def first_weights(self) -> Tensor:
        """[n] of a network that owns its posterior: rho - 2.5 in [-3, -2] and means in [-0.1, 0.1]; kept means, and
        points, are those of any network."""
        mean = self.main.initial()
        if not self.is_gaussian:
            return mean
        if not self.args.keep_orig_init:
            mean.uniform_(-0.1, 0.1)
        return torch.cat((mean, torch.empty_like(mean).uniform_(-0.5, 0.5)))

    def train(self, mode: bool = True) -> ContinualModel:
        super().train(mode)
        if self.main.has_state:  # it seems frozen, since it has no weights of its own
            self.backbone.train(mode)
        return self

    # Training

    def loss(self, batch: Batch) -> Tensor:
        flat = self.source(self.task)
        loss = self.num_samples * self.mean_nll(self.training_outputs(flat, batch.x).float(), batch.y)
        if self.is_gaussian and (scale := self.scale()) > 0:
            loss = loss + scale * self.divergence(bayes.decode(flat, self.args.use_logvar_enc))
        if self.targets:
            penalty = self.penalty()
            if self.args.divide_twice and self.args.regularizer != "mse":
                penalty = penalty / self.task
            loss = loss + self.args.beta * penalty
        return loss

    def mean_nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of slots y [B], or squared errors of numbers y [B, K], over the task's own of all outputs
        [S, B, ...], mean over samples and draws."""
        columns = self.outputs_of(self.task)
        own = outputs[..., columns.start : columns.stop]
        if self.info.num_targets is not None:
            return (own - y).square().mean() / (2 * self.args.ll_dist_std**2)
        first = self.classes_of(self.task).start
        return F.cross_entropy(own.flatten(0, 1), (y - first).repeat(len(outputs)))

    def training_outputs(self, flat: Tensor, x: Tensor) -> Tensor:
        """[S, B, K] of the whole head."""
        if not self.is_gaussian:
            with self.autocast():
                return self.main(flat[None], x)
        q, samples = bayes.decode(flat, self.args.use_logvar_enc), self.args.train_sample_size
        if not self.args.local_reparam_trick:
            weights = bayes.draw(q, self.noise(samples, self.main.size))
            with self.autocast():
                return self.main(weights, x)
        tensors = map(self.main.tensors, q)
        layers = [Gaussian(*pair) for pair in zip(*(part.values() for part in tensors))]
        with self.autocast():
            return bayes.local_outputs(layers, self.main.first_input(x), samples, self.noise)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal draws of training."""
        return torch.randn(shape, device=self.device)

    def scale(self) -> float:
        """kl_scale, or where its schedule stands."""
        first, steps = self.args.kl_scale, abs(self.args.kl_schedule)
        if not steps:
            return first
        scales = np.linspace(first, 1, steps)[:: 1 if self.args.kl_schedule > 0 else -1]
        return float(scales[min(steps - 1, steps * self.updates // max(1, self.num_updates))])

    def divergence(self, q: Gaussian) -> Tensor:
        """KL(q || prior), over all weights, rows of other heads included."""
        return bayes.kl(q, self.prior())

    def prior(self) -> Gaussian:
        variance = torch.tensor(self.args.prior_variance, device=self.device)
        return Gaussian(torch.zeros_like(variance), variance.sqrt())

    def penalty(self) -> Tensor:
        """R: the mean over earlier tasks, or a draw of them, of the distance of their outputs from the targets."""
        tasks, size = list(range(self.task)), self.args.hnet_reg_batch_size
        if size is not None and size < len(tasks):
            tasks = torch.randperm(self.task)[:size].tolist()
        distances = [self.distance(self.source(j), self.targets[j], j) for j in tasks]
        return torch.stack(distances).mean()

    def distance(self, new: Tensor, old: Tensor, task: int) -> Tensor:
        """Of outputs [n] for a task, summed over the weights."""
        kind, coded = self.args.regularizer, self.args.use_logvar_enc
        if kind == "mse":
            owned = self.main.owned(self.outputs_of(task), new.device)
            return (new - old).square().masked_fill(~owned.repeat(2 if self.is_gaussian else 1), 0).sum()
        q, p = bayes.decode(new, coded), bayes.decode(old, coded)
        if kind == "w2":
            return bayes.squared_w2(q, p)
        return bayes.kl(p, q) if kind == "fkl" else bayes.kl(q, p)

    def observe(self, batch: Batch) -> Tensor:
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.args.clip_grad_value is not None:
            nn.utils.clip_grad_value_(self.parameters(), self.args.clip_grad_value)
        elif self.args.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.args.clip_grad_norm)
        self.optimizer.step()
        self.updates += 1
        return loss.detach()

    @torch.no_grad()
    def begin_task(self, session: Session) -> None:
        if self.task >= 0 and self.main.has_state:
            self.running.append([buffer.clone() for buffer in self.backbone.buffers()])
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
        self.task, self.updates, self.num_samples = session.index, 0, session.num_samples
        self.num_updates = session.num_updates
        self.columns.append(session.outputs)
        too_many = self.info.num_targets is None and len(session.outputs) > self.main.num_outputs
        if self.args.heads == "shared" and too_many:
            raise UsageError(
                f"--heads shared: task {self.task} has {len(session.outputs)} classes, more than the "
                f"{self.main.num_outputs} that its tasks have on average; --heads split takes tasks of any size"
            )
        if self.args.protection == "replay":
            if self.args.init_with_prev_emb and self.task > 0:
                self.source.begin_as(self.task, self.task - 1)
            # One at a time, as in the penalty: of several at once the last bits would differ, and so would R from 0.
            self.targets = [self.source(j).clone() for j in range(self.task)] if self.args.beta > 0 else []
        self.optimizer.state.clear()

    @torch.no_grad()
    def end_task(self, session: Session) -> None:
        self.ended.append(self.source(session.index).clone())

    def configure_optimizer(self) -> torch.optim.Optimizer:
        kind = torch.optim.Adam if self.args.optimizer == "adam" else torch.optim.SGD
        return kind(self.parameters(), lr=self.args.lr)

    # Predictions

    def outputs_of(self, task: int) -> range:
        """The rows of the head that the model of a task that has begun uses."""
        own = self.columns[task]
        if (size := self.info.num_targets) is not None:
            return range(size) if self.args.heads == "shared" else range(task * size, (task + 1) * size)
        if self.args.heads == "shared":
            return range(len(own))
        if self.args.heads == "growing":  # one network for all tasks has one softmax
            return range(self.columns[-1].stop if self.args.protection == "none" else own.stop)
        return range(task * len(own), (task + 1) * len(own)) if self.args.shares_classes else own

    def classes_of(self, task: int) -> range:
        """The columns of the classes that these outputs stand for."""
        has_own_rows = self.args.heads == "shared" or self.args.shares_classes
        return self.columns[task] if has_own_rows else self.outputs_of(task)

    def drawn(self, x: Tensor, task: int) -> Tensor:
        """Outputs of a task's model, [S, B, K], for each draw of its weights."""
        with self.autocast():
            outputs = self.main(self.test_weights(task), x, self.buffers_of(task))
        own = self.outputs_of(task)
        return outputs.float()[..., own.start : own.stop]

    def test_weights(self, task: int) -> Tensor:
        """Of a task's model, [S, P]; always the same draws."""
        flat = self.source(task)
        if not self.is_gaussian:
            return flat[None]
        return bayes.draw(bayes.decode(flat, self.args.use_logvar_enc), self.test_noise())

    def test_noise(self) -> Tensor:
        """[S, P]."""
        if self._noise is None or self._noise.device != self.device:
            draws = torch.Generator().manual_seed(TEST_SEED)
            noise = torch.randn(self.args.val_sample_size, self.main.size, generator=draws)
            self._noise = noise.to(self.device)
        return self._noise

    def buffers_of(self, task: int) -> Mapping[str, Tensor] | None:
        """Running statistics for a task's model; None: the network's own."""
        if task >= len(self.running):
            return None
        return dict(zip((name for name, _ in self.backbone.named_buffers()), self.running[task]))

    def votes(self, x: Tensor) -> Votes:
        """Scores: the entropy, confidence and agreement of `bayes.scores`; of numbers how far the draws are apart. The
        model of a task without classes loses all."""
        outputs, scores = [], []
        for task in range(len(self.columns)):
            drawn = self.drawn(x, task)
            outputs.append(self.prediction(drawn, task))
            if self.info.num_targets is not None:
                own = {"std": -drawn.std(0, correction=0).mean(1)}
            elif len(self.columns[task]):
                own = bayes.scores(drawn.softmax(-1), len(self.columns[task]))
            else:
                own = dict.fromkeys(("ent", "conf", "agree"), drawn.new_full((len(x),), -torch.inf))
            scores.append(own)
        return Votes(torch.stack(outputs), {name: torch.stack([each[name] for each in scores]) for name in scores[0]})

    def prediction(self, drawn: Tensor, task: int) -> Tensor:
        """Of a task's model, whose draws gave outputs [S, B, K]: numbers [B, K], or log-probabilities [B, C]."""
        return drawn.mean(0) if self.info.num_targets is not None else self.as_logits(drawn.softmax(-1), task)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        """What the model that fits best by the first score predicts of inputs [B, ...]: log-probabilities [B, C],
        LOWEST for classes that it has not, or numbers [B, K]. Before the first task there is none."""
        if not self.columns:
            return torch.full((len(x), self.info.num_targets or self.info.num_classes), LOWEST, device=x.device)
        votes = self.votes(x)
        winner = next(iter(votes.scores.values())).argmax(0)
        return votes.outputs[winner, torch.arange(len(x), device=winner.device)]

    def given(self, x: Tensor, task: int) -> Tensor:
        return self.prediction(self.drawn(x, task), task) if task < len(self.columns) else self(x)

    def as_logits(self, p: Tensor, task: int) -> Tensor:
        """Logarithms [B, C] of the mean of probabilities [S, B, K] of a task's model, in the columns of its classes."""
        logits = torch.full((p.shape[1], self.info.num_classes), LOWEST, device=p.device)
        columns = self.classes_of(task)
        logits[:, columns.start : columns.stop] = p.mean(0).clamp_min(torch.finfo(p.dtype).tiny).log()
        return logits

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """How far each task's outputs are from where they were when it ended, and how many weights are made of what."""
        drift = {f"drift_{j}": (self.source(j) - end).norm().item() for j, end in enumerate(self.ended)}
        makers = sum(p.numel() for p in self.parameters())
        return drift | {"weights_made": float(self.main.size), "weights_that_make_them": float(makers)}

    # State

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def extra_state(self) -> dict[str, Any]:
        return {
            "position": [self.task, self.updates, self.num_samples, self.num_updates],
            "columns": [[own.start, own.stop] for own in self.columns],
            "targets": list(self.targets),
            "ended": list(self.ended),
            "running": [list(buffers) for buffers in self.running],
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.task, self.updates, self.num_samples, self.num_updates = map(int, state["position"])
        self.columns = [range(*map(int, own)) for own in state["columns"]]
        self.targets, self.ended = ([flat.to(self.device) for flat in state[name]] for name in ("targets", "ended"))
        self.running = [[buffer.to(self.device) for buffer in buffers] for buffers in state["running"]]


def head_width(args: PosteriorArgs, info: StreamInfo) -> int:
    """Outputs of the network: of the heads of all tasks, or of the one that there is. Raises UsageError for heads that
    numbers do not have."""
    if info.num_targets is not None:
        if args.heads == "growing":
            raise UsageError("--heads growing: adds the classes of each task, and numbers have none; split or shared")
        return info.num_targets * (info.num_tasks if args.heads == "split" else 1)
    if args.shares_classes:
        return info.num_classes * (info.num_tasks if args.heads == "split" else 1)
    return -(-info.num_classes // info.num_tasks) if args.heads == "shared" else info.num_classes


def refuse_vit(name: str) -> None:
    raise UsageError(
        f"--backbone {name}: this method makes all weights of a small network, as mlp-100-100 or resnet18-20, "
        "and a ViT has too many"
    )


def check_local_reparam(args: GaussianArgs, is_mlp: bool) -> None:
    if args.local_reparam_trick and not is_mlp:
        raise UsageError("--local_reparam_trick: is for MLPs alone, as --backbone mlp-100-100")
