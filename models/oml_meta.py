"""OML, stage 1: a representation meta-learnt so that online learning on top of it interferes little.

Source: Javed and White, NeurIPS 2019, arXiv:1905.12588; the authors' release (khurramjaved96/mrcl 2855a6b, 2020). A
meta step takes a short online run: K steps of SGD, which change the prediction network alone. The loss after the last
of them is differentiated through all of them, and one step of Adam moves the representation (`--backbone`) and the
prediction network as it was before the run. Leaves `rln.safetensors`, which fits `--backbone_path`, and
`pln.safetensors`; `oml` learns with them.
On numbers the first entries of a sample are the slot of its function, which the method draws anew in every meta step,
and the entries of inner gradients are clipped to +-10. With `--iid` there is no run: the rival representation of the
release's `SampleSineBaseline`, ordinary training on all samples of the meta steps, for which function f is told by slot
f % capacity and predicted by column f // capacity. (On images `supervised` is the rival.)
Departures: classes are all that the dataset has, of whose halves `split` is made (the release leaves the last of 964
out); meta steps take the training images of a class, 15 of Omniglot's 20, where the release takes all; the draws of a
run come from its seeds; the log has the loss of queries, not accuracies before and after inner steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import begins_untrained, features
from backbone.heads import check_size, prediction_network
from backbone.small import kaiming, with_slots
from backbone.unrolled import Unrolled, UnrolledLinear
from models.base import ContinualModel, ModelArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, StreamInfo
from utils.device import full_precision
from utils.errors import UsageError
from utils.files.tensors import write_tensors

RELEASE = "mrcl 2855a6b"
HELD_OUT = 5  # images of each class in the query of "split"
CLIP = 10.0  # limit of the entries of inner gradients, on numbers


@dataclass(kw_only=True)
class OmlMetaArgs(ModelArgs):
    """drawn: whether the network begins untrained; no option, `prepare` fills it in."""

    steps: int = option(700_000, "meta steps", f"{RELEASE}, README; its parser: 200,000", low=1)
    tasks: int = option(3, "classes of a trajectory", f"{RELEASE}, README; its parser: 1", low=1)
    update_step: int = option(5, "minibatches of each of them", f"{RELEASE}, README; its parser: 10", low=1)
    query: Literal["split", "paper", "minibatch"] = option(
        "split",
        "what the loss after the run is taken on: 5 more images of each class and --meta_batch of other classes; as "
        "many more as the trajectory has; or one more minibatch of each class",
        f"{RELEASE}; its second script: paper; sines: minibatch",
    )
    meta_batch: int = option(
        15, "images of other classes in the query", f"{RELEASE}; 2019: 10", low=0, where={"query": ("split",)}
    )
    update_lr: float = option(
        0.03, "rate of the inner steps", f"{RELEASE}, README", low=0, high=100, where={"iid": (False,)}
    )
    meta_lr: float = option(1e-4, "rate of Adam", RELEASE, low=0, high=100)
    pln_layers: int = option(1, "layers of the prediction network", f"{RELEASE}; 2019: 2", low=1, high=2)
    pln_width: int = option(1024, "units between two such layers", "mrcl, 2019", low=1, where={"pln_layers": (2,)})
    reset: bool = option(True, "redraw the rows of the trajectory's classes before each run", RELEASE)
    first_order: bool = option(
        False, "take inner gradients as constants", "mrcl, 2019, by mistake", where={"iid": (False,)}
    )
    capacity: int = option(50, "numbers: slots that functions are given", RELEASE, low=1)
    iid: bool = option(False, "numbers: ordinary training, no run", f"{RELEASE}: SampleSineBaseline", later=True)
    save_to: str | None = option(
        None, "folder for rln.safetensors and pln.safetensors; none: only the run folder", decides=False
    )
    drawn: bool = False


class OmlMeta(ContinualModel):
    Args = OmlMetaArgs
    scenarios = ("trajectories",)
    predicts = ("classes", "numbers")
    evaluated = False
    published = {
        "*": {"batch_size": 1, "online_iter": 1, "eval_period": -1},
        "sines": {
            "backbone": "mlp-400-400-400-400-400",
            "steps": 300_000,
            "tasks": 10,
            "batch_size": 10,
            "query": "minibatch",
            "update_lr": 0.003,
            "reset": False,
        },
        # In proportion to two cores: ten minutes at most.
        "glyphs": {"backbone": "conv4-64", "steps": 4000, "meta_lr": 3e-4},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: OmlMetaArgs):
        super().__init__(backbone, info, args)
        backbone.requires_grad_(True)
        if args.drawn:
            kaiming(backbone)
        self.numbers = info.num_targets is not None
        outputs = info.num_targets if self.numbers else info.num_classes
        if args.iid and self.numbers:
            outputs *= -(-info.num_classes // args.capacity)
        sizes = backbone.num_features, outputs, args.pln_layers, args.pln_width
        check_size(*sizes, moments=2)
        self.pln = prediction_network(*sizes)
        self.generator = torch.Generator(device="cpu").manual_seed(info.seed)
        self._check()

    def _check(self) -> None:
        args, slots = self.args, self.info.num_slots
        if not self.numbers:
            if args.iid:
                raise UsageError("--iid: is for numbers to predict; on images use --model supervised")
            if args.capacity != OmlMetaArgs.capacity:
                raise UsageError(f"--capacity {args.capacity}: is for numbers to predict; images have no slots")
            return
        if not slots:
            raise UsageError("--model oml_meta: samples have no entries for the slot of their function (num_slots)")
        if args.iid and args.reset:
            raise UsageError("--reset: has no effect with --iid, which takes no run")
        if args.query == "split":
            raise UsageError("--query split: has other functions, which have no slot; give minibatch or paper")
        if args.capacity > slots:
            raise UsageError(f"--capacity {args.capacity}: samples have {slots} entries for the slot")
        if args.tasks > args.capacity:
            raise UsageError(f"--tasks {args.tasks}: there are {args.capacity} slots (--capacity)")

    @classmethod
    def prepare(cls, run: RunArgs, args: OmlMetaArgs) -> list:
        args.drawn = begins_untrained(run.backbone, run.backbone_path)
        return []

    @classmethod
    def product(cls, args: OmlMetaArgs) -> str:
        return "rln.safetensors"

    @classmethod
    def stream_options(cls, args: OmlMetaArgs) -> dict[str, Any]:
        given = {name: getattr(args, name) for name in ("steps", "tasks", "update_step", "query", "meta_batch")}
        return given | {"held_out": HELD_OUT}

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.pln(features(self.backbone, x))

    def loss(self, batch: Batch) -> Tensor:
        """The loss on the query after the run on the trajectory, which the batch begins with."""
        if self.args.iid:
            return self.loss_without_run(batch)
        args, size = self.args, self.in_trajectory(len(batch.y))
        x = self.in_slots(batch.x, size) if self.numbers else batch.x
        y = batch.y[:size].unflatten(0, (args.tasks * args.update_step, -1))
        if args.reset:
            self.reset_rows(batch.y[:size])
        z = features(self.backbone, x).float()
        with full_precision(z):
            return self.loss_of(self.unrolled(z[:size].unflatten(0, y.shape[:2]), y).outputs(z[size:]), batch.y[size:])

    def loss_without_run(self, batch: Batch) -> Tensor:
        """Of all samples, each predicted by the column of its function."""
        slot, column = (part.to(batch.x.device) for part in self.told(batch.functions))
        z = features(self.backbone, with_slots(batch.x, slot, self.info.num_slots)).float()
        outputs = self.pln(z).float().unflatten(1, (-1, self.info.num_targets))
        return self.loss_of(outputs[torch.arange(len(column), device=column.device), column], batch.y)

    def told(self, functions: Tensor) -> tuple[Tensor, Tensor]:
        """Slot and column of each function [B] where there is no run."""
        return functions % self.args.capacity, functions // self.args.capacity

    def unrolled(self, z: Tensor, y: Tensor) -> Unrolled | UnrolledLinear:
        """The run on minibatches of features [K, B, D]."""
        args = self.args
        if len(self.pln) == 1 and not self.numbers:
            return UnrolledLinear(self.pln[0], z, y, args.update_lr, args.first_order)
        clip = CLIP if self.numbers else None
        return Unrolled(self.pln, self.loss_of, z, y, args.update_lr, clip, args.first_order)

    def loss_of(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs, y) if self.numbers else F.cross_entropy(outputs, y)

    def in_trajectory(self, count: int) -> int:
        """How many of the samples of a meta step belong to its trajectory."""
        args = self.args
        if args.query == "split":
            return count - args.meta_batch - HELD_OUT * args.tasks
        return count // 2 if args.query == "paper" else count // (args.update_step + 1) * args.update_step

    def in_slots(self, x: Tensor, size: int) -> Tensor:
        """Numbers [N, F] with a one in the slot of their function; the first `size` belong to the trajectory."""
        slots = self.draw_slots().to(x.device)
        each = [part // self.args.tasks for part in (size, len(x) - size)]  # samples of a function
        return with_slots(x, torch.cat([slots.repeat_interleave(count) for count in each]), self.info.num_slots)

    def draw_slots(self) -> Tensor:
        """A slot of its own for each function of a trajectory, [tasks]."""
        return torch.randperm(self.args.capacity, generator=self.generator)[: self.args.tasks]

    @torch.no_grad()
    def reset_rows(self, y: Tensor) -> None:
        """Redraws the rows of the last layer that belong to classes y [N], all of them on numbers; biases stay."""
        weight = self.pln[-1].weight
        rows = torch.arange(len(weight), device=y.device) if self.numbers else y.unique()
        weight[rows] = self.draw_rows(len(rows)).to(weight.device)

    def draw_rows(self, count: int) -> Tensor:
        """Rows of the last layer, [count, fan_in], normal with variance 2 / fan_in."""
        width = self.pln[-1].in_features
        return torch.randn(count, width, generator=self.generator) * (2 / width) ** 0.5

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.args.meta_lr)

    def end_stream(self) -> None:
        if self.args.save_to:
            folder = Path(self.args.save_to)
            write_tensors(folder / "pln.safetensors", self.prediction())
            write_tensors(folder / "rln.safetensors", self.backbone.state_dict())

    def prediction(self) -> dict[str, Tensor]:
        """Weights of the prediction network, on numbers of the first column alone."""
        weights = self.pln.state_dict()
        if self.numbers:
            *_, weight, bias = weights
            weights |= {name: weights[name][: self.info.num_targets] for name in (weight, bias)}
        return weights

    def extra_state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
