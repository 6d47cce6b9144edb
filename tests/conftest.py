"""Fixtures that the tests share; the helpers they use are in tests/tiny.py. No download, no GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are so small that threads only get in each other's way

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import backbone as backbones
import main
from datasets.base import Places
from tests.miniatures import CASES, SIZE, archives_of
from tests.tiny import DIGITS, NEEDED, WIDTH, build, enlarge, random_covariance, run_folder, tiny_vit, weights_of
from utils.registry import DATASETS, METHODS


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture
def start(case, products):
    """Makes a fresh run of the case with options of the run or of the method."""
    name, host = case
    needed = NEEDED.get(name, {}) | (NEEDED.get(host, {}) | {"host": host} if host else {})
    needed |= products if name == "mepo" else {}

    def make(own=None, **run):
        return build(name, needed | (own or {}), **run)

    return make


@pytest.fixture
def in_process(monkeypatch):
    """Plugins of a call inside this process are gone after the test."""
    for registry in (METHODS, DATASETS):
        monkeypatch.setattr(registry, "plugins", [])
    yield
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


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
def places(tmp_path, monkeypatch) -> Places:
    monkeypatch.setattr("datasets.seq_fmnist.DEBIAN", tmp_path / "not installed")
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


@pytest.fixture
def said(capsys):
    """Exit code, lines and errors of a command, but for the line on its threads."""

    def do(*words: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main.main([str(word) for word in words])
        out, error = capsys.readouterr()
        return code, out.splitlines(), [line for line in error.splitlines() if not line.startswith("threads: ")]

    return do
