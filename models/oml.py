"""OML: a frozen representation that was meta-learnt for it, and one plain step of the head per image.

Source: Javed and White, NeurIPS 2019, arXiv:1905.12588; the authors' release (khurramjaved96/mrcl 2855a6b, 2020). No
memory, no task, no border: the steps follow the order of the stream, however large its batches are, on images as they
are at test time. The representation is the product of stage 1 (`oml_meta`), made once and kept under
`--checkpoint_dir`, or a file (`--rln FILE`); with `--rln none` or a `--backbone_path` of its own it is the network as
it comes. An untrained one is the paper's "scratch".
On numbers (`seq-sines`) a step takes a batch, the number of the task is part of the input, and the head goes on from
`pln.safetensors` beside the representation. Without a told task a prediction is that for the task at hand. Functions
come one after the other, a task each: the release's `--iid`, which mixes them, is not here.
Departures: classes have columns in the order in which they are met, where the release has labels for columns; and the
columns without a class, which the release lets win, are never given. The images of a class come in the order of the
stream, which shuffles them, where the release takes that of their files. With `--on_nan skip` all steps of a batch are
left out together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import begins_untrained, features, load_weights
from backbone.heads import check_size, prediction_network
from backbone.products import PretrainArgs, Stage, make_stage, open_dataset
from backbone.small import Conv, kaiming, with_slots
from models.base import FEATURES, ContinualModel, ModelArgs
from utils import plan as plans
from utils.args import RunArgs, option
from utils.contracts import Batch, Restored, Session, StreamInfo
from utils.errors import UsageError
from utils.files.manifest import MANIFEST, changed_files, read_manifest

NONE = "none"  # of --rln: the network as it comes
PLN = "pln.safetensors"
OTHER_HEAD = "--outputs, --pln_layers and --pln_width are to be those it is made with, or --reset"


@dataclass(kw_only=True)
class OmlArgs(ModelArgs, PretrainArgs):
    """No options, `prepare` fills them in: drawn: whether the network begins untrained; to_come: columns of the head
    that a stage is to make, 0 where nobody knows how many, None where no stage is to make one."""

    rln: str | None = option(
        None,
        "meta-learnt representation (rln.safetensors); 'none': the network as it comes; default: stage 1, or none with "
        "a --backbone_path",
        "ours",
        reads=(),
    )
    lr: float = option(0.001, "learning rate, constant", "among those of its search, 0.03 to 1e-5", low=0, high=100)
    optimizer: Literal["adam", "sgd"] = option("adam", "of the head; sgd: plain", "mrcl 2855a6b; sines: sgd")
    pln_layers: int = option(1, "layers of the head", "mrcl 2855a6b; 2019: 2", low=1, high=2)
    pln_width: int = option(1024, "units between two such layers", "mrcl, 2019", low=1, where={"pln_layers": (2,)})
    outputs: int = option(
        1000,
        "columns of the head at least: those without a class are learnt as wrong answers and never given",
        "mrcl 2855a6b",
        low=1,
        high=1_000_000,
    )
    reset: bool = option(
        True, "draw the head anew; no: go on from --pln, if the representation has a file", "mrcl 2855a6b; sines: no"
    )
    pln: str | None = option(
        None,
        "head to go on from; default: pln.safetensors beside the representation",
        "mrcl 2855a6b",
        reads=(),
        where={"reset": (False,)},
    )
    drawn: bool = False
    to_come: int | None = None


class Oml(ContinualModel):
    Args = OmlArgs
    predicts = ("classes", "numbers")
    fixed_suffice = True
    published = {
        "*": {"online_iter": 1, "pretrain": "glyphs"},
        "seq-characters": {"pretrain": "glyphs"},
        "seq-glyphs": {"backbone": "conv4-64"},
        "seq-omniglot": {"pretrain": "omniglot"},
        "seq-sines": {
            "backbone": "mlp-400-400-400-400-400",
            "pretrain": "sines",
            "optimizer": "sgd",
            "lr": 0.003,
            "reset": False,
            "batch_size": 32,
            "n_iter": 40,
        },
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: OmlArgs):
        made = None if args.rln in (None, NONE) or isinstance(info, Restored) else Path(args.rln)
        if made is not None:
            if not made.is_file():
                raise UsageError(f"--rln {args.rln or repr('')}: no such file; '{NONE}' takes the network as it comes")
            load_weights(backbone, made)
        super().__init__(backbone, info, args)
        backbone.requires_grad_(False)
        self.numbers = info.num_targets is not None
        if args.drawn and made is None and not isinstance(backbone, Conv):  # as stage 1 begins; those are so already
            kaiming(backbone)
        if self.numbers:
            self._check_numbers()
        outputs = info.num_targets if self.numbers else max(info.num_classes, args.outputs)
        sizes = backbone.num_features, outputs, args.pln_layers, args.pln_width
        if not isinstance(info, Restored):
            check_size(*sizes, moments=2 if args.optimizer == "adam" else 0)
        self.pln = prediction_network(*sizes)
        if not args.reset and not isinstance(info, Restored):
            self._take_head(outputs)
        self.task = 0  # at hand, on numbers

    def _take_head(self, outputs: int) -> None:
        """The head that `--pln` names. Raises UsageError where there is none, or one that does not fit."""
        args = self.args
        if args.to_come not in (None, 0, outputs):
            raise UsageError(
                f"--no-reset: the head of stage 1 on {args.pretrain} has {args.to_come} columns, and this run's has "
                f"{outputs}; {OTHER_HEAD}"
            )
        if args.pln is not None and (args.to_come is None or Path(args.pln).is_file()):
            load_head(self.pln, Path(args.pln))
        elif args.pln is None and not self.numbers:  # on numbers to go on is the default
            raise UsageError("--no-reset: the representation has no file, so there is no head beside it; --reset")

    def _check_numbers(self) -> None:
        args, info = self.args, self.info
        if info.num_tasks > info.num_slots:
            raise UsageError(
                f"--model oml: the number of a task is part of its input, samples have {info.num_slots} entries for it "
                f"(num_slots), and there are {info.num_tasks} tasks"
            )
        if info.num_classes > info.num_tasks:
            raise UsageError(
                f"--model oml: its tasks are one function each, and {info.num_tasks} tasks have {info.num_classes}; as "
                "many --n_tasks as --classes, in --scenario task-il"
            )
        if args.outputs != OmlArgs.outputs:
            raise UsageError(f"--outputs {args.outputs}: counts columns of classes, and there are numbers to predict")

    @classmethod
    def prepare(cls, run: RunArgs, args: OmlArgs) -> list[Stage]:
        """Stage 1 on the same network, unless something says where the representation comes from; fills it in."""
        args.drawn = begins_untrained(run.backbone, run.backbone_path)
        if args.rln not in (None, NONE) and run.backbone_path is not None:
            raise UsageError(
                f"--rln {args.rln}: would replace the weights of --backbone_path {run.backbone_path}; give one of them"
            )
        stages, origin = [], args.rln
        if run.backbone_path is not None:
            args.rln, origin = NONE, NONE if args.drawn else run.backbone_path
        if args.rln is None:
            head = {"pln_layers": args.pln_layers, "pln_width": args.pln_width}
            stages.append(make_stage("oml_meta", "rln", run, args, None, own=head, any_network=True))
            args.rln = origin = str(stages[0].output)
            if not args.reset and args.pln is None and not stages[0].output.with_name(PLN).is_file():
                args.to_come = columns_of(stages[0])
        if not args.reset and args.pln is None and origin != NONE:
            args.pln = str(Path(origin).with_name(PLN))
        return stages

    @property
    def needs_task_boundaries(self) -> bool:
        """On numbers, whose task is part of the input."""
        return self.numbers

    @property
    def is_told(self) -> bool:
        return self.numbers

    @property
    def predicts_from_state(self) -> bool:
        return self.numbers

    @property
    def has_fixed_features(self) -> bool:
        return not self.numbers

    def fixed_features(self, x: Tensor) -> Tensor:
        """The representation, [B, D]."""
        with torch.no_grad():
            return features(self.backbone, x)

    def shared_as(self, precision: str) -> str:
        return f"{FEATURES} {precision}"

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        if self.numbers:
            return self.given(x, self.task)
        z, last = self.pln[:-1](self.fixed_features(x) if fixed is None else fixed), self.pln[-1]
        return F.linear(z, last.weight[: self.info.num_classes], last.bias[: self.info.num_classes])

    def given(self, x: Tensor, task: int) -> Tensor:
        if not self.numbers:
            return self(x)
        slots = torch.full((len(x),), task, device=x.device)
        return self.pln(self.fixed_features(with_slots(x, slots, self.info.num_slots)))

    def loss(self, batch: Batch) -> Tensor:
        if self.numbers:
            return F.mse_loss(self.given(batch.x, self.task).float(), batch.y)
        return F.cross_entropy(self.pln(self.fixed_features(batch.x)).float(), batch.y)

    def observe(self, batch: Batch) -> Tensor | None:
        """A step per image, in order, or one on numbers; returns the mean of their losses."""
        if self.numbers:
            return super().observe(batch)
        x = self.info.plain(batch.raw)  # image by image: how many come together must not change the last bits
        ones = zip(x.split(1), batch.y.split(1), strict=True)
        losses = [super(Oml, self).observe(replace(batch, x=image, y=slot)) for image, slot in ones]
        return torch.stack(losses).mean()

    def begin_task(self, session: Session) -> None:
        self.task = session.index

    def configure_optimizer(self) -> torch.optim.Optimizer:
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.args.optimizer]
        return kind(self.pln.parameters(), lr=self.args.lr, fused=True)  # most of the time of a step

    def extra_state(self) -> dict[str, Any]:
        return {"task": self.task}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.task = state["task"]


def columns_of(stage: Stage) -> int:
    """Of the head that stage 1 will leave; 0 where its data cannot be opened, which whoever checks the stage says."""
    try:
        dataset, places = open_dataset(plans.make(stage.options | {"model": stage.model, "dataset": stage.dataset}))
        dataset.inspect(places)
    except UsageError:
        return 0
    return dataset.num_classes if dataset.num_targets is None else dataset.num_targets


def load_head(head: nn.Module, file: Path) -> None:
    """Fills a head from a file. Raises UsageError if it is not there, does not fit, or is not as its folder says."""
    if not file.is_file():
        raise UsageError(f"--no-reset: there is no {file}; --reset draws the head anew")
    weights = {name: digest for name, digest in read_manifest(file.parent).items() if name.endswith(file.suffix)}
    if changed := changed_files(file.parent, weights):
        raise UsageError(
            f"--no-reset: {file.parent}: {', '.join(changed)}: not as {MANIFEST} says, so head and representation may "
            "not belong together; repeat the stage, or remove that list"
        )
    try:
        load_weights(head, file)
    except UsageError as error:
        raise UsageError(f"--no-reset: {error}; {OTHER_HEAD}") from error
