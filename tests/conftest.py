"""What the tests share: a tiny network, a dataset that can be learnt, runs built from them. No download, no GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are so small that threads only get in each other's way

import numpy as np
import pandas as pd
import pytest
import torch
from miniatures import CASES, SIZE, archives_of
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import backbone as backbones
import main
from datasets.base import Dataset, Places
from models.base import ContinualModel
from utils import plan as plans
from utils.augment import random_shift
from utils.contracts import StreamInfo
from utils.evaluation import Evaluator
from utils.images import ImageSet, Transform
from utils.registry import DATASETS
from utils.streams import Stream, make_stream
from utils.training import Listener, Trainer

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 32  # of the tiny network
CPU = torch.device("cpu")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@dataclass
class Run:
    """A run that has not started. frozen: the weights that must not move, as they were."""

    model: ContinualModel
    trainer: Trainer
    info: StreamInfo
    frozen: dict[str, Tensor]


def build(
    method: type | str, own: dict | None = None, stream: Stream | None = None, listener: Listener | None = None, **run
) -> Run:
    """A run of `method` (a name or a class of the test) on `Patches`, put together as main.py does it.

    own: the method's options. run: options of the run. stream: instead of the one that the options describe.
    """
    by_name = isinstance(method, str)
    usual = {"dataset": "seq-digits", "device": "cpu", "n_tasks": 3, "batch_size": 16, "online_iter": 1}
    usual["eval_period"] = 64
    plan = plans.make(usual | run | (own or {}) | {"model": method if by_name else "er"}).with_seed(run.get("seed", 1))
    options, args = plan.run.args, plan.args.args if by_name else method.Args()
    kind = plan.method if by_name else method
    dataset, device = Patches(), torch.device(options.device)
    images = ImageSet(*dataset.load(None, train=True), device)
    if stream is None:
        stream = make_stream(options, kind.stream_options(args), images.labels, dataset.num_classes)
    transform = Transform(dataset, device, options.train_seed, dataset.image_size)
    evaluator = None
    if kind.evaluated:
        test_images = ImageSet(*dataset.load(None, train=False), device)
        evaluator = Evaluator(test_images, transform, options.eval_batch_size, options.eval_mask)
    info = StreamInfo(
        num_classes=dataset.num_classes,
        num_tasks=stream.num_tasks,
        num_images=stream.num_images(),
        num_updates=stream.num_batches() // stream.batches_per_update * options.online_iter,
        image_size=dataset.image_size,
        seed=options.train_seed,
        augment=transform.train,
        plain=transform.test,
        images=images.raw,
    )
    vit = tiny_vit().requires_grad_(False)
    torch.manual_seed(options.init_seed)
    model = kind(vit, info, args).to(device)
    model.optimizer = model.configure_optimizer()
    torch.manual_seed(options.train_seed)
    periods = options.online_iter, options.eval_period
    trainer = Trainer(model, stream, images, transform, evaluator, *periods, listener, options.on_nan == "skip")
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    return Run(model, trainer, info, frozen)


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


@pytest.fixture(scope="session")
def products(tmp_path_factory) -> dict[str, str]:
    """Stand-ins for the products of MePo's stages, for the tiny network: other weights and a covariance."""
    folder = tmp_path_factory.mktemp("products")
    save_file(weights_of(tiny_vit(seed=7)), folder / "meta.safetensors")
    np.save(folder / "covariance.npy", random_covariance(WIDTH))
    return {"meta_path": str(folder / "meta.safetensors"), "cor_path": str(folder / "covariance.npy")}


@pytest.fixture(scope="session")
def glyph_weights(tmp_path_factory):
    """Random weights of vit_tiny_glyphs in a file, large enough to tell digits apart."""
    torch.manual_seed(0)
    vit = backbones.build("vit_tiny_glyphs")
    enlarge(vit, std=0.1)
    file = tmp_path_factory.mktemp("weights") / "vit_tiny_glyphs.safetensors"
    save_file(weights_of(vit), file)
    return file


# Datasets in small


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Name of a case -> the bytes of its archives by name; made once."""
    done = {}

    def make(name: str) -> dict[str, bytes]:
        case = CASES[name]
        if case.builders not in done:
            folder = tmp_path_factory.mktemp("archives")
            archives_of(case, DATASETS.load(case.name).downloads, folder)
            done[case.builders] = {file.name: file.read_bytes() for file in folder.iterdir()}
        return dict(done[case.builders])

    return make


@pytest.fixture
def places(tmp_path) -> Places:
    return Places(tmp_path / "data", tmp_path / "cache", SIZE)


# Pictures of one's own


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    draw = np.random.default_rng(0)
    for name in ("cat", "dog", "emu"):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{k:02}.png")
    return folder


@pytest.fixture
def own(pictures, glyph_weights, tmp_path):
    places = ["--data_dir", str(pictures), "--cache_dir", str(tmp_path / "cache"), "--results", str(tmp_path / "runs")]
    options = ["--n_tasks", "2", "--batch_size", "8", "--device", "cpu", "--backbone_path", str(glyph_weights)]
    return ["--model", "er", "--dataset", "seq-folder", *places, *options]


@pytest.fixture
def few_digits(tmp_path):
    """Options for a quarter of the digits, for whole runs in processes of their own."""
    (tmp_path / "plugins" / "datasets").mkdir(parents=True)
    (tmp_path / "plugins" / "datasets" / "few_digits.py").write_text(FEW_DIGITS)
    return ["--plugins", str(tmp_path / "plugins"), "--dataset", "few-digits"]


FEW_DIGITS = """
from datasets.seq_digits import SeqDigits


class FewDigits(SeqDigits):
    counts = (360, 90)

    def load(self, places, train):
        images, labels = super().load(places, train)
        return images[::4], labels[::4]
"""


# Whole runs, from the command line to their folder

DIGITS = ["--dataset", "seq-digits", "--n_tasks", "3", "--online_iter", "1", "--eval_period", "300", "--device", "cpu"]


@pytest.fixture
def words(tmp_path, glyph_weights):
    """Options of a short run inside the test's folder, but for --results."""
    place = ["--backbone_path", str(glyph_weights), "--checkpoint_dir", str(tmp_path / "products")]
    return [*DIGITS, *place, "--cache_dir", str(tmp_path / "cache"), "--resume", "auto"]


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """The folder of the run of `words` that nothing happened to; made once for each method."""
    made = {}

    def folder(words: list[str]) -> Path:
        method = words[words.index("--model") + 1]
        if method not in made:
            results = tmp_path_factory.mktemp(method)
            assert main.main([*words, "--resume", "never", "--save_every", "300", "--results", str(results)]) == 0
            made[method] = run_folder(results)
        return made[method]

    return folder


def run_folder(results: Path) -> Path:
    (folder,) = results.glob("*/*/*")
    return folder


def assert_same_results(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "per_class.csv").read_bytes() == (other / "per_class.csv").read_bytes()
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns="seconds").to_csv() for folder in (one, other)]
    assert tables[0] == tables[1]
    assert not (one / "checkpoints").exists() and not (other / "checkpoints").exists()
