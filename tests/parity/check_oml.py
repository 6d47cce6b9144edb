"""OML: meta steps with their gradients, the rate search, online learning, and what its representation looks like."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.unrolled import Unrolled
from models.oml import Oml
from models.oml_meta import CLIP, OmlMeta
from utils.contracts import Batch, Session, StreamInfo
from utils.representation import statistics

from .goldens import DEVICE, Case
from .replay import Unchanged, load

INNER = "SGD, no momentum, second-order (graph kept), PLN only"
OUTER = "Adam(lr=meta_lr, betas=(0.9, 0.999), eps=1e-8) over all parameters, RLN and PLN"
ONLINE = {
    "classification": "Adam(lr) over PLN parameters, fresh state",
    "sine_regression": "SGD(lr) over PLN parameters, no momentum, no clipping",
}
EVALUATED = 32  # images of a released evaluation batch


def check(case: Case, folder: Path) -> None:
    task = case.settings["task"]
    assert task in ONLINE, f"{case.name}: task is {task!r}"
    (Classes if task == "classification" else Sines)(case).run()


class Network(nn.Module):
    """The representation of the case: its layers, each with ReLU. num_features: width of its output."""

    def __init__(self, layers: list[nn.Module], flat: bool):
        super().__init__()
        self.layers, self.flat = nn.ModuleList(layers), flat
        last = self.layers[-1]
        self.num_features = last.out_features if isinstance(last, nn.Linear) else 0

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) if self.flat else x
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.flatten(1)


class Replay:
    """One case: the meta steps, then the online run from what they left, compared where they are computed."""

    numbers: bool

    def __init__(self, case: Case):
        self.case, self.config, self.tolerances = case, case.settings["config"], case.settings["tolerances"]
        case.expect("optimiser.inner", INNER)
        case.expect("optimiser.outer", OUTER)
        case.expect("optimiser.evaluation", ONLINE[case.settings["task"]])
        self.steps = self.config["meta_steps"]

    def run(self) -> None:
        self.meta()
        self.online()

    # Stage 1

    def meta(self) -> None:
        case = self.case
        self.model = model = self.make_meta()
        self.load(model, "init/")
        model.optimizer = model.configure_optimizer()
        model.draw_slots = lambda: case[f"step{self.step}/slot"]
        model.draw_rows = self.drawn_rows
        unrolled = model.unrolled
        model.unrolled = lambda z, y: self.noted(unrolled(z, y), z, y)
        for step in range(1, self.steps + 1):
            self.step = step
            loss = model.observe(self.meta_batch())
            case.close(f"step{self.step}/loss", loss, self.tolerances["loss"])
            if self.step == 1:
                gradients = {self.name_of(name): p.grad for name, p in model.named_parameters()}
                self.compare("step1/meta_grad/", gradients, "meta_gradient")
                self.check_gap(gradients)
                self.compare("after1/", self.parameters(model), "parameters")
        assert f"step{self.steps + 1}/loss" not in case
        self.compare("final/", self.parameters(model), "parameters")

    def check_gap(self, gradients: dict[str, Tensor]) -> None:
        """How far the first-order meta-gradient of the representation is from the true one, where it was measured."""
        name = "rln_meta_gradient_relative_gap_to_first_order"
        if name not in self.case.settings.get("measured", {}):
            return
        model = self.make_meta(first_order=True)
        self.load(model, "init/")
        model.draw_rows = self.drawn_rows
        model.loss(self.meta_batch()).backward()
        pairs = [(gradients[self.name_of(f"backbone.{key}")], p.grad) for key, p in model.backbone.named_parameters()]
        true, first = (torch.cat([each.flatten() for each in part]) for part in zip(*pairs, strict=True))
        assert abs(self.case.settings["measured"][name] - ((true - first).norm() / true.norm()).item()) < 1e-3

    def drawn_rows(self, count: int) -> Tensor:
        """The recorded rows, in the order in which the method asks for them: of ascending classes."""
        classes = self.case[f"step{self.step}/reset_classes"]
        assert len(classes) == count
        return self.case[f"step{self.step}/reset_rows"][classes.argsort()]

    def noted(self, run, z: Tensor, y: Tensor):
        """The run, whose losses on the query and last weights are compared."""
        outputs = run.outputs

        def asked(features: Tensor) -> Tensor:
            with torch.no_grad():
                self.check_run(run, outputs, features)
            return outputs(features)

        run.outputs = asked
        return run

    def check_run(self, run, outputs, features: Tensor) -> None:
        case, at = self.case, f"step{self.step}/"
        y = self.flat(case[f"{at}y_query"]).to(DEVICE)
        steps = len(case[f"{at}x_traj"])
        after = [outputs(features, k) for k in range(steps + 1)]
        losses = torch.stack([self.model.loss_of(each, y) for each in after])
        self.check_losses(losses, after, y)
        if isinstance(run, Unrolled):
            weights = run.weights[-1]
        else:  # one that has no weights: the bias is what it gives for zero, a column what it gives for a one
            width = features.shape[1]
            bias = outputs(torch.zeros(1, width, device=DEVICE))[0]
            weights = {"0.weight": (outputs(torch.eye(width, device=DEVICE)) - bias).T, "0.bias": bias}
        self.compare(
            f"{at}fast/", {self.name_of(f"pln.{name}"): value for name, value in weights.items()}, "parameters"
        )

    # Names and weights

    def name_of(self, name: str) -> str:
        """The recorded name of a parameter: `rln.<layer>`, `pln.<layer>`."""
        part, *place, kind = name.split(".")
        number = int(place[-1])
        return f"rln.{number}.{kind}" if part == "backbone" else f"pln.{number // 2}.{kind}"

    def parameters(self, model: nn.Module) -> dict[str, Tensor]:
        return {self.name_of(name): p for name, p in model.named_parameters()}

    def load(self, model: nn.Module, prefix: str) -> None:
        recorded, own = self.case.below(prefix), self.parameters(model)
        assert recorded.keys() <= own.keys()
        load(
            model,
            {
                ours: recorded[self.name_of(ours)]
                for ours, _ in model.named_parameters()
                if self.name_of(ours) in recorded
            },
        )

    def compare(self, prefix: str, found: dict[str, Tensor], tolerance: str) -> None:
        """All arrays below a prefix."""
        assert self.case.below(prefix).keys() == found.keys(), prefix
        for name, value in found.items():
            self.case.close(prefix + name, value, self.tolerances[tolerance])

    def info(self, num_classes: int, num_tasks: int = 1) -> StreamInfo:
        return StreamInfo(
            num_classes=num_classes,
            num_tasks=num_tasks,
            num_images=0,
            num_updates=0,
            image_size=None if self.numbers else self.config["size"],
            seed=0,
            augment=Unchanged().train,
            plain=Unchanged().test,
            num_targets=1 if self.numbers else None,
            num_slots=self.config["capacity"] if self.numbers else 0,
        )

    def make_meta(self, first_order: bool = False) -> OmlMeta:
        config = self.config
        args = OmlMeta.Args(
            steps=self.steps,
            tasks=config["tasks"],
            update_step=config["update_step"],
            update_lr=config["update_lr"],
            meta_lr=config["meta_lr"],
            first_order=first_order,
            **self.own(),
            **self.layers(),
        )
        return OmlMeta(self.network(), self.info(self.outputs), args).to(DEVICE)

    def layers(self) -> dict[str, int]:
        hidden = [self.case["init/pln.0.bias"]][: self.case.count("init/pln.{}.bias") - 1]
        return {"pln_layers": 1 + len(hidden), **({"pln_width": len(hidden[0])} if hidden else {})}

    def make_online(self, lr: float, optimizer: str, num_tasks: int = 1) -> Oml:
        """Online, on the representation that the meta steps left, with the recorded head."""
        network = self.network().to(DEVICE)
        columns = {} if self.numbers else {"outputs": self.outputs}
        args = Oml.Args(rln="none", lr=lr, optimizer=optimizer, **columns, **self.layers())
        model = Oml(network, self.info(self.outputs, num_tasks), args).to(DEVICE)
        self.load(model, "final/")
        self.load(model, "eval/init/")
        model.optimizer = model.configure_optimizer()
        return model.train()

    def batch(self, x: Tensor, y: Tensor) -> Batch:
        return Batch(x.to(DEVICE), y.to(DEVICE), x.to(DEVICE), self.outputs)

    def meta_batch(self) -> Batch:
        """The trajectory and the query of a step, one after the other, as the stream gives them."""
        case, at = self.case, f"step{self.step}/"
        x, y = case[f"{at}x_traj"], case[f"{at}y_traj"]
        assert len(x) == self.config["tasks"] * self.config["update_step"] and x.shape[:2] == y.shape[:2]
        self.check_meta_batch(x, y)
        together = [torch.cat([case[f"{at}{name}_traj"].flatten(0, 1), case[f"{at}{name}_query"]]) for name in "xy"]
        return self.batch(together[0], self.flat(together[1]))


class Classes(Replay):
    numbers = False

    def network(self) -> Network:
        """Layers, as the case lists them; what belongs to the prediction network is compared with its own."""
        entries, layers, head, flat = list(self.config["net"]), [], [], self.config["net"][0] == "flatten"
        for entry in entries:
            if isinstance(entry, str):
                assert entry in ("relu", "flatten", "representation_ends_here"), f"{self.case.name}: {entry}"
            elif entry["part"] == "pln":
                assert entry["type"] == "linear"
                head.append((entry["inputs"], entry["outputs"]))
            elif entry["type"] == "linear":
                assert entry["part"] == "rln"
                layers.append(nn.Linear(entry["inputs"], entry["outputs"]))
            else:
                assert entry["part"] == "rln" and entry["type"] == "conv2d"
                sizes = entry["inputs"], entry["outputs"], entry["kernel"], entry["stride"], entry["padding"]
                layers.append(nn.Conv2d(*sizes))
        words = [entry if isinstance(entry, str) else entry["type"] for entry in entries]
        rln, pln = (
            words[: words.index("representation_ends_here")],
            words[words.index("representation_ends_here") + 1 :],
        )
        kinds = ["linear" if isinstance(layer, nn.Linear) else "conv2d" for layer in layers]
        plain = [word for kind in kinds for word in (kind, "relu")]
        assert rln == (["flatten", *plain] if flat else [*plain, "flatten"]) and pln in (
            ["linear"],
            ["linear", "relu", "linear"],
        )
        network = Network(layers, flat)
        network.num_features = head[0][0]
        assert self.layers() == {"pln_layers": len(head), **({"pln_width": head[0][1]} if len(head) > 1 else {})}
        return network

    @property
    def outputs(self) -> int:
        return self.config["n_meta_classes"]

    def own(self) -> dict:
        variant = self.config["variant"]
        assert variant in ("split", "paper"), f"{self.case.name}: config.variant is {variant!r}"
        own = {"query": variant, "reset": "step1/reset_rows" in self.case}
        self.case.expect("config.reset", own["reset"])
        return own | ({"meta_batch": self.config["rand_batch"]} if "rand_batch" in self.config else {})

    def flat(self, y: Tensor) -> Tensor:
        return y

    def check_meta_batch(self, x: Tensor, y: Tensor) -> None:
        case, at = self.case, f"step{self.step}/"
        count = len(case[f"{at}y_query"])
        assert self.model.in_trajectory(y.numel() + count) == y.numel(), f"{case.name}: {count} images of a query"
        if f"{at}reset_classes" in case:
            assert sorted(case[f"{at}reset_classes"].tolist()) == y.unique().tolist()

    def check_losses(self, losses: Tensor, after: list[Tensor], y: Tensor) -> None:
        at = f"step{self.step}/"
        self.case.close(f"{at}losses", losses, self.tolerances["loss"])
        hits = torch.stack([(each.argmax(dim=1) == y).double().mean() for each in after])
        self.case.close(f"{at}acc", hits, self.tolerances["accuracy"])

    # Online

    def online(self) -> None:
        case = self.case
        x, y, test_x, test_y = (case[f"eval/{name}"] for name in ("x", "y", "test_x", "test_y"))
        classes, each = self.config["eval_classes"], self.config["eval_train"]
        assert len(y.unique()) == classes and len(y) == classes * each
        assert len(test_y) == classes * self.config["eval_test"]
        assert y.max() < self.config["n_eval_pool"]
        assert y.tolist() == sorted(y.tolist())  # ascending, a class after the other
        close = partial(case.close, tolerance=self.tolerances["accuracy"])
        found = []
        for lr in case["eval/sweep_lr"].tolist():
            model = self.make_online(lr, "adam")
            model.observe(self.batch(x, y))
            found.append(self.batchmean(model, x, y))
        close("eval/sweep_train_accuracy", torch.tensor(found))
        best = case["eval/sweep_lr"][max(range(len(found)), key=found.__getitem__)]  # the first of the best
        case.equal("eval/best_lr", best)
        model, losses, after = self.make_online(best.item(), "adam"), [], []
        loss = model.loss
        model.loss = lambda one: losses.append(loss(one)) or losses[-1]
        for k in range(classes):
            own = slice(k * each, (k + 1) * each)
            model.observe(self.batch(x[own], y[own]))
            with torch.no_grad():  # the accuracy on classes met
                met, tested = y <= y[own].max(), test_y <= y[own].max()
                after.append(
                    (self.accuracy(model, x[met], y[met]), self.accuracy(model, test_x[tested], test_y[tested]))
                )
        case.close("eval/online_loss", torch.stack(losses).detach(), self.tolerances["loss"])
        close("eval/train_accuracy_after_class", torch.tensor([train for train, _ in after]))
        close("eval/test_accuracy_after_class", torch.tensor([test for _, test in after]))
        for part, images, labels in (("train", x, y), ("test", test_x, test_y)):
            close(f"eval/{part}_accuracy", self.accuracy(model, images, labels))
            close(f"eval/{part}_accuracy_batchmean", self.batchmean(model, images, labels))
        case.close("eval/test_logits", self.outputs_of(model, test_x), self.tolerances["loss"])
        head = {name: value for name, value in self.parameters(model).items() if name.startswith("pln")}
        self.compare("eval/final/", head, "parameters")
        self.check_representation(model)

    def outputs_of(self, model: Oml, x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x.to(DEVICE)).cpu()

    def accuracy(self, model: Oml, x: Tensor, y: Tensor) -> float:
        return (self.outputs_of(model, x).argmax(dim=1) == y).double().mean().item()

    def batchmean(self, model: Oml, x: Tensor, y: Tensor) -> float:
        """The released average, of the accuracies of batches."""
        parts = zip(x.split(EVALUATED), y.split(EVALUATED), strict=True)
        return torch.tensor([self.accuracy(model, *part) for part in parts]).mean().item()

    def check_representation(self, model: Oml) -> None:
        case = self.case
        values = model.fixed_features(case["rep/x"].to(DEVICE))
        case.close("rep/values", values, self.tolerances["loss"])
        found = statistics(values)
        for name, value in (
            ("instance_active_fraction", found.instance_sparsity),
            ("lifetime_active_fraction", found.lifetimes),
            ("dead_fraction", found.dead),
        ):
            case.close(f"rep/{name}", value, self.tolerances["accuracy"])


class Sines(Replay):
    numbers, outputs = True, 1

    def network(self) -> Network:
        layers, width = self.config["rln_layers"], self.config["width"]
        self.case.expect("config.pln_layers", self.layers()["pln_layers"])
        widths = [self.config["capacity"] + 1] + [width] * layers
        sizes = [self.case[f"init/rln.{k}.weight"].shape for k in range(layers)]
        assert f"init/rln.{layers}.weight" not in self.case and widths[0] == sizes[0][1]
        return Network([nn.Linear(before, after) for after, before in sizes], flat=True)

    def own(self) -> dict:
        # The clipping is the method's own, see `CLIP`; what it met is counted.
        self.clipped = self.entries = 0
        own = {"query": "minibatch", "capacity": self.config["capacity"]}
        return own | {"reset": "step1/reset_rows" in self.case}

    def flat(self, y: Tensor) -> Tensor:
        return y.reshape(-1, 1)

    def check_meta_batch(self, x: Tensor, y: Tensor) -> None:
        """Recorded samples are those of recorded functions, and have a one in the slot of theirs."""
        case, at = self.case, f"step{self.step}/"
        owners = torch.arange(self.config["tasks"])
        slots = case[f"{at}slot"]
        for part, inputs, wanted in (
            ("trajectory", x.flatten(0, 1), y),
            ("query", case[f"{at}x_query"], case[f"{at}y_query"]),
        ):
            own = owners.repeat_interleave(len(inputs) // len(owners))
            assert torch.equal(inputs[:, :-1].argmax(dim=1), slots[own]), part
            expected = case[f"{at}amplitude"][own] * torch.sin(inputs[:, -1] + case[f"{at}phase"][own])
            case.close_to(f"{at}{part}", wanted.flatten(), expected, self.tolerances["loss"])

    def check_losses(self, losses: Tensor, after: list[Tensor], y: Tensor) -> None:
        self.case.close(f"step{self.step}/loss_before", losses[0], self.tolerances["loss"])

    def noted(self, run, z: Tensor, y: Tensor):
        for weights, x_k, y_k in zip(run.weights, z.detach(), y, strict=False):
            known = {name: value.detach().requires_grad_() for name, value in weights.items()}
            loss = self.model.loss_of(torch.func.functional_call(run.network, known, (x_k,)), y_k)
            for gradient in torch.autograd.grad(loss, list(known.values())):
                self.entries += gradient.numel()
                self.clipped += int((gradient.abs() > CLIP).sum())
        return super().noted(run, z, y)

    def online(self) -> None:
        case, config, tasks = self.case, self.config, self.config["tasks"]
        if "measured" in case.settings:
            case.expect("measured.clipped_inner_gradient_entries", self.clipped)
            case.expect("measured.inner_gradient_entries", self.entries)
        x, y, test_x, test_y = (case[f"eval/{name}"] for name in ("x_traj", "y_traj", "x_test", "y_test"))
        each, tests = config["eval_update_step"], config["eval_test_batches"]
        tasks = len(case["eval/amplitude"])
        assert len(x) == tasks * each and len(test_x) == tasks * tests
        assert x.shape[1] == test_x.shape[1] == config["eval_batch"]
        lr = case["eval/lr"].item()
        case.expect("config.eval_lr", round(lr, 9))
        if not config["eval_reset"]:
            for name, value in case.below("eval/init/").items():
                case.equal(f"final/{name}", value)
        own = torch.arange(tasks)
        for inputs, wanted, count in ((x, y, each), (test_x, test_y, tests)):
            owner = own.repeat_interleave(count)[:, None]
            expected = case["eval/amplitude"][owner] * torch.sin(inputs[..., -1] + case["eval/phase"][owner])
            case.close_to("eval targets", wanted, expected, self.tolerances["loss"])
            assert torch.equal(inputs[..., :-1].argmax(dim=2), owner.expand(-1, inputs.shape[1]))
        model, seen = self.make_online(lr, "sgd", tasks), []
        for task in range(tasks):
            model.begin_task(Session(task, [task], range(task, task + 1), 0, lambda size: iter(())))
            for k in range(task * each, (task + 1) * each):
                model.observe(self.batch(x[k], self.flat(y[k])))
            errors = torch.stack([self.error(model, k, test_x, test_y, tests) for k in range(task + 1)])
            seen.append(errors.mean())
        case.close("eval/mse_seen_after_task", torch.stack(seen), self.tolerances["loss"])
        case.close("eval/mse_per_task_final", errors, self.tolerances["loss"])
        head = {name: value for name, value in self.parameters(model).items() if name.startswith("pln")}
        self.compare("eval/final/", head, "parameters")

    def error(self, model: Oml, task: int, x: Tensor, y: Tensor, count: int) -> Tensor:
        """Mean squared error on the test batches of a task, which is told; the slot is the method's to fill in."""
        own = slice(task * count, (task + 1) * count)
        with torch.no_grad():
            blank = F.pad(x[own].flatten(0, 1)[:, -1:], (x.shape[-1] - 1, 0)).to(DEVICE)
            return F.mse_loss(model.given(blank, task), self.flat(y[own]).to(DEVICE)).cpu()
