"""BCL and its baselines: losses, draws, parameters, memories, soft targets, told predictions, metrics; builders of the
task lists.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.perm_mnist import DomainArgs, PermMnist
from datasets.rot_mnist import RotMnist
from models.base import TaskMethod
from models.bcl import Bcl
from models.er_ring import ErRing
from models.ewc import Ewc
from models.ftml import Ftml
from models.gem import Gem
from utils.args import option_names
from utils.contracts import StreamInfo
from utils.rings import TaskRings
from utils.streams.base import Split
from utils.streams.task_il import TaskIncremental
from utils.training.evaluation import Scores
from utils.training.metrics import task_summary

from .goldens import DEVICE, Case
from .replay import Recorded, Unchanged, train

METHODS = {"bcl_dual": Bcl, "bcl_single": Bcl, "er": ErRing, "ewc": Ewc, "gem": Gem, "ftml": Ftml}
OWN = {"bcl_dual": {"form": "dual"}, "bcl_single": {"form": "single"}}
RENAMED = {"gem": {"memory_strength": "margin"}}  # option of the release -> ours
OPTIMISERS = (
    "SGD(lr), no momentum",
    "one SGD(lr), no momentum, shared by the inner steps and the outer step; "
    "test-time adaptation uses SGD(adapt_lr) on a copy",
)
FOREIGN = -1e11  # logit of a column of another task at test time, as released
EVALUATED = 128  # samples of a released evaluation batch


def check(case: Case, folder: Path) -> None:
    if "permuted" in case.settings["config"]:
        check_builders(case)
    else:
        Replay(case).run()


class Told(Recorded):
    """Recorded minibatches of told tasks. columns: of each task."""

    def __init__(self, tasks: list[list[Tensor]], num_classes: int, columns: list[range]):
        super().__init__(tasks, num_classes, known=num_classes, classes=[list(own) for own in columns])
        self.ranges = columns

    def columns(self, task: int) -> range:
        return self.ranges[task]


class Mlp(nn.Sequential):
    """The network of the case without its last layer, the classifier. num_features: width of its output."""

    def __init__(self, widths: list[int]):
        layers = [[nn.Linear(a, b), nn.ReLU()] for a, b in zip(widths, widths[1:], strict=False)]
        super().__init__(*[layer for pair in layers for layer in pair])
        self.num_features = widths[-1]


class Replay:
    """One case, run through the loop; everything is compared where it is computed."""

    def __init__(self, case: Case):
        self.case, self.config, self.tolerances = case, case.settings["config"], case.settings["tolerances"]
        self.name = self.config["method"]
        tasks, per_task = self.config["n_tasks"], self.config["classes_per_task"]
        self.num_tasks, multihead = tasks, self.config["multihead"]
        self.num_classes = per_task * tasks if multihead else per_task
        self.columns = [range(t * per_task, (t + 1) * per_task) if multihead else range(per_task) for t in range(tasks)]
        self.step = 0  # the one that runs, from 1
        self.losses: dict[str, list[Tensor]] = {}  # of the step
        self.inner = self.dropped = self.projections = 0
        self.accuracies: dict[str, list[list[float]]] = {"full": [], "released": []}
        assert case.settings["optimiser"] in OPTIMISERS, f"{case.name}: the project has another optimiser"

    def at(self, array: str) -> str:
        return f"step{self.step:02}/{array}"

    def make_model(self) -> TaskMethod:
        case, config, method = self.case, self.config, METHODS[self.name]
        renamed = RENAMED.get(self.name, {})
        given = {
            renamed.get(key, key): config[key] for key in config if renamed.get(key, key) in option_names(method.Args)
        }
        info = StreamInfo(
            num_classes=self.num_classes,
            num_tasks=self.num_tasks,
            num_images=0,
            num_updates=0,
            image_size=0,
            seed=0,
            augment=Unchanged().train,
            plain=Unchanged().test,
        )
        network = Mlp([config["n_inputs"], *config["hidden"]])
        model = method(network, info, method.Args(**given, **OWN.get(self.name, {})))
        with torch.no_grad():
            for name, weight in self.parameters(model).items():
                initial = case[f"init/{name}"]
                assert initial.shape == weight.shape, f"{case.name}: init/{name} is {list(initial.shape)}"
                weight.copy_(initial)
        assert case.below("init/").keys() == self.parameters(model).keys()
        if self.name == "bcl_dual":
            case.expect("config.n_val", model.n_val)
        if self.name.startswith("bcl"):
            case.expect("config.n_replay_slots", model.memory.slots)
        model.optimizer = model.configure_optimizer()
        return model

    def parameters(self, model: TaskMethod) -> dict[str, Tensor]:
        """Parameters under the names of the case, whose classifier is the last layer of the stack."""
        last = 2 * len(self.config["hidden"])
        return {name.replace("backbone.", "").replace("head", str(last)): p for name, p in model.named_parameters()}

    def run(self) -> None:
        case, config = self.case, self.config
        task_of = []
        while f"step{len(task_of) + 1:02}/x" in case:
            task_of.append(int(case[f"step{len(task_of) + 1:02}/task"]))
        x = [case[f"step{k:02}/x"] for k in range(1, len(task_of) + 1)]
        y = [case[f"step{k:02}/y"] for k in range(1, len(task_of) + 1)]
        case.expect("measured.steps", len(x))
        case.expect("config.batch_size", max(map(len, x)))
        batches = torch.arange(sum(map(len, x))).split([len(part) for part in x])
        tasks = [
            [batch for batch, own in zip(batches, task_of, strict=True) if own == t] for t in range(self.num_tasks)
        ]
        assert task_of == sorted(task_of) and {sum(map(len, task)) for task in tasks} == {config["train_per_task"]}
        if "last_step_of_task" in case:
            case.equal("last_step_of_task", np.cumsum([len(task) for task in tasks]))
        self.model = model = self.make_model()
        self.watch()
        train(model, Told(tasks, self.num_classes, self.columns), torch.cat(x), torch.cat(y), evaluator=self.evaluate)
        assert self.step == len(x)
        for name, weight in self.parameters(model).items():
            case.close(f"final/{name}", weight, self.tolerances["parameters"])
        assert case.below("final/").keys() == self.parameters(model).keys()
        self.check_accuracies()
        case.expect("measured.replay_indices_dropped_by_the_exclusion", self.dropped)
        case.expect("measured.projections", self.projections)

    def watch(self) -> None:
        """Feeds the recorded draws, and looks at every step and at the memories after every task."""
        model, case = self.model, self.case
        observe, end_task = model.observe, model.end_task

        def observed(batch) -> Tensor:
            self.step, self.inner, self.losses = self.step + 1, 0, {}
            loss = observe(batch)
            case.close(self.at("loss"), loss, self.tolerances["loss"])
            for name in ("ce_current", "ce_replay", "kl_unweighted", "ce_outer"):
                if self.at(name) in case:
                    case.close(self.at(name), torch.stack(self.losses.get(name, [])), self.tolerances["loss"])
            for name, weight in self.parameters(model).items():
                case.close(self.at(f"after/{name}"), weight, self.tolerances["parameters"])
            assert case.below(self.at("after/")).keys() == self.parameters(model).keys()
            return loss

        def ended(session) -> None:
            end_task(session)
            self.check_memories(session.index)

        model.observe, model.end_task = observed, ended
        if isinstance(model, Bcl):
            self.watch_bcl(model)
        elif isinstance(model, ErRing):
            model.memory.draw = self.replay_used
        elif isinstance(model, Ftml):
            model.memory.choose = self.meta_task
        elif isinstance(model, Gem):
            self.watch_gem(model)

    def watch_bcl(self, model: Bcl) -> None:
        own_loss, replay_losses, outer_loss, draw_replay = (
            model.own_loss,
            model.replay_losses,
            model.outer_loss,
            model.draw_replay,
        )
        place = ["ce_current"]

        def note(name: str, value: Tensor) -> Tensor:
            self.losses.setdefault(name, []).append(value.detach())
            return value

        def outer() -> Tensor:
            place[0] = "ce_outer"
            loss = outer_loss()
            place[0] = "ce_current"
            return loss

        def replayed(index: Tensor) -> tuple[Tensor, Tensor]:
            again, divergence = replay_losses(index)
            return note("ce_replay", again), note("kl_unweighted", divergence)

        def meta() -> str:
            """The passage of the step that runs: its outer steps come after all of its inner ones."""
            return f"meta{len(self.losses.get('ce_outer', []))}"

        def inner() -> str:
            return f"{meta()}/inner{self.inner % model.args.inner_steps}"

        def drawn_replay() -> Tensor:
            index = draw_replay()
            self.case.equal(self.at(f"{inner()}/replay_used"), index)
            self.inner += 1
            return index

        def replay_drawn(tasks: int, count: int) -> Tensor:
            drawn = self.fed(
                f"{meta()}/inner{self.inner % model.args.inner_steps}/replay_drawn", model.memory, tasks, count
            )
            self.dropped += int(torch.isin(drawn, model.last_val).sum()) if model.is_dual else 0
            return drawn

        model.own_loss = lambda x, y: note(place[0], own_loss(x, y))
        model.replay_losses, model.outer_loss, model.draw_replay = replayed, outer, drawn_replay
        model.memory.draw = replay_drawn
        model.validation.draw = lambda tasks, count: self.fed(f"{meta()}/val_used", model.validation, tasks, count)

    def fed(self, array: str, rings: TaskRings, tasks: int, count: int) -> Tensor:
        """Recorded flat indices, which must be what could have been drawn."""
        drawn, could = self.case[self.at(array)], TaskRings.draw(rings, tasks, count)
        places = rings.places(0, tasks).tolist()
        assert len(drawn) == len(could), f"{self.case.name}: {self.at(array)}: the project draws {len(could)}"
        assert len(set(drawn.tolist())) == len(drawn) and set(drawn.tolist()) <= set(places)
        return drawn

    def replay_used(self, tasks: int, count: int) -> Tensor:
        if tasks == 0:
            return torch.empty(0, dtype=torch.int64)
        self.inner += 1
        return self.fed(f"inner{self.inner - 1}/replay_used", self.model.memory, tasks, count)

    def meta_task(self, tasks: int) -> int:
        task = int(self.case[self.at("meta_task")][self.inner])
        assert task < tasks
        self.inner += 1
        return task

    def watch_gem(self, model: Gem) -> None:
        learn, set_gradient, replaced = model.learn, model.set_gradient, []

        def learnt(batch) -> Tensor:
            before = len(replaced)
            loss = learn(batch)
            self.projections = len(replaced)
            self.case.equal(self.at("projected"), len(replaced) - before)
            return loss

        model.learn = learnt
        model.set_gradient = lambda g: (replaced.append(None), set_gradient(g))[1]

    def check_memories(self, task: int) -> None:
        case, where = self.case, f"after_task{task}/"
        if f"{where}memory_x" not in case:
            return
        assert self.tolerances["memory_contents"] == "exact"
        for kind, rings in (("memory", self.model.memory), ("val", self.model.validation)):
            if f"{where}{kind}_x" in case:
                shape = rings.tasks, rings.slots
                x, y = rings.columns
                case.equal(f"{where}{kind}_x", x.view(*shape, *x.shape[1:]))
                case.equal(f"{where}{kind}_y", y.view(shape))
        rings = self.model.memory
        width = self.num_classes if rings.soft is None else rings.soft.shape[1]
        soft = torch.zeros(rings.tasks * rings.slots, width) if rings.soft is None else rings.soft.cpu()
        rows = soft.view(rings.tasks, rings.slots, width)
        own = torch.stack([rows[t][:, list(columns)] for t, columns in enumerate(self.columns)])
        case.close(f"{where}soft_targets", own, self.tolerances["soft_targets"])

    @torch.no_grad()
    def evaluate(self, model: TaskMethod, seen) -> Scores:
        """Accuracy on every task, those to come included; logits are recorded after the last."""
        model.eval()
        rows: dict[str, list[float]] = {"full": [], "released": []}
        for k, columns in enumerate(self.columns):
            x, y = (self.case[f"eval/task{k}/{name}"].to(DEVICE) for name in "xy")
            self.case.expect("config.test_per_task", len(x))
            logits = torch.full((len(x), self.num_classes), FOREIGN, device=DEVICE)
            own = slice(columns.start, columns.stop)
            logits[:, own] = model.given(x, k)[:, own]
            if len(self.accuracies["full"]) == self.num_tasks - 1:
                self.case.close(f"eval/task{k}/logits", logits, self.tolerances["logits"])
            hits = (logits.argmax(dim=1) == y).double()
            # Its last sample is left out of a released evaluation, but where it has a batch of its own.
            counted = len(y) if (len(y) - 1) % EVALUATED == 0 else len(y) - 1
            rows["full"].append(hits.mean().item())
            rows["released"].append((hits[:counted].sum() / len(y)).item())
        for name, row in rows.items():
            self.accuracies[name].append(row)
        model.train()
        return Scores(rows["full"][-1], torch.zeros(self.num_classes))

    def check_accuracies(self) -> None:
        case, tolerance = self.case, self.tolerances["accuracy"]
        for name, table in self.accuracies.items():
            case.close(f"eval/accuracy_{name}", torch.tensor(table, dtype=torch.float64), tolerance)
        summary = task_summary(np.array(self.accuracies["released"]))
        theirs = {"final_accuracy": "final", "forgetting": "forgetting", "learning_accuracy": "learned"}
        for name, ours in theirs.items():
            if f"eval/{name}" in case:
                case.close(f"eval/{name}", summary[ours], tolerance)


# The task lists ------------------------------------------------------------------------------------------------------


def check_builders(case: Case) -> None:
    config, tolerances = case.settings["config"], case.settings["tolerances"]
    assert case.settings["optimiser"] is None and tolerances["labels"] == "exact"
    raw = {part: case[f"mnist/x_{part}"].to(torch.uint8)[:, None] for part in ("train", "test")}
    assert all(len(case[f"mnist/y_{part}"]) == len(images) for part, images in raw.items())
    check_permuted(case, config["permuted"], raw, tolerances["pixels"])
    check_rotated(case, config["rotated"], raw, tolerances["pixels"])
    check_cifar(case, config["cifar"], tolerances["pixels"])


def shown(dataset: PermMnist, images: Tensor, domain: int) -> Tensor:
    """Images uint8 [N, 1, 28, 28] as a task of the GEM format has them, float [N, 784] in [0, 1]."""
    return dataset.shift(images, torch.full((len(images),), domain)).flatten(1) / 255


def check_permuted(case: Case, config, raw: dict[str, Tensor], tolerance) -> None:
    dataset = PermMnist(DomainArgs(domain_seed=config["seed"]))
    for t in range(config["n_tasks"]):
        case.equal(f"permuted/task{t}/permutation", dataset.permutations[t])
        for part, images in raw.items():
            case.close(f"permuted/task{t}/x_{part}", shown(dataset, images, t), tolerance)
        case.equal(f"permuted/task{t}/y_train", case["mnist/y_train"])


def check_rotated(case: Case, config, raw: dict[str, Tensor], tolerance) -> None:
    """Angles by GEM's rule; the project turns the other way round."""
    low, high, tasks = config["min_rot"], config["max_rot"], config["n_tasks"]
    draw, width = random.Random(config["python_random_seed"]), (high - low) / tasks
    angles = torch.tensor([low + width * (t + draw.random()) for t in range(tasks)], dtype=torch.float64)
    case.close("rotated/angle", angles, 1e-4)
    dataset = RotMnist(DomainArgs())
    dataset.angles = -angles.float()
    for t in range(tasks):
        case.close(f"rotated/task{t}/x_train", shown(dataset, raw["train"], t), tolerance)


def check_cifar(case: Case, config, tolerance) -> None:
    """The project's split in natural order of the labels, once they passed through the map; its first tasks are the
    validation file, the others the learning file."""
    renamed = torch.randperm(100, generator=torch.Generator().manual_seed(config["seed"]))
    case.equal("cifar/label_map", renamed)
    pixels = case["cifar/first_pixel_train"] / 255
    first = 0
    for name, shift in (("val", 0), ("cl", config["label_shift_of_the_learning_file"])):
        count = int(case[f"cifar/{name}/n_tasks"])
        for part in ("train", "test"):
            labels = renamed[case[f"cifar/y_{part}"]]
            stream = TaskIncremental(labels, 100, config["n_tasks"], 0, 10, 1, Split(order=list(range(100))))
            rows = [stream.rows(t) for t in range(first, first + count)]
            case.equal(f"cifar/{name}/labels_{part}", torch.stack([labels[own] for own in rows]) - shift)
            if part == "train":
                case.close(f"cifar/{name}/first_pixel_train", torch.stack([pixels[own] for own in rows]), tolerance)
                ranges = [stream.columns(t) for t in range(first, first + count)]
                case.equal(f"cifar/{name}/class_range", [[own.start, own.stop] for own in ranges])
                assert shift == ranges[0].start
        first += count
    assert first == config["n_tasks"]
