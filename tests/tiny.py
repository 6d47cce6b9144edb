"""Helpers of the tests: a tiny network, a dataset that can be learnt, and runs of them. No download, no GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import backbone as backbones
from datasets.base import Dataset
from models.base import ContinualModel
from utils import plan as plans
from utils.args import RunArgs, option_metadata
from utils.contracts import StreamInfo
from utils.data.augment import random_shift
from utils.registry import METHODS
from utils.streams import make_stream, own_options
from utils.streams.base import Stream
from utils.training.assembly import assemble, read_images
from utils.training.loop import Listener, Trainer

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 32  # of the tiny network
CPU = torch.device("cpu")
PAIR = "vit_tiny_glyphs+vit_tiny_icons"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# Options of a short run on digits
DIGITS = ["--dataset", "seq-digits", "--n_tasks", "3", "--online_iter", "1", "--eval_period", "300", "--device", "cpu"]


def tiny_vit(seed: int = 0, **settings) -> VisionTransformer:
    """A network of six narrow blocks. Its weights are larger than timm's, so that it tells images apart untrained."""
    torch.manual_seed(seed)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 6, "num_heads": 4, "num_classes": 0}
    vit = VisionTransformer(**sizes | settings)
    enlarge(vit, std=0.15)
    return vit.eval()


@torch.no_grad()
def enlarge(vit: VisionTransformer, std: float) -> None:
    for weight in vit.parameters():
        weight.normal_(std=std) if weight.ndim > 1 else weight.add_(0.05 * torch.randn_like(weight))


class Patches(Dataset):
    """12 classes, each a checkerboard of four colours under noise."""

    num_classes = 12
    image_size = 32
    mean = std = (0.5, 0.5, 0.5)
    per_class = {True: 16, False: 6}

    def load(self, places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        patterns = np.random.default_rng(0).integers(30, 226, (self.num_classes, 3, 2, 2)).repeat(16, 2).repeat(16, 3)
        labels = np.arange(self.num_classes).repeat(self.per_class[train])
        noise = np.random.default_rng(1 + train).normal(0, 12, (len(labels), 3, 32, 32))
        return (patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels

    def augment(self, images: Tensor, generator) -> Tensor:
        return random_shift(images, 1, generator)


# Every method, and every one that wraps another with each of its hosts

# Options that a method needs on so small a stream; the others run with their defaults.
NEEDED = {
    "mepo_meta": {"meta_epochs": 2, "group_size": 6, "num_tasks": 2, "samples": 8},
    "mepo_cov": {"samples": 8},
    "misa_isa": {"num_sessions": 3, "updates": 2, "samples": 4, "lr": 0.001},
    "oml": {"rln": "none"},
    "oml_meta": {"batch_size": 1, "steps": 12, "tasks": 2, "update_step": 3},
    "flyprompt": {"rp_dim": 64},
    "ranpac": {"rp_dim": 64},
    "joint": {"updates": 2, "joint_batch": 16},
    "bcl": {"n_memories": 12, "replay_batch_size": 8, "memory_strength": 1.0},
    "er_ring": {"n_memories": 12, "replay_batch_size": 8},
    "gem": {"n_memories": 12},
    "agem": {"n_memories": 12, "replay_batch_size": 8},
    "lmsrr": {"buffer_size": 12, "minibatch_size": 8},
    "ftml": {"n_memories": 12},
    "posterior_replay": {"backbone": "mlp-16", "train_sample_size": 2, "val_sample_size": 3},
    "vcl": {"backbone": "mlp-16", "train_sample_size": 2, "val_sample_size": 3},
    "ewc_posterior": {"backbone": "mlp-16", "val_sample_size": 3},
}
HOSTS = {
    "mepo": ("misa", "dualprompt", "l2p", "coda", "mvp", "flyprompt", "singleprompt"),
    "joint": ("finetune", "coda"),
}
CASES = [(name, None) for name in METHODS.files() if name not in HOSTS]
CASES += [(name, host) for name, hosts in HOSTS.items() for host in hosts]
EVERY_METHOD = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}" if case[1] else case[0])


@dataclass
class Run:
    """A run that has not started. frozen: the weights that must not move, as they were."""

    model: ContinualModel
    trainer: Trainer
    info: StreamInfo
    frozen: dict[str, Tensor]


def taken(given: dict) -> dict:
    """Options without those for which the stream has no use: stages share their tests with other methods."""
    scenario = given.get("scenario", METHODS.load(given["model"]).scenarios[0])
    told = option_metadata(RunArgs)
    where = {name: told[name]["where"].get("scenario", (scenario,)) for name in given if name in told}
    return {name: value for name, value in given.items() if scenario in where.get(name, (scenario,))}


def build(
    method: type | str, own: dict | None = None, stream: Stream | None = None, listener: Listener | None = None, **run
) -> Run:
    """A run of `method` (a name or a class of the test) on `Patches`.

    own: the method's options. run: options of the run; a `backbone` among them takes the place of the tiny
    ViT, or of the two of a method that wants a pair. stream: instead of the one that the options describe.
    """
    by_name = isinstance(method, str)
    name = method if by_name else "er"
    usual = {"dataset": "seq-digits", "device": "cpu", "batch_size": 16, "online_iter": 1, "eval_period": 64}
    given = usual | {"n_tasks": 3} | run | (own or {}) | {"model": name}
    plan = plans.make(taken(given)).with_seed(run.get("seed", 1))
    if not by_name:
        plan = replace(plan, method=method, method_args=method.Args())
    dataset, device = Patches(), torch.device(plan.run.device)
    images = read_images(plan, dataset, None, device)
    if stream is None:
        stream = make_stream(plan.run, own_options(plan, dataset), images[0].labels, dataset.num_classes)
    tiny = {"vit_tiny_glyphs": tiny_vit, PAIR: lambda: backbones.Several([tiny_vit(), tiny_vit(seed=1)])}
    vit = tiny[plan.run.backbone]() if plan.run.backbone in tiny else None
    torch.manual_seed(plan.run.init_seed)
    network = (vit or backbones.build(plan.run.backbone, (3, 32, 32))).requires_grad_(False)
    trainer = assemble(plan, dataset, network, images, stream, dataset.image_size)
    trainer.listeners = [] if listener is None else [listener]
    model = trainer.model
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    return Run(model, trainer, model.info, frozen)


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def rows_of(trainer: Trainer) -> list[dict]:
    """What a run measured, without the clock; text, so that NaN equals NaN."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history.rows]
    return [repr(row) for row in rows + trainer.history.class_rows]


def random_covariance(width: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(size=(4 * width, width))
    return matrix.T @ matrix / len(matrix)


def run_folder(results: Path) -> Path:
    (folder,) = results.glob("*/*/*-seed*")
    return folder


def assert_same_results(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "per_class.csv").read_bytes() == (other / "per_class.csv").read_bytes()
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds").to_csv() for folder in (one, other)]
    assert tables[0] == tables[1]
    assert not (one / "checkpoints").exists() and not (other / "checkpoints").exists()


def assert_same(one, other) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert repr(one) == repr(other)
