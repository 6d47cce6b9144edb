"""The contract between the training loop and a method: hooks with their defaults."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backbone as backbones
from backbone import features
from backbone.heads import linear_head
from backbone.products import Stage
from backbone.vit import embed, encode
from utils.args import RunArgs, option
from utils.classes import TaskColumns, mask_for_training
from utils.contracts import Batch, Session, StreamInfo, Votes
from utils.errors import UsageError
from utils.registry import METHODS
from utils.rings import TaskRings

FEATURES = "features"  # `shared_as` of what the network gives by itself
# What a class gives anew: what its parent said of it, which no longer holds unless it says so again.
SAID_OF = {"fixed_features": "shared_as", "forward": "fixed_suffice", "observe": "repeats"}


# How Mammoth's recorded best values (utils/best_args.py, a ResNet-18 from scratch, buffer 500) were found.
MAMMOTH: dict[str, Any] = {
    "backbone": "resnet18-64",
    "class_order": "natural",
    "trainable": "all",
    "n_epochs": 50,
    "eval_period": -1,
    "eval_passes": "last",
}
MAMMOTH_SPLITS = {
    "seq-cifar10": MAMMOTH | {"n_tasks": 5, "autoaugment": False},
    "seq-cifar100": MAMMOTH | {"n_tasks": 10},
    "seq-tinyimg": MAMMOTH | {"n_tasks": 10, "n_epochs": 100},
}


@dataclass(kw_only=True)
class ModelArgs:
    """Options of a method. Each field is an `utils.args.option` with default, help text and source."""


class ContinualModel(nn.Module):
    """A method. Most implement `loss` and `features`, nothing else.

    Shapes: B images, D feature width, C classes of the dataset.

    Class attributes
    ----------------
    Args: dataclass of the method's own options.
    published: values that the method's authors give per dataset, name -> {option: value}; "*" holds for every dataset,
        "host X" and "host X on dataset" for a method that wraps the method X, "backbone B" and "host X on backbone B"
        for a network. They may name options of the run (batch_size ...), of the dataset and of the host too. For the
        precedence see `utils.plan`.
    one_per_task: options that count what the method has one of per task; where nothing sets them they are `--n_tasks`.
    variants: options of its own whose values, in this order with a space between, name further entries of `published`:
        "X Y" and "X Y on dataset".
    predicts: what it learns to predict, "classes", "numbers" (`StreamInfo.num_targets`) or both.
    tells_tasks_apart: whether it has a model per task and infers the task of a sample from them (`votes`).
    scenarios: streams it can be trained on, the first is the default: si-blurry, class-il, task-il, domain-il,
        shuffled, episodes or adaptation.
    needs_task_boundaries: whether it is told when a session begins and ends, and which classes that session owns.
    evaluated: whether its predictions are worth a test accuracy (a stage that only writes a file says no).
    has_fixed_features: whether `fixed_features` is given and will not change any more; once true it stays true.
    fixed_suffice: whether `forward` looks at nothing else once they are fixed; in evaluation x is None then.
    repeats: whether a further update on the batch at hand changes anything; if not, every batch gives one.
        A class with a `forward` or `observe` of its own says these two anew.
    rereads: whether it reads the samples of a session again (`Session.again`).
    predicts_from_state: whether its predictions need `extra_state` beside the weights.
    by_batch: what makes a prediction depend on what else is in its batch, None where it does not.
    """

    Args: ClassVar[type[ModelArgs]] = ModelArgs
    published: ClassVar[dict[str, dict[str, Any]]] = {}
    one_per_task: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[tuple[str, ...]] = ()
    predicts: ClassVar[tuple[str, ...]] = ("classes",)
    tells_tasks_apart: ClassVar[bool] = False
    scenarios: ClassVar[tuple[str, ...]] = ("si-blurry", "class-il", "task-il", "domain-il")
    evaluated: ClassVar[bool] = True
    needs_task_boundaries: bool = False
    has_fixed_features: bool = False
    fixed_suffice: bool = False
    repeats: bool = True
    rereads: bool = False
    predicts_from_state: bool = False
    by_batch: str | None = None

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ModelArgs):
        super().__init__()
        self.backbone, self.info, self.args = backbone, info, args
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.autocast = contextlib.nullcontext  # the loop puts the run's precision here

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        for given_anew, said in SAID_OF.items():
            if given_anew in vars(cls) and said not in vars(cls):
                setattr(cls, said, getattr(ContinualModel, said))

    @classmethod
    def prepare(cls, run: RunArgs, args: ModelArgs) -> list[Stage]:
        """Runs whose products this method needs, in order; may fill in options that name those products."""
        return []

    @classmethod
    def cannot_wrap(cls, host: type[ContinualModel]) -> str | None:
        """Why this method, which wraps another, cannot wrap that one; None: it can."""
        return None

    @classmethod
    def product(cls, args: ModelArgs) -> str | None:
        """Name of the file that a stage leaves in its folder `--save_to`, last of all its files; None: it is none."""
        return None

    @classmethod
    def keeps(cls, args: ModelArgs) -> str | None:
        """What it learns from beside its updates, in a word or two: a memory of images, sums of features."""
        return None

    @classmethod
    def stream_options(cls, args) -> dict[str, Any]:
        """Settings of the stream that are the method's own options, by parameter name of its stream class."""
        return {}

    def train(self, mode: bool = True) -> ContinualModel:
        """As in torch, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def label(self) -> str:
        """Name of the method in tables."""
        return type(self).__module__.split(".")[-1].removeprefix("plugin_models_")

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        """Inputs [B, 3, H, W] to unmasked logits [B, C]. fixed: `fixed_features(x)` where it is known already; x may be
        None then, of a method whose `fixed_suffice`."""
        raise NotImplementedError

    def fixed_features(self, x: Tensor) -> Tensor:
        """What `forward` needs of x and training never changes (a frozen query): [B, ...]."""
        raise NotImplementedError

    def shared_as(self, precision: str) -> str | None:
        """A name for what `fixed_features` gives in a run of this `--precision`, if weights of the backbone and inputs
        alone decide it; runs find it again under that name, of whatever method they are. None, the default: it is the
        run's own. A class with `fixed_features` of its own names them anew."""
        return None

    def given(self, x: Tensor, task: int) -> Tensor:
        """Inputs [B, 3, H, W] of samples of one task, which the protocol tells, to unmasked logits [B, C]. Whoever asks
        masks them to the task's columns. Default: as `forward`."""
        return self(x)

    def votes(self, x: Tensor) -> Votes:
        """What the model of each task that has begun says of inputs [B, ...], of a method that `tells_tasks_apart`."""
        raise NotImplementedError

    @property
    def is_told(self) -> bool:
        """Whether `given` differs from `forward`."""
        return type(self).given is not ContinualModel.given

    def measures(self) -> dict[str, float]:
        """Numbers of the method's own at the end of a run, by name, for `summary.json`."""
        return {}

    def loss(self, batch: Batch) -> Tensor:
        """Training loss of one update, a scalar. Must be given unless `observe` is."""
        raise NotImplementedError

    def observe(self, batch: Batch) -> Tensor | None:
        """One update; returns the detached loss, or None where nothing was trained."""
        with self.autocast():
            loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.end_update()
        return loss.detach()

    def end_update(self) -> None:
        """Called after every optimiser step (moving averages of weights live here)."""

    def end_batch(self, batch: Batch) -> None:
        """Called once per arriving batch, after its updates."""

    def begin_task(self, session: Session) -> None:
        """Called before a session, if `needs_task_boundaries`."""

    def end_updates(self, session: Session) -> None:
        """Called after the last update of a session, before its evaluation, if `needs_task_boundaries`."""

    def end_task(self, session: Session) -> None:
        """Called after a session and its evaluation, if `needs_task_boundaries`."""

    def end_stream(self) -> None:
        """Called once after the last image; a stage writes its product here."""

    def configure_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser over the trainable parameters, or None for a stage without gradients."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trainable, lr=self.args.lr)

    def why_not_finite(self) -> str | None:
        """Where numbers that are not finite came from, if the method knows; asked once some were met."""
        return None

    def extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beyond `state_dict` and the optimiser: replay memory, counters, generators."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""


class PromptMethod(ContinualModel):
    """A method that inserts prompts into a frozen ViT and classifies the feature that comes out.

    fc_norm: what the feature passes before the classifier, the identity (timm's name for that place). MePo puts its
    alignment there, so `forward` and `loss` must send every feature through it once. head: the classifier.
    """

    has_fixed_features = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ModelArgs):
        backbones.need_vit(backbone)
        super().__init__(backbone, info, args)
        self.fc_norm: nn.Module = nn.Identity()
        self.head: nn.Module = linear_head(backbone.num_features, info.num_classes)

    def fixed_features(self, x: Tensor) -> Tensor:
        """The query: class token of the frozen network without prompts, [B, D]."""
        with torch.no_grad():
            return encode(self.backbone, embed(self.backbone, x))

    def shared_as(self, precision: str) -> str | None:
        return f"{FEATURES} {precision}"

    def masked(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits [B, C] in float32, with -inf for the classes that do not compete in training (`--train_mask`)."""
        return mask_for_training(logits, batch.y, batch.seen, self.args.train_mask)


TRAINABLE = (
    "what trains of the network beside the classifier: all of it, its last blocks (of a ViT), or nothing; a small "
    "network that begins untrained always trains whole"
)


@dataclass(kw_only=True)
class FeatureArgs(ModelArgs):
    """has_weights: whether those of the network are read from a file; no option, `prepare` fills it in."""

    trainable: Literal["all", "last", "head"] = option("all", TRAINABLE, "ours")
    last_blocks: int = option(
        3, "last blocks that train of each network", "LMSRR, Fig. 2a", low=1, where={"trainable": ("last",)}
    )
    has_weights: bool = False


class FeatureMethod(ContinualModel):
    """A method that inserts nothing into its network: a classifier `head` on `features`, whatever the network is. Which
    weights of the network train is said by `FeatureArgs`, here alone.

    is_frozen: whether none does, so that the features stay what they are.
    """

    fixed_suffice = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FeatureArgs):
        super().__init__(backbone, info, args)
        trainable = args.trainable
        if backbones.is_small(backbone):
            if trainable == "last":
                raise UsageError("--trainable last: a small network has no blocks; --trainable all or head")
            if not args.has_weights:  # its features mean nothing before they are trained
                trainable = "all"
        backbone.requires_grad_(trainable == "all")
        if trainable == "last":
            unfreeze_last(backbone, args.last_blocks, "last_blocks")
        self.is_frozen = trainable == "head"

    @classmethod
    def prepare(cls, run: RunArgs, args: FeatureArgs) -> list[Stage]:
        args.has_weights = not backbones.begins_untrained(run.backbone, run.backbone_path)
        return []

    @property
    def has_fixed_features(self) -> bool:
        return self.is_frozen

    def fixed_features(self, x: Tensor) -> Tensor:
        """Features of the network, [B, D]."""
        return features(self.backbone, x)

    def shared_as(self, precision: str) -> str:
        return f"{FEATURES} {precision}"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.fixed_features(x) if fixed is None else fixed)

    def trained(self) -> list[nn.Parameter]:
        """All parameters that train."""
        return [p for p in self.parameters() if p.requires_grad]


class TaskMethod(FeatureMethod):
    """A method of the older protocols: it is told its tasks, trains by plain SGD, and losses compare the columns of
    each sample's own task, which are all columns where tasks share them.

    own: masks logits to them. task: the one at hand. met: whether the batch at hand was offered to the memory, which
    happens once, however many updates it gives (`meet`).
    """

    scenarios = ("task-il", "domain-il")
    needs_task_boundaries = True

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FeatureArgs):
        super().__init__(backbone, info, args)
        self.head = nn.Linear(backbone.num_features, info.num_classes)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.own = TaskColumns(info.num_classes)
        self.task = -1
        self.met = False

    def own_logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits [B, C] in float32, -inf in the columns of other tasks than those of slots y [B]."""
        with self.autocast():
            logits = self(x)
        return self.own(logits, y)

    def own_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy over the columns of each sample's own task."""
        return F.cross_entropy(self.own_logits(x, y), y)

    def step(self, loss: Tensor) -> None:
        """One step of SGD on a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def observe(self, batch: Batch) -> Tensor | None:
        if not self.met:
            self.meet(batch)
            self.met = True
        return self.learn(batch)

    def meet(self, batch: Batch) -> None:
        """Puts a batch that has just arrived into the memory, before its first update."""

    def learn(self, batch: Batch) -> Tensor | None:
        """One update; returns the detached loss. Default: a step on `loss`."""
        loss = self.loss(batch)
        self.step(loss)
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        return self.own_loss(batch.x, batch.y)

    def end_batch(self, batch: Batch) -> None:
        self.met = False

    def begin_task(self, session: Session) -> None:
        self.task = session.index
        self.own.begin(session.index, session.outputs)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.trained(), lr=self.args.lr)

    def extra_state(self) -> dict[str, Any]:
        return {"task": self.task, "met": self.met, "owner": self.own.owner.clone()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.task, self.met = state["task"], state["met"]
        self.own.owner.copy_(state["owner"])


class RingMethod(TaskMethod):
    """A `TaskMethod` that keeps samples of each task, in rings that every arriving batch is written to (`memory`)."""

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: FeatureArgs):
        super().__init__(backbone, info, args)
        self.memory = self.make_memory()

    @classmethod
    def keeps(cls, args: FeatureArgs) -> str:
        return "a memory of images"

    def make_memory(self) -> TaskRings:
        """Empty rings. Default: of `n_memories` samples per task."""
        return TaskRings(self.info.num_tasks, self.args.n_memories, self.info.seed)

    def meet(self, batch: Batch) -> None:
        self.memory.write(self.task, batch.raw, batch.y)

    def extra_state(self) -> dict[str, Any]:
        return super().extra_state() | {"memory": self.memory.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.memory.load_state_dict(state["memory"], self.own.owner.device)


@dataclass(kw_only=True)
class WrapperArgs(ModelArgs):
    """host_args: options of the method that the option `host` names, resolved beside these."""

    host: str
    host_args: ModelArgs | None = None


class Wrapper(ContinualModel):
    """A method that changes how another one, its host, is trained. The host knows nothing of it.

    Everything is the host's unless a subclass says otherwise; the optimiser is one object that both hold.
    """

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: WrapperArgs):
        super().__init__(backbone, info, args)
        self.host: ContinualModel = METHODS.load(args.host)(backbone, info, args.host_args)

    @classmethod
    def prepare(cls, run: RunArgs, args: WrapperArgs) -> list[Stage]:
        return METHODS.load(args.host).prepare(run, args.host_args)

    def label(self) -> str:
        return f"{super().label()} ({self.host.label()})"

    @property
    def needs_task_boundaries(self) -> bool:
        return self.host.needs_task_boundaries

    @property
    def has_fixed_features(self) -> bool:
        return self.host.has_fixed_features

    def fixed_features(self, x: Tensor) -> Tensor:
        return self.host.fixed_features(x)

    def shared_as(self, precision: str) -> str | None:
        return self.host.shared_as(precision)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.host(x, fixed)

    @property
    def fixed_suffice(self) -> bool:
        return self.host.fixed_suffice

    @property
    def repeats(self) -> bool:
        return self.host.repeats

    @property
    def rereads(self) -> bool:
        return self.host.rereads

    @property
    def is_told(self) -> bool:
        return self.host.is_told

    @property
    def predicts_from_state(self) -> bool:
        return self.host.predicts_from_state

    @property
    def by_batch(self) -> str | None:
        return self.host.by_batch

    def given(self, x: Tensor, task: int) -> Tensor:
        return self.host.given(x, task)

    def measures(self) -> dict[str, float]:
        return self.host.measures()

    def observe(self, batch: Batch) -> Tensor | None:
        self.host.autocast = self.autocast
        return self.host.observe(batch)

    def end_batch(self, batch: Batch) -> None:
        self.host.end_batch(batch)

    def begin_task(self, session: Session) -> None:
        self.host.begin_task(session)

    def end_updates(self, session: Session) -> None:
        self.host.end_updates(session)

    def end_task(self, session: Session) -> None:
        self.host.end_task(session)

    def end_stream(self) -> None:
        self.host.end_stream()

    def configure_optimizer(self) -> torch.optim.Optimizer | None:
        self.host.optimizer = self.host.configure_optimizer()
        self.scheduler = self.host.scheduler
        return self.host.optimizer

    def why_not_finite(self) -> str | None:
        return self.host.why_not_finite()

    def extra_state(self) -> dict[str, Any]:
        return {"host": self.host.extra_state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.host.load_extra_state(state["host"])


def unfreeze_last(backbone: nn.Module, count: int, option: str) -> None:
    """Lets the last `count` blocks of each ViT of the network train. Raises UsageError, with the name of the option
    that says so, if there are fewer."""
    for vit in backbones.vits(backbone):
        if count > len(vit.blocks):
            raise UsageError(f"--{option} {count}: the network has {len(vit.blocks)} blocks")
        vit.blocks[-count:].requires_grad_(True)


def weights_now(model: ContinualModel) -> dict[str, Tensor]:
    """A copy of all weights that training changes, by name, and of the buffers that are kept."""
    kept = model.state_dict().keys()
    named = [*((name, p) for name, p in model.named_parameters() if p.requires_grad), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in named if name in kept}


@torch.no_grad()
def logits_then(model: FeatureMethod, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits [B, C] in float32 of inputs, as the network of a method was when it had these weights (`weights_now`)."""
    was_training = model.backbone.training
    model.backbone.eval()  # batch norm takes the statistics of then
    logits = torch.func.functional_call(model, weights, (x,)).float()
    model.backbone.train(was_training)
    return logits


def check_blocks(backbone: nn.Module, **places: tuple[int, ...]) -> None:
    """Raises UsageError if an option names a block that the backbone has not. places: option -> block numbers."""
    count = len(backbone.blocks)
    for name, blocks in places.items():
        if max(blocks) >= count:
            raise UsageError(f"--{name} {max(blocks)}: the backbone has blocks 0 ... {count - 1}")
