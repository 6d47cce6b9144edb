"""The contract between the training loop and a method: hooks with their defaults."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from utils.args import RunArgs
from utils.contracts import Batch, Session, StreamInfo


@dataclass(kw_only=True)
class ModelArgs:
    """Options of a method. Each field is an `utils.args.option` with default, help text and source."""


@dataclass(frozen=True)
class Stage:
    """A run that must have happened before a method can start: `model` on `dataset` leaves the file `output`.

    options: of that run, as on the command line; the rest are its defaults, with seed 1.
    """

    model: str
    dataset: str
    output: Path
    options: dict[str, Any]


class ContinualModel(nn.Module):
    """A method. Most implement `loss` and `features`, nothing else.

    Shapes: B images, D feature width, C classes of the dataset.

    Class attributes
    ----------------
    Args: dataclass of the method's own options.
    published: values that the method's authors give per dataset, name -> {option: value}; "*" holds for every dataset.
        They may name options of the run (batch_size ...) too. For the precedence see `utils.args`.
    scenarios: streams it can be trained on, the first is the default: si-blurry, class-il, shuffled or episodes.
    needs_task_boundaries: whether it is told when a session begins and ends, and which classes that session owns.
    evaluated: whether its predictions are worth a test accuracy (a stage that only writes a file says no).
    has_fixed_features: whether `fixed_features` is given.
    """

    Args: ClassVar[type[ModelArgs]] = ModelArgs
    published: ClassVar[dict[str, dict[str, Any]]] = {}
    scenarios: ClassVar[tuple[str, ...]] = ("si-blurry", "class-il")
    evaluated: ClassVar[bool] = True
    needs_task_boundaries: bool = False
    has_fixed_features: bool = False

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: ModelArgs):
        super().__init__()
        self.backbone, self.info, self.args = backbone, info, args
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        self.autocast = contextlib.nullcontext  # the loop puts the run's precision here

    @classmethod
    def prepare(cls, run: RunArgs, args: ModelArgs) -> list[Stage]:
        """Runs whose products this method needs, in order; may fill in options that name those products."""
        return []

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
        """Inputs [B, 3, H, W] to unmasked logits [B, C]. fixed: `fixed_features(x)` where it is known already."""
        raise NotImplementedError

    def fixed_features(self, x: Tensor) -> Tensor:
        """What `forward` needs of x and training never changes (a frozen query): [B, ...]."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """Training loss of one update, a scalar. Must be given unless `observe` is."""
        raise NotImplementedError

    def observe(self, batch: Batch) -> Tensor:
        """One update; returns the detached loss."""
        with self.autocast():
            loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss.detach()

    def end_batch(self, batch: Batch) -> None:
        """Called once per arriving batch, after its updates."""

    def begin_task(self, session: Session) -> None:
        """Called before a session, if `needs_task_boundaries`."""

    def end_task(self, session: Session) -> None:
        """Called after a session and its evaluation, if `needs_task_boundaries`."""

    def end_stream(self) -> None:
        """Called once after the last image; a stage writes its product here."""

    def configure_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser over the trainable parameters, or None for a stage without gradients."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trainable, lr=self.args.lr)

    def extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beyond `state_dict` and the optimiser: replay memory, counters, generators."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what `extra_state` returned."""


def linear_head(in_features: int, num_classes: int) -> nn.Linear:
    """The prompt methods' classifier: truncated normal weights (std 0.02), zero bias, all C rows from the start."""
    head = nn.Linear(in_features, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
