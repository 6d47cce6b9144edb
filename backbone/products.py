"""What a method needs made before it can start: refined weights, a covariance, warm prompts. Which run makes each, and
where it is kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backbone as backbones
from backbone.small import Shape
from utils import plan as plans
from utils.args import SEEDS, RunArgs, option, option_metadata
from utils.contracts import Images, Places
from utils.errors import UsageError
from utils.files.text import parse_yaml, read_text


@dataclass(kw_only=True)
class PretrainArgs:
    """Options of a method whose stages run on pretraining data."""

    pretrain: str | None = option(
        None,
        "pretraining dataset of the stages; default: what a shipped network was trained on, imagenet for any other",
    )
    pretrain_dir: str | None = option(None, "its --data_dir; default: that of the run", decides=False)


@dataclass(frozen=True)
class Stage:
    """A run that must have happened before a method can start: `model` on `dataset` leaves the file `output`.

    options: of that run, as on the command line; the rest are its defaults, with seed 1. option: of the method that
    needs it, by which another product can be named. data: SHA-256 of its training data, where it was looked up.
    """

    model: str
    dataset: str
    output: Path
    options: dict[str, Any]
    option: str
    data: str | None = None


def make_stage(
    model: str,
    option: str,
    run: RunArgs,
    args: PretrainArgs,
    weights: str | None,
    after: Stage | None = None,
    own: dict[str, Any] | None = None,
    any_network: bool = False,
) -> Stage:
    """The run of a stage method with its defaults, and the place of its product below `--checkpoint_dir`.

    The folder is named by a hash of everything the product depends on but its data; where it holds a product that was
    made from other data, another one is named by theirs. option: of the method that names the product. args: of that
    method. weights: `--backbone_path` of the stage. after: the stage that makes those weights. own: the stage's options
    that are not to have their defaults. any_network: whether the stage runs on every network; of another one, raises
    UsageError for a network that is no ViT.
    """
    if not any_network:
        backbones.need_vit(run.backbone)
    dataset = args.pretrain or backbones.TRAINED_ON.get(run.backbone, "imagenet")
    options = {"backbone": run.backbone, "backbone_path": weights, **(own or {})}
    options["data_dir"], options["cache_dir"] = args.pretrain_dir or run.data_dir, run.cache_dir
    shared = {name: getattr(run.data_args, name, False) for name in ("download", "skip_bad")}
    plan = plans.make(options | {"model": model, "dataset": dataset}).with_seed(1)
    settings = {**naming(plan), "origin": None}
    origin = after.output.parent.name if after else backbones.fingerprint(run.backbone, weights, run.checkpoint_dir)
    settings["run"]["backbone_path"] = origin
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    folder = Path(run.checkpoint_dir) / run.backbone / f"{model}-{plan.run.dataset}-{key}"
    here = None
    if not run.dry_run and (made_from := data_of(folder)) is not None:
        data, places = open_dataset(plans.make(options | shared | {"model": model, "dataset": dataset}))
        here = data.digest(places, train=True)
        if here not in (None, made_from):
            folder = folder.with_name(f"{folder.name}-{here[:8]}")
    product = folder / plan.method.product(plan.method_args)
    return Stage(model, dataset, product, options | shared | {"save_to": str(folder)}, option, here)


def stages_of(plan: plans.Plan) -> list[Stage]:
    """The stages that a run needs. Raises UsageError for options of pretraining data where none is read."""
    stages = plan.method.prepare(plan.run, plan.method_args)
    origin = plan.origins.get("method", {})
    for name in option_metadata(PretrainArgs):
        if not stages and origin.get(name) == "command line":
            raise UsageError(
                f"--{name} {getattr(plan.method_args, name)}: has no effect, as other options say where everything "
                "comes from and no stage is needed; leave it out"
            )
    return stages


def naming(plan: plans.Plan) -> dict[str, Any]:
    """The options that the name of a stage's product stands for, by part."""
    settings = plan.settings()
    for part, options in plan.parts().items():
        if part not in settings:
            continue
        for name, told in option_metadata(type(options)).items():
            # Seeds have one value in all stages.
            beside = part == "run" and (not told["decides"] or name in SEEDS)
            if beside or (told["later"] and settings[part][name] == told["default"]):
                del settings[part][name]
    return settings


def data_of(folder: Path) -> str | None:
    """SHA-256 of the training data that a stage's product in this folder was made from; None where nobody knows."""
    try:
        return parse_yaml(read_text(folder / "config.yaml"))["identity"]["read"].get("data.train")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def open_dataset(plan: plans.Plan) -> tuple[Images, Places]:
    """The dataset of a run, not loaded yet, and its places. Raises UsageError if the network cannot take it."""
    options = plan.run
    assert plan.dataset is not None
    dataset = plan.dataset(plan.data)
    size = None if dataset.num_inputs is not None else _side(plan, dataset)
    backbones.check(options.backbone, input_shape(dataset, size))
    own = tuple(Path(folder) for folder in (options.results, options.cache_dir, options.checkpoint_dir))
    return dataset, Places(Path(options.data_dir), Path(options.cache_dir), size, own)


def _side(plan: plans.Plan, dataset: Images) -> int:
    """Of the network's input in pixels. Raises UsageError where nothing says it, or `--input_size` against another."""
    options, given = plan.run, getattr(plan.data, "input_size", None)
    fixed = dataset.image_size or backbones.input_size(options.backbone)
    if given is not None and fixed:
        whose = f"--dataset {options.dataset}" if dataset.image_size else f"--backbone {options.backbone}"
        raise UsageError(
            f"--input_size {given}: {whose} has an input size of its own, {fixed} px; leave the option out"
        )
    size = fixed or given or dataset.native_size
    if size is None:
        raise UsageError(
            f"--backbone {options.backbone}: has no input size of its own, and the images of {options.dataset} have "
            "no common one; give it with --input_size"
        )
    return size


def input_shape(dataset: Images, size: int | None) -> Shape:
    """Of a sample as `backbone.build` is told it: (channels, side, side), or (numbers,). size: the side of the input in
    pixels, None for numbers."""
    if size is None:
        return (dataset.num_inputs,)
    return (1 if dataset.grey else 3, size, size)
