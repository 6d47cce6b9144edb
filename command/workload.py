"""What the benchmark measures: a method on a network, put together as a run is, on random images held in memory."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor

import backbone as backbones
from backbone.vit import cast_once
from command.sketch import sizes_that_fit, without_products
from datasets.base import Dataset
from models.base import Wrapper
from models.mepo import NONE
from utils import plan as plans
from utils.args import method_options
from utils.contracts import Places, StreamInfo
from utils.data.augment import crop_and_flip
from utils.data.autoaugment import autoaugment
from utils.data.images import image_set
from utils.errors import UsageError
from utils.machine import DTYPES, Product
from utils.plan import Plan
from utils.registry import METHODS
from utils.streams.base import TaskList
from utils.training.assembly import assemble
from utils.training.loop import Trainer

REFERENCE = "reference"  # network of random weights, by which implementations are compared
SIDE = 32  # pixels, of the reference and of networks that were made for no size
TASKS, UPDATES = 5, 3  # as published; every task here has all classes
CLASSES = 10
HELD = 4  # batches of distinct images; after them the stream comes back to the first
NOWHERE = Places(Path(), Path(), None)


class RandomImages(Dataset):
    """Pixels without meaning, as many images of each class, trained on under the augmentation of CIFAR-100."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, side: int, batch_size: int, num_classes: int):
        super().__init__()
        self.side, self.batch_size, self.num_classes = side, batch_size, num_classes

    def load(self, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        """So many batches to train on, and one of evaluation. Every batch has all classes that there are."""
        size = (HELD if train else 2) * self.batch_size
        draws = np.random.default_rng(int(train))
        images = draws.integers(0, 256, (size, 3, self.side, self.side), dtype=np.uint8)
        return images, np.arange(size) % min(self.num_classes, self.batch_size)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        return autoaugment(crop_and_flip(images, 4, generator), "cifar10", generator)


@dataclass(frozen=True)
class Subject:
    """One thing to measure. host: the method that `method` wraps, None where it wraps none."""

    method: str
    host: str | None
    backbone: str
    precision: str

    @property
    def title(self) -> str:
        return f"{self.method}:{self.host}" if self.host else self.method


def named(word: str) -> tuple[str, str | None]:
    """Method and host of a word as METHOD or METHOD:HOST. Raises UsageError for others."""
    name, colon, host = word.partition(":")
    name = METHODS.resolve(name)
    hosts = method_options(METHODS.load(name).Args)
    if not hosts:
        if colon:
            raise UsageError(f"--methods {word}: {name} wraps no other method")
        return name, None
    return name, METHODS.resolve(host) if colon else getattr(METHODS.load(name).Args(), next(iter(hosts)))


def subjects_of(words: list[str], networks: list[str], precisions: list[str]) -> list[Subject]:
    """Every method, METHOD or METHOD:HOST, on every network at every precision, each once. Raises UsageError."""
    for precision in precisions:
        if precision not in DTYPES:
            raise UsageError(f"--precisions {precision}: unknown; use {' or '.join(DTYPES)}")
    pairs = [named(word) for word in words]
    found = [Subject(*pair, network, precision) for network in networks for pair in pairs for precision in precisions]
    return list(dict.fromkeys(found))


def plan_of(subject: Subject, batch_size: int, device: torch.device, work: Path) -> Plan:
    """The plan of a run that is possible. work: folder for a stand-in of the product of MePo's second stage; of other
    stages nothing is needed.

    Raises UsageError for a network or a method that refuses the settings, and for one of other streams.
    """
    with torch.device("meta"):
        network = network_of(subject.backbone)
    covariance = work / f"{network.num_features}.npy"
    if not covariance.exists():
        write_covariance(covariance, network.num_features)
    given: dict[str, Any] = {
        **{"model": subject.method, "backbone": subject.backbone, "backbone_path": backbones.RANDOM},
        **{"precision": subject.precision, "device": str(device), "n_tasks": TASKS, "online_iter": UPDATES},
        **{"batch_size": batch_size, "eval_batch_size": 2 * batch_size, "eval_period": -1},
        **{"meta_path": NONE, "load_pt": NONE, "cor_path": str(covariance)},
    }
    if subject.host:
        given |= dict.fromkeys(method_options(METHODS.load(subject.method).Args), subject.host)
    plan = plans.make(given).with_seed(1)
    if "si-blurry" not in plan.method.scenarios or not plan.method.evaluated:
        streams = " or ".join(plan.method.scenarios)
        raise UsageError(
            f"--methods {subject.title}: runs on {streams}; the benchmark takes methods that learn si-blurry and are "
            "evaluated on it"
        )
    plan = without_products(plan, plan.method.prepare(plan.run, plan.method_args))
    refuse_what_cannot_run(plan)
    return plan


def side_of(backbone: str) -> int:
    """Pixels of the images that a network gets."""
    return SIDE if backbone == REFERENCE else backbones.input_size(backbone) or SIDE


def network_of(backbone: str) -> Any:
    """The network, untrained: what its weights are changes no time."""
    if backbone == REFERENCE:
        vit = VisionTransformer(img_size=SIDE, patch_size=4, embed_dim=192, depth=12, num_heads=3, num_classes=0)
        return cast_once(vit)
    return backbones.build(backbone, (3, side_of(backbone), side_of(backbone)))


def write_covariance(file: Path, width: int) -> None:
    """A stand-in for the product of MePo's second stage."""
    rows = np.random.default_rng(0).normal(size=(4 * width, width))
    np.save(file, rows.T @ rows / len(rows))


def stream_of(batch_size: int, batches: int, num_classes: int = CLASSES) -> TaskList:
    """Tasks of so many batches each, of images of all classes."""
    rows = torch.arange(batch_size * batches) % (HELD * batch_size)
    classes = [list(range(task, num_classes, TASKS)) for task in range(TASKS)]
    return TaskList([rows] * TASKS, classes, num_classes, batch_size)


def refuse_what_cannot_run(plan: Plan) -> None:
    """Raises UsageError if the method refuses the network or the settings; computes nothing."""
    stream = stream_of(plan.run.batch_size, 1)
    with torch.device("meta"), warnings.catch_warnings(), sizes_that_fit():
        warnings.simplefilter("ignore")
        info = StreamInfo(
            num_classes=stream.num_outputs,
            num_tasks=stream.num_tasks,
            num_images=stream.num_images(),
            num_updates=stream.num_batches() * UPDATES,
            image_size=side_of(plan.run.backbone),
            seed=0,
            augment=torch.clone,
            plain=torch.clone,
        )
        plan.method(network_of(plan.run.backbone).requires_grad_(False), info, plan.method_args)


def trainer_of(plan: Plan, batches: int, num_classes: int = CLASSES) -> Trainer:
    """A run that has not begun, whose first task has so many batches."""
    options, device = plan.run, torch.device(plan.run.device or "cpu")
    side = side_of(options.backbone)
    dataset: Any = RandomImages(side, options.batch_size, num_classes)
    training = image_set(dataset, options, dataset.load(NOWHERE, train=True), device, None)
    tests = image_set(dataset, options, dataset.load(NOWHERE, train=False), device, None)
    torch.manual_seed(options.init_seed or 0)
    network = network_of(options.backbone).requires_grad_(False)
    stream = stream_of(options.batch_size, batches, num_classes)
    return assemble(plan, dataset, network, (training, tests), stream, side)


def innermost(model: Any) -> Any:
    """The method that does the work: of one that wraps another, its host."""
    while isinstance(model, Wrapper):
        model = model.host
    return model


def products_of(network: Any, batch_size: int) -> list[Product]:
    """The linear layers of a block of a ViT at this batch size; none for other networks."""
    if not backbones.is_vit(network):
        return []
    rows = batch_size * (network.patch_embed.num_patches + 1)
    attention, mlp = network.blocks[0].attn, network.blocks[0].mlp
    layers = (attention.qkv, attention.proj, mlp.fc1, mlp.fc2)
    return [(rows, layer.in_features, layer.out_features) for layer in layers]


def as_written(plan: Plan, network: Any) -> dict[str, float] | None:
    """FLOPs per image of all updates on it ("train") and of its evaluation ("test"), of the method as its authors wrote
    it; None where that is not known.

    The rule: images are embedded once; the query passes the whole network in training and in evaluation; prompts are
    tokens that pass all of each block that they are inserted in, and every block computes all of its tokens. The
    backward pass goes down to the first block with prompts; frozen weights have no gradient, so that it costs as much
    as the forward pass in linear layers and twice as much in attention. Heads, keys and MePo's alignment are left out.
    """
    name, args = plan.run.model, plan.method_args
    if plan.host is not None:
        name, args = getattr(args, "host", ""), plan.host
    depth = len(network.blocks) if backbones.is_vit(network) else 0
    added = [0] * depth
    if not depth or name not in ("dualprompt", "misa", "mvp", "coda", "l2p"):
        return None
    if name == "l2p":  # they stay in the sequence
        added = [args.selection_size * args.len_e_prompt] * depth
    for kind in ("g", "e"):
        for block in getattr(args, f"pos_{kind}_prompt", ()):
            added[block] += asdict(args)[f"len_{kind}_prompt"]
    patches, block = network.patch_embed.num_patches, network.blocks[0]
    width, hidden = network.embed_dim, block.mlp.fc1.out_features
    tokens = patches + 1
    linear = [2 * (tokens + more) * (4 * width**2 + 2 * width * hidden) for more in (0, *added)]
    attention = [4 * (tokens + more) ** 2 * width for more in (0, *added)]
    query_blocks = depth - (name == "mvp" and not args.use_last_layer)
    embedding = 2 * patches * network.patch_embed.proj.weight[0].numel() * width
    test = embedding + query_blocks * (linear[0] + attention[0]) + sum(linear[1:]) + sum(attention[1:])
    first = next(k for k, more in enumerate(added) if more)
    backward = sum(linear[1 + first :]) + 2 * sum(attention[1 + first :])
    return {"train": UPDATES * (test + backward), "test": test}
