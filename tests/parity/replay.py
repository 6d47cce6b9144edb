"""Runs the project's own loop over recorded batches and writes down what a method computes."""

from __future__ import annotations

import inspect
import warnings
from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from models.base import ContinualModel
from utils.classes import SeenClasses
from utils.contracts import Batch, StreamInfo
from utils.data.images import ImageSet
from utils.streams.base import Draw, Stream
from utils.training.evaluation import Evaluator, Scores
from utils.training.loop import Trainer

from .goldens import DEVICE, Case, Settings


class Unchanged:
    """Transform of recorded images, which are network inputs already."""

    generator = torch.Generator()

    def train(self, images: Tensor) -> Tensor:
        return images

    test = train


class Recorded(Stream):
    """tasks: per task the batches, each a tensor of image positions. classes: labels told at a task's begin."""

    def __init__(self, tasks: list[list[Tensor]], num_classes: int, known: int = 0, classes=None):
        self.tasks, self.num_tasks, self.num_classes, self.known_classes = tasks, len(tasks), num_classes, known
        self.classes = classes or [[] for _ in tasks]

    def batches(self, task: int, epoch: int) -> list[Draw]:
        return [Draw(batch) for batch in self.tasks[task]]

    def task_classes(self, task: int) -> list[int]:
        return self.classes[task]


def consecutive(sizes: list[int], batches_per_task: list[int]) -> list[list[Tensor]]:
    """Tasks for `Recorded` when images lie in order of arrival."""
    batches = iter(torch.arange(sum(sizes)).split(sizes))
    return [[next(batches) for _ in range(count)] for count in batches_per_task]


class Recorder:
    """What a method computed at each update and at each evaluation, in order.

    watch(...) adds values by name; each update or evaluation keeps the values that were written during it. An update
    also has its batch (`batch`), its `loss` and what `before` gave.
    """

    def __init__(self, model: ContinualModel):
        self.updates: list[dict] = []
        self.evaluations: list[dict] = []
        self.before = dict
        self._values: dict = {}
        self._observe = model.observe
        model.observe = self._record_update

    def watch(self, **values) -> None:
        for name, value in values.items():
            self._values[name] = value.detach().clone().cpu() if isinstance(value, Tensor) else value

    def watch_head(self, head: nn.Module, logits: str = "logits", features: str = "features") -> None:
        """The input and the output of a module."""
        head.register_forward_hook(lambda _, given, out: self.watch(**{features: given[0], logits: out}))

    def _record_update(self, batch: Batch) -> Tensor:
        self._values = self.before()
        loss = self._observe(batch)
        self.updates.append(self._values | {"loss": loss.cpu(), "batch": batch})
        return loss

    def begin_evaluation(self) -> None:
        self._values = self.before()

    def end_evaluation(self, **values) -> None:
        self.evaluations.append(self._values | values)

    def evaluate(self, evaluator: Evaluator, model: ContinualModel, seen: SeenClasses) -> Scores:
        self.begin_evaluation()
        accuracy = evaluator(model, seen)
        self.end_evaluation(accuracy=accuracy, seen=len(seen))
        return accuracy


def train(model, stream: Stream, x: Tensor, y: Tensor, online_iter: int = 1, evaluator=None) -> Trainer:
    """The real loop over recorded images x [N, 3, H, W] with raw labels y [N]; evaluates at task ends only."""
    model.to(DEVICE)
    images = ImageSet(x.numpy(), y.numpy(), DEVICE)
    trainer = Trainer(model, stream, images, Unchanged(), evaluator, online_iter, eval_period=-1)
    trainer.train()
    return trainer


def network(case: Case) -> Settings:
    """Settings of the network, which one half of the cases calls `vit`, the other `backbone`."""
    return case.settings.get("vit") or case.settings["backbone"]


def make_vit(case: Case) -> VisionTransformer:
    """The network of the case's `vit` entry without a classifier, frozen, its weights random."""
    entry = network(case)
    known = inspect.signature(VisionTransformer).parameters
    given = {name: entry[name] for name in entry if name in known} | {"num_classes": 0}
    eps = entry.get("ln_eps", entry.get("norm_eps", 1e-6))
    assert entry.get("drop", 0) == 0, f"{case.name}: a network with dropout"
    return VisionTransformer(**given, norm_layer=partial(nn.LayerNorm, eps=eps)).requires_grad_(False)


def load_vit(case: Case) -> VisionTransformer:
    vit = make_vit(case)
    vit.load_state_dict(case.below("backbone/"))
    return vit


def make_info(case: Case, num_images: int, num_classes: int | None = None, num_tasks: int = 1) -> StreamInfo:
    vit = network(case)
    return StreamInfo(
        num_classes=vit["num_classes"] if num_classes is None else num_classes,
        num_tasks=num_tasks,
        num_images=num_images,
        num_updates=0,
        image_size=vit["img_size"],
        seed=case.settings.get("seed", 0),
        augment=Unchanged().train,
        plain=Unchanged().test,
    )


def load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies weights into the parameters of these names; '/' in a name reads '.'."""
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameter = own[name.replace("/", ".")]
            assert parameter.shape == value.shape, f"{name}: {list(parameter.shape)}, the case has {list(value.shape)}"
            parameter.copy_(value)


def set_optimizer(model: ContinualModel, given: Settings) -> None:
    """The method's own optimiser. Numbers that are no options of the method are taken from the case, with a warning
    (`test_released_numbers.py` holds what the method has)."""
    model.optimizer = model.configure_optimizer()
    kind, name = type(model.optimizer).__name__, given.get("name", given.get("type"))
    assert kind == name, f"the method's optimiser is {kind}, the case's {name}"
    assert given.get("schedule", "constant") == "constant" and model.scheduler is None, "the rate is not constant"
    for group in model.optimizer.param_groups:
        for key in given.keys() & group.keys() - {"lr", "params"}:  # rates are options
            value = tuple(given[key]) if isinstance(given[key], list) else given[key]
            if group[key] != value:
                warnings.warn(f"{kind}: the case sets {key} {value}, the method has {group[key]}", stacklevel=2)
                group[key] = value
