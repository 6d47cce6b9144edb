"""Posterior meta-replay: loss, KL divergence, regulariser and gradients of the steps; all weights at the end, outputs
of the hypernetwork after each task; how sure each task's model is of each sample, tasks found by it, accuracies.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from backbone import small
from backbone.hyper import Hypernetwork
from models.posterior_replay import PosteriorReplay
from utils.args import option_names
from utils.contracts import Batch, Session, StreamInfo

from .check_bcl import Told
from .goldens import DEVICE, Case
from .replay import Unchanged, train

SCORES = {"ent": "entropy", "conf": "confidence", "agree": "agreement"}  # the project's name -> the case's
SIGN = {"ent": -1, "conf": 1, "agree": -1}  # the project's scores are larger where a model fits better
OPTIMISER = {True: "Adam(lr={lr}, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)", False: "SGD(lr={lr}, momentum=0, "}
REBUILT = "rebuilt at the start of every task, over all hypernetwork parameters"
GRADIENTS = re.compile(r"step<k>/grad/\* for steps \[([\d, ]+)\]; (no clipping|after clipping to norm [\d.]+)")


def check(case: Case, folder: Path) -> None:
    (Numbers if case.settings["experiment"].startswith("regression") else Classes)(case).run()


class Stream(Told):
    """Recorded minibatches of told tasks, each of which draws from `size` samples."""

    size = 0

    def rows(self, task: int) -> Tensor:
        return torch.arange(self.size)


class Replay:
    """One case; everything is compared where it is computed."""

    Method = PosteriorReplay
    step = 0  # the one that runs

    def __init__(self, case: Case):
        self.case, self.config = case, case.settings["config"]
        given = case.settings["tolerances"]
        self.relative = {"atol": given["loss_rel"], "rtol": given["loss_rel"]}
        self.tolerances = {name: {"atol": given[f"{name}_abs"]} for name in ("grad", "final", "eval")}
        self.num_tasks, self.steps = case.settings["num_tasks"], case.settings["steps"]
        self.task_of = [int(case[f"step{k}/task"]) for k in range(self.steps)]
        self.x, self.y = ([case[f"step{k}/{name}"] for k in range(self.steps)] for name in "xy")
        self.check_batches()
        self.model = self.make_model()
        self.watch()

    def check_batches(self) -> None:
        case, config = self.case, self.config
        per_task = config["n_iter"]
        assert self.task_of == [k // per_task for k in range(self.steps)] and self.steps == per_task * self.num_tasks
        case.expect("config.batch_size", max(map(len, self.x)))
        sets = [(case[f"task{t}/train_x"], case[f"task{t}/train_y"]) for t in range(self.num_tasks)]
        self.size = len(sets[0][0])
        for k, task in enumerate(self.task_of):
            x, y = sets[task]
            assert len(x) == self.size
            row = (self.x[k][:, None] == x).all(dim=2).int().argmax(dim=1)
            assert torch.equal(x[row], self.x[k]) and torch.equal(y[row], self.y[k]), f"{case.name}: step {k}"

    def make_model(self) -> PosteriorReplay:
        case, config = self.case, self.config
        given = {key: config[key] for key in config if key in option_names(self.Method.Args)}
        given |= {key: None for key, value in given.items() if value == -1}
        given["chunk_emb_size"] = int(given["chunk_emb_size"])
        if config["mean_only"]:
            case.expect("config.kl_scale", 0.0)
            given["posterior"] = "dirac"
        for key, ours in {"adam_beta1": 0.9, "weight_decay": 0, "net_act": "relu", "mnet_only": False}.items():
            case.expect(f"config.{key}", ours)
        case.expect("config.use_prev_post_as_prior", False)
        assert config["disable_lrt_test"] or not given["local_reparam_trick"]
        use_adam = config.get("use_adam", True)
        text = case.settings["optimizer"]
        assert text.startswith(OPTIMISER[use_adam].format(lr=given["lr"])) and text.endswith(REBUILT)
        given["optimizer"] = "adam" if use_adam else "sgd"
        self.divide(given)
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
        model = self.Method(network, info, self.Method.Args(**given))
        with torch.no_grad():
            weights = self.weights(model)
            assert case.below("method/hnet/").keys() == weights.keys()
            for name, weight in weights.items():
                initial = case[f"method/hnet/{name}"]
                assert initial.shape == weight.shape, f"{case.name}: {name} is {list(initial.shape)}"
                weight.copy_(initial)
        model.optimizer = model.configure_optimizer()
        return model.to(DEVICE)

    def weights(self, model: PosteriorReplay) -> dict[str, Tensor]:
        """Parameters under the names of the case."""
        hyper = model.source
        assert isinstance(hyper, Hypernetwork)
        named = {f"emb/{t}": emb for t, emb in enumerate(hyper.embeddings)}
        named |= {f"chunk_emb/{t}": emb for t, emb in enumerate(hyper.chunk_embeddings)}
        named |= {
            f"{kind}/{k}": getattr(part, kind) for k, part in enumerate(hyper.layers) for kind in ("weight", "bias")
        }
        assert len(named) == len(list(model.parameters()))
        return named

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
            assert {name for name in ("kl", "reg") if f"step{self.step}/{name}" in case} == watched.keys()
            if expected := case.below(f"step{self.step}/grad/hnet/"):
                with_gradients.append(self.step)
                weights = self.weights(model)
                assert expected.keys() == weights.keys()
                for name, weight in weights.items():
                    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                    case.close(f"step{self.step}/grad/hnet/{name}", gradient, self.of_gradient(expected[name]))
            self.step += 1
            return loss

        def ended(session: Session) -> None:
            end_task(session)
            for j in range(self.num_tasks):
                name = f"after_task{session.index}/hnet_out/{j}"
                case.close(name, model.source(j), self.tolerances["final"])

        model.observe, model.end_task, model.noise = observed, ended, self.noise
        model.divergence = lambda q: noted("kl", divergence(q))
        model.penalty = lambda: noted("reg", penalty())
        found = GRADIENTS.fullmatch(case.settings["gradients"])
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
        case, weights = self.case, self.weights(self.model)
        for name, weight in weights.items():
            case.close(f"final/hnet/{name}", weight, self.tolerances["final"])
        assert case.below("final/hnet/").keys() == weights.keys()
        if noise := self.recorded("eval/noise/"):
            whole = torch.cat([part.flatten() for part in noise])
            self.model._noise = whole.view(self.config["val_sample_size"], self.model.main.size).to(DEVICE)
        with torch.no_grad():
            self.model.eval()
            self.evaluate()

    def of_gradient(self, expected: Tensor) -> dict[str, float]:
        """Tolerance for a gradient."""
        return self.tolerances["grad"]

    def close(self, array: str, actual) -> None:
        self.case.close(array, actual, self.tolerances["eval"])


class Classes(Replay):
    def num_outputs(self) -> int:
        return self.num_tasks * self.case.settings["classes_per_task"]

    def divide(self, given: dict) -> None:
        given["divide_twice"] = True
        self.case.expect("config.cl_scenario", 3)
        self.case.expect("config.split_head_cl3", True)

    def train(self) -> None:
        size = self.case.settings["classes_per_task"]
        batches = torch.arange(sum(map(len, self.x))).split([len(part) for part in self.x])
        tasks = [[b for b, own in zip(batches, self.task_of, strict=True) if own == t] for t in range(self.num_tasks)]
        columns = [range(t * size, (t + 1) * size) for t in range(self.num_tasks)]
        stream = Stream(tasks, self.num_outputs(), columns)
        stream.size = self.size
        y = [own + task * size for own, task in zip(self.y, self.task_of, strict=True)]
        train(self.model, stream, torch.cat(self.x), torch.cat(y))

    def evaluate(self) -> None:
        case, model = self.case, self.model
        assert self.config["val_batch_size"] >= len(case["eval/x/0"])  # one batch per task
        given, inferred, found = [], {name: [] for name in SCORES}, {name: [] for name in SCORES}
        for i in range(self.num_tasks):
            x, y = case[f"eval/x/{i}"].to(DEVICE), case[f"eval/y/{i}"].to(DEVICE)
            votes = model.votes(x)
            size = self.case.settings["classes_per_task"]
            labels = torch.stack([each.argmax(1) - j * size for j, each in enumerate(votes.outputs)], dim=1)
            case.equal(f"eval/pred_labels/{i}", labels)
            given.append((labels[:, i] == y).double().mean())
            for name, theirs in SCORES.items():
                score = votes.scores[name].T
                self.close(f"eval/{theirs}/{i}", SIGN[name] * score)
                ids = score.argmax(1)
                case.equal(f"eval/task_ids_{theirs}/{i}", ids)
                right = (ids == i) & (labels.gather(1, ids[:, None])[:, 0] == y)
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
        case, size = self.case, self.case.settings["classes_per_task"]
        labels = case[f"eval/pred_labels/{task}"]
        columns = slice(task * size, (task + 1) * size)
        assert torch.equal(self.model.given(x, task)[:, columns].argmax(1).cpu(), labels[:, task])
        ids = case[f"eval/task_ids_entropy/{task}"]
        assert torch.equal(self.model(x).argmax(1).cpu(), ids * size + labels.gather(1, ids[:, None])[:, 0])


class Numbers(Replay):
    """The label of a sample is its function, which is the task."""

    def num_outputs(self) -> int:
        assert self.case.settings["classes_per_task"] is None
        self.case.expect("config.multi_head", False)
        return self.num_tasks

    def divide(self, given: dict) -> None:
        given["heads"] = "shared"
        assert self.config["used_task_set"] == 3 and given["regularizer"] == "mse"

    def of_gradient(self, expected: Tensor) -> dict[str, float]:
        """Up to 1557 here, where neighbours in float32 are 1.2e-4 apart, and the case allows 2e-5."""
        return {"atol": max(self.tolerances["grad"]["atol"], 1e-6 * expected.abs().max().item())}

    def train(self) -> None:
        model = self.model
        borders = [self.task_of.index(t) for t in range(self.num_tasks)] + [self.steps]
        for task, (first, end) in enumerate(pairwise(borders)):
            model.begin_task(session := Session(task, [task], range(task, task + 1), self.size, lambda size: iter(())))
            for k in range(first, end):
                x, y = self.x[k].to(DEVICE), self.y[k].to(DEVICE)
                model.observe(Batch(x, y, x, 0))
            model.end_task(session)

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
