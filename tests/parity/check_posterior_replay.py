"""Posterior meta-replay and its prior-focused rivals: loss, KL divergence, regulariser, penalty and gradients of the
steps; all weights at the end, outputs of the hypernetwork or precisions after each task, the posterior evaluated; how
sure each task's model is of each sample, tasks found by it, accuracies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from backbone import small
from backbone.hyper import Hypernetwork
from models.ewc_posterior import EwcPosterior
from models.posterior_replay import PosteriorReplay
from models.vcl import Vcl
from utils.args import option_names
from utils.contracts import Batch, Session, StreamInfo

from .check_bcl import Told
from .goldens import DEVICE, Case
from .replay import Unchanged, train

SCORES = {"ent": "entropy", "conf": "confidence", "agree": "agreement"}  # the project's name -> the case's
SIGN = {"ent": -1, "conf": 1, "agree": -1}  # the project's scores are larger where a model fits better
OPTIMISER = {True: "Adam(lr={lr}, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)", False: "SGD(lr={lr}, momentum=0, "}
REBUILT = "rebuilt at the start of every task, over all {} parameters"
# What a network of its own (mnet_only) has no use for: options of hypernetworks and of what protects their outputs.
OF_HYPERNETWORKS = {
    *("hnet_type", "hmlp_arch", "cond_emb_size", "chmlp_chunk_size", "chunk_emb_size", "use_cond_chunk_embs"),
    *("hnet_net_act", "hyper_gauss_init", "init_with_prev_emb", "std_normal_temb", "std_normal_emb"),
    *("beta", "regularizer", "hnet_reg_batch_size"),
}
FIXED = {  # option of the release: values that mean what this project has
    "adam_beta1": (0.9,),
    "momentum": (0, -1),
    "weight_decay": (0,),
    "net_act": ("relu",),
    "dropout_rate": (-1,),
    "train_from_scratch": (False,),
    "radial_bnn": (False,),
    "coreset_size": (-1,),
    "ewc_gamma": (1.0,),
    "non_growing_sf_cl3": (False,),
    "supsup_task_inference": (False,),
    "calc_hnet_reg_targets_online": (False,),  # the same values
}
GRADIENTS = re.compile(r"step<k>/grad/\* for steps \[([\d, ]+)\]; (no clipping|after clipping to norm [\d.]+)")


def check(case: Case, folder: Path) -> None:
    (Numbers if case.settings["experiment"].startswith("regression") else Classes)(case).run()


class Stream(Told):
    """Recorded minibatches of told tasks, each of which draws from `size` samples; those of task t lie behind those of
    task t - 1."""

    size = 0

    def rows(self, task: int) -> Tensor:
        return torch.arange(task * self.size, (task + 1) * self.size)


class Replay:
    """One case; everything is compared where it is computed."""

    step = 0  # the one that runs

    def __init__(self, case: Case):
        self.case, self.config = case, case.settings["config"]
        given = case.settings["tolerances"]
        self.relative = {"atol": given["loss_rel"], "rtol": given["loss_rel"]}
        self.tolerances = {name: {"atol": given[f"{name}_abs"]} for name in ("grad", "final", "eval")}
        self.num_tasks, self.steps = case.settings["num_tasks"], case.settings["steps"]
        self.task_of = [int(case[f"step{k}/task"]) for k in range(self.steps)]
        self.x, self.y = ([case[f"step{k}/{name}"] for k in range(self.steps)] for name in "xy")
        self.kind, self.place = self.what_it_is()
        self.check_batches()
        self.make_model()
        self.watch()

    def what_it_is(self) -> tuple[type[PosteriorReplay], str]:
        """The method, and the network whose weights the case records."""
        config = self.config
        if self.case.settings["experiment"].endswith("_ewc"):
            return EwcPosterior, "mnet"
        assert not config["use_prev_post_as_prior"] or config["mnet_only"], (
            f"{self.case.name}: a previous posterior as prior is that of a network of its own here"
        )
        if not config["mnet_only"]:
            return PosteriorReplay, "hnet"
        return Vcl if config["use_prev_post_as_prior"] else PosteriorReplay, "mnet"

    def check_batches(self) -> None:
        case, config = self.case, self.config
        per_task = config["n_iter"]
        assert self.task_of == [k // per_task for k in range(self.steps)] and self.steps == per_task * self.num_tasks
        case.expect("config.batch_size", max(map(len, self.x)))
        sets = [(case[f"task{t}/train_x"], case[f"task{t}/train_y"]) for t in range(self.num_tasks)]
        self.size = len(sets[0][0])
        self.train_x, self.train_y = (torch.cat(parts) for parts in zip(*sets))
        self.rows = []  # of each step among all samples
        for k, task in enumerate(self.task_of):
            x, y = sets[task]
            assert len(x) == self.size
            row = (self.x[k][:, None] == x).all(dim=2).int().argmax(dim=1)
            assert torch.equal(x[row], self.x[k]) and torch.equal(y[row], self.y[k]), f"{case.name}: step {k}"
            self.rows.append(task * self.size + row)

    def make_model(self) -> None:
        case, config = self.case, self.config
        unused = OF_HYPERNETWORKS if self.place == "mnet" else set()
        read = {key: config[key] for key in config if key in option_names(self.kind.Args) | unused | {"keep_orig_init"}}
        # How weights begin is recorded.
        given = {key: read[key] for key in read.keys() - unused - {"keep_orig_init", "hyper_gauss_init"}}
        given |= {key: None for key, value in given.items() if value == -1}
        if "chunk_emb_size" in given:
            given["chunk_emb_size"] = int(given["chunk_emb_size"])
        if self.kind is PosteriorReplay and self.place == "mnet":
            given["protection"] = "none"
        if config.get("mean_only", False):
            assert self.kind is PosteriorReplay, f"{case.name}: mean_only leaves no posterior to be a prior"
            case.expect("config.kl_scale", 0.0)
            given["posterior"] = "dirac"
        for key in config.keys() & FIXED.keys():
            assert config[key] in FIXED[key], f"{case.name}: config.{key} is {config[key]!r}"
        if given.get("n_fisher") is not None:
            assert given["n_fisher"] >= self.size, f"{case.name}: n_fisher: the release scales the prior's share, too"
        assert config.get("disable_lrt_test", True) or not given.get("local_reparam_trick")
        use_adam = config.get("use_adam", True)
        text = case.settings["optimizer"]
        trained = "hypernetwork" if self.place == "hnet" else "main-network"
        assert text.startswith(OPTIMISER[use_adam].format(lr=given["lr"])) and text.endswith(REBUILT.format(trained))
        given["optimizer"] = "adam" if use_adam else "sgd"
        self.fit(given)
        info = StreamInfo(
            num_classes=self.num_outputs(),
            num_tasks=self.num_tasks,
            num_images=0,
            num_updates=0,
            image_size=0,
            seed=0,
            augment=Unchanged().train,
            plain=Unchanged().test,
            num_targets=None if self.case.settings["classes_per_task"] else self.y[0].shape[1],
        )
        network = small.build("mlp-" + config["mlp_arch"].replace(",", "-"), tuple(self.x[0].shape[1:]))
        self.model = model = self.kind(network, info, self.kind.Args(**given, shares_classes=self.shares_classes))
        with torch.no_grad():
            weights = self.weights()
            assert case.below(f"method/{self.place}/").keys() == weights.keys()
            for name, weight in weights.items():
                initial = case[f"method/{self.place}/{name}"]
                assert initial.shape == weight.shape, f"{case.name}: {name} is {list(initial.shape)}"
                weight.copy_(initial)
        model.optimizer = model.configure_optimizer()
        model.to(DEVICE)

    def weights(self, gradients: bool = False) -> dict[str, Tensor]:
        """Parameters under the names of the case, or their gradients."""

        def of(parameter: Tensor) -> Tensor:
            if not gradients:
                return parameter
            return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

        model, source = self.model, self.model.source
        if self.place == "mnet":
            (flat,) = source.flat
            if not model.is_gaussian:
                return self.named(of(flat))
            halves = zip(("mean", "rho"), of(flat).chunk(2))
            return {f"{half}/{name}": part for half, each in halves for name, part in self.named(each).items()}
        assert isinstance(source, Hypernetwork)
        named = {f"emb/{t}": of(emb) for t, emb in enumerate(source.embeddings)}
        named |= {f"chunk_emb/{t}": of(emb) for t, emb in enumerate(source.chunk_embeddings)}
        named |= {
            f"{kind}/{k}": of(getattr(part, kind))
            for k, part in enumerate(source.layers)
            for kind in ("weight", "bias")
        }
        assert len(named) == len(list(model.parameters()))
        return named

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Weights [P] of the main network under the names of the case."""
        tensors = self.model.main.tensors(flat).values()  # weight and bias in turn
        return {f"{('weight', 'bias')[i % 2]}/{i // 2}": part for i, part in enumerate(tensors)}

    def watch(self) -> None:
        """Feeds the recorded draws, and looks at every step and at the outputs after every task."""
        model, case, watched = self.model, self.case, {}
        observe, end_task, divergence, penalty = model.observe, model.end_task, model.divergence, model.penalty
        with_gradients = []

        def noted(name: str, value: Tensor) -> Tensor:
            watched[name] = value.detach()
            return value

        def observed(batch: Batch) -> Tensor:
            watched.clear()
            loss = observe(batch)
            for name, value in {"loss": loss, **watched}.items():
                case.close(f"step{self.step}/{name}", value, self.relative)
            assert {name for name in ("kl", "reg", "ewc") if f"step{self.step}/{name}" in case} == watched.keys()
            where = f"step{self.step}/grad/{self.place}/"
            if expected := case.below(where):
                with_gradients.append(self.step)
                found = self.weights(gradients=True)
                assert expected.keys() == found.keys()
                for name, gradient in found.items():
                    case.close(where + name, gradient, self.of_gradient(expected[name]))
            self.step += 1
            return loss

        def ended(session: Session) -> None:
            end_task(session)
            where = f"after_task{session.index}"
            if self.place == "hnet":
                for j in range(self.num_tasks):
                    case.close(f"{where}/hnet_out/{j}", model.source(j), self.tolerances["final"])
            elif self.kind is EwcPosterior and not (model.has_one_head and session.index == self.num_tasks - 1):
                tolerance = self.tolerances["final"] | {"rtol": self.relative["rtol"]}  # sums of squares
                self.compare(f"{where}/precision/mnet/", self.named(model.precision), tolerance)

        model.observe, model.end_task, model.noise = observed, ended, self.noise
        model.divergence = lambda q: noted("kl", divergence(q))
        model.penalty = lambda: noted("ewc" if self.kind is EwcPosterior else "reg", penalty())
        found = GRADIENTS.fullmatch(case.settings["gradients"])
        assert found, f"{case.name}: gradients: {case.settings['gradients']}"
        self.with_gradients, self.expected_gradients = with_gradients, [int(k) for k in found[1].split(",")]
        clipped = model.args.clip_grad_norm
        assert found[2] == ("no clipping" if clipped is None else f"after clipping to norm {clipped:g}")

    def noise(self, samples: int, *shape: int) -> Tensor:
        """The recorded draws of the step, of whole weights [S, P] or of one layer more [S, B, U]."""
        recorded = self.recorded(f"step{self.step}/noise/")
        if len(shape) == 1:
            return torch.cat([part.flatten() for part in recorded]).view(samples, *shape).to(DEVICE)
        layers = len(recorded) // samples
        self.layer = getattr(self, "layer", -1) + 1
        return torch.stack(recorded[self.layer % layers :: layers]).to(DEVICE)

    def recorded(self, prefix: str) -> list[Tensor]:
        return [self.case[f"{prefix}{i}"] for i in range(self.case.count(prefix + "{}"))]

    def run(self) -> None:
        self.train()
        assert self.step == self.steps and self.with_gradients == self.expected_gradients
        self.compare(f"final/{self.place}/", self.weights(), self.tolerances["final"])
        if self.kind is EwcPosterior and not self.model.has_one_head:
            q, is_drawn = self.model.laplace(), not self.model.args.det_multi_head
            for name, part in (("mean", q.mean), ("std", q.std * is_drawn)):
                self.compare(f"eval/post_{name}/mnet/", self.named(part), self.tolerances["eval"])
        if noise := self.recorded("eval/noise/"):
            whole = torch.cat([part.flatten() for part in noise])
            self.model._noise = whole.view(self.config["val_sample_size"], self.model.main.size).to(DEVICE)
        with torch.no_grad():
            self.model.eval()
            self.evaluate()

    def compare(self, prefix: str, found: dict[str, Tensor], tolerance: dict[str, float]) -> None:
        """All arrays below a prefix."""
        assert self.case.below(prefix).keys() == found.keys()
        for name, value in found.items():
            self.case.close(prefix + name, value, tolerance)

    def of_gradient(self, expected: Tensor) -> dict[str, float]:
        """Tolerance for a gradient."""
        return self.tolerances["grad"]

    def close(self, array: str, actual) -> None:
        self.case.close(array, actual, self.tolerances["eval"])


class Classes(Replay):
    """heads: as the release's scenarios have them: 1 tells the task, 2 shares one head, 3 infers the task."""

    def what_it_is(self) -> tuple[type[PosteriorReplay], str]:
        case, scenario, split = self.case, self.config["cl_scenario"], self.config["split_head_cl3"]
        assert scenario in (1, 2, 3), f"{case.name}: config.cl_scenario is {scenario}"
        self.heads = "shared" if scenario == 2 else "split" if split or scenario == 1 else "growing"
        self.size_of_task = size = case.settings["classes_per_task"]
        self.shares_classes = scenario == 2
        self.columns = [
            range(size) if scenario == 2 else range(t * size, (t + 1) * size) for t in range(self.num_tasks)
        ]
        return super().what_it_is()

    def num_outputs(self) -> int:
        return self.columns[-1].stop

    def fit(self, given: dict) -> None:
        given["heads"] = self.heads
        if self.place == "hnet":
            given["divide_twice"] = True

    def within(self, y: Tensor, task: int) -> Tensor:
        """Labels among the classes of a task. Those of a growing head may be recorded among all."""
        own = y - task * self.size_of_task if self.heads == "growing" and y.min() >= task * self.size_of_task else y
        assert own.min() >= 0 and own.max() < self.size_of_task, f"{self.case.name}: labels of task {task}"
        return own

    def train(self) -> None:
        tasks = [[row for row, own in zip(self.rows, self.task_of) if own == t] for t in range(self.num_tasks)]
        stream = Stream(tasks, self.num_outputs(), self.columns)
        stream.size = self.size
        y = [self.within(own, t) + self.columns[t].start for t, own in enumerate(self.train_y.split(self.size))]
        train(self.model, stream, self.train_x, torch.cat(y))

    def evaluate(self) -> None:
        case, model = self.case, self.model
        assert self.config["val_batch_size"] >= len(case["eval/x/0"])  # one batch per task
        given, inferred, found = [], {name: [] for name in SCORES}, {name: [] for name in SCORES}
        for i in range(self.num_tasks):
            x, y = case[f"eval/x/{i}"].to(DEVICE), case[f"eval/y/{i}"].to(DEVICE)
            votes = model.votes(x)
            firsts = [model.classes_of(j).start for j in range(self.num_tasks)]
            labels = torch.stack([each.argmax(1) - first for each, first in zip(votes.outputs, firsts)], dim=1)
            case.equal(f"eval/pred_labels/{i}", labels)
            wanted = self.within(y, i) + (i * self.size_of_task if self.heads == "growing" else 0)
            given.append((labels[:, i] == wanted).double().mean())
            for name, theirs in SCORES.items():
                score = votes.scores[name].T
                self.close(f"eval/{theirs}/{i}", SIGN[name] * score)
                ids = score.argmax(1)
                case.equal(f"eval/task_ids_{theirs}/{i}", ids)
                right = labels.gather(1, ids[:, None])[:, 0] == wanted
                if self.heads == "split":  # a class of another head is another class
                    right &= ids == i
                inferred[name].append(right.double().mean())
                found[name].append((ids == i).double().mean())
            self.check_predictions(x, i)
        percent = {name: 100 * torch.stack(shares) for name, shares in inferred.items()}
        self.close("eval/acc_task_given", 100 * torch.stack(given))
        self.close("eval/acc_task_inferred_ent", percent["ent"])
        self.close("eval/acc_avg_final", percent["ent"].mean())
        for name in ("conf", "agree"):
            self.close(f"eval/acc_avg_task_inferred_{name}", percent[name].mean())
        for name, shares in found.items():
            self.close(f"eval/avg_task_inference_acc_{name}", 100 * torch.stack(shares).mean())

    def check_predictions(self, x: Tensor, task: int) -> None:
        """What the loop asks for: the class with the task told, and with the task of the least entropy."""
        case, model = self.case, self.model
        labels, ids = case[f"eval/pred_labels/{task}"], case[f"eval/task_ids_entropy/{task}"]
        first = torch.tensor([model.classes_of(j).start for j in range(self.num_tasks)])
        assert torch.equal(model.given(x, task).argmax(1).cpu(), first[task] + labels[:, task])
        assert torch.equal(model(x).argmax(1).cpu(), first[ids] + labels.gather(1, ids[:, None])[:, 0])


class Numbers(Replay):
    """One head; the label of a sample is its function, which is the task."""

    shares_classes = False

    def num_outputs(self) -> int:
        assert self.case.settings["classes_per_task"] is None
        self.case.expect("config.multi_head", False)
        return self.num_tasks

    def fit(self, given: dict) -> None:
        given["heads"] = "shared"
        assert self.config["used_task_set"] in (1, 2, 3)  # recorded

    def of_gradient(self, expected: Tensor) -> dict[str, float]:
        """Up to 1557 here, where neighbours in float32 are 1.2e-4 apart, and the case allows 2e-5."""
        return {"atol": max(self.tolerances["grad"]["atol"], 1e-6 * expected.abs().max().item())}

    def train(self) -> None:
        model = self.model
        borders = [self.task_of.index(t) for t in range(self.num_tasks)] + [self.steps]
        for task, (first, end) in enumerate(pairwise(borders)):
            own = slice(task * self.size, (task + 1) * self.size)
            session = Session(task, [task], range(task, task + 1), self.size, partial(self.again, own))
            model.begin_task(session)
            for k in range(first, end):
                model.observe(self.batch(self.x[k], self.y[k]))
            model.end_updates(session)
            model.end_task(session)

    def batch(self, x: Tensor, y: Tensor) -> Batch:
        return Batch(x.to(DEVICE), y.to(DEVICE), x.to(DEVICE), 0)

    def again(self, own: slice, size: int) -> Iterator[Batch]:
        return map(self.batch, self.train_x[own].split(size), self.train_y[own].split(size))

    def evaluate(self) -> None:
        model, errors = self.model, []
        for i in range(self.num_tasks):
            x, y = (self.case[f"eval/{name}/{i}"].to(DEVICE) for name in "xy")
            votes = model.votes(x)
            self.close(f"eval/pred_mean/{i}", votes.outputs[..., 0].T)
            self.close(f"eval/pred_std/{i}", -votes.scores["std"].T)
            self.case.equal(f"eval/task_ids/{i}", votes.scores["std"].argmax(0))
            errors.append((model.drawn(x, i) - y).square().mean())  # of each draw, where the loop has that of the mean
        self.close("eval/mse_task_given", torch.stack(errors))
