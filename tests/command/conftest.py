"""A run on pictures of one's own, and what is done to its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from tests.tiny import random_covariance, run_folder
from utils.files.manifest import sha256
from utils.runs.summary import OWN_DIGEST, fields_sha256

CLASSES = ("ant", "bee", "cat", "dog", "emu", "fox")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """train/<class>/ and test/<class>/ of pictures of many sizes, whose colours say the class."""
    folder, draw = tmp_path_factory.mktemp("zoo"), np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for k, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 90, (20 + 3 * i, 40 - 2 * i, 3), dtype=np.uint8)
                pixels[..., k % 3] += np.uint8(80 + 80 * (k // 3))
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def train(zoo, tmp_path_factory):
    """The folder of a run on them, with these words; made once for the same ones."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*words: str) -> Path:
        if words not in made:
            place = tmp_path_factory.mktemp("run")
            usual = ["--dataset", "seq-folder", "--data_dir", str(zoo), "--cache_dir", str(place / "cache")]
            usual += ["--results", str(place / "runs"), "--checkpoint_dir", str(place / "products"), "--device", "cpu"]
            usual += ["--n_tasks", "2", "--batch_size", "5", "--online_iter", "2", "--eval_batch_size", "7"]
            assert main.main([*usual, *words]) == 0
            made[words] = run_folder(place / "runs")
        return made[words]

    return run


@pytest.fixture
def copied(train, tmp_path):
    """A copy of a run's folder, for tests that change it."""

    def copy(*words: str) -> Path:
        return Path(shutil.copytree(train(*words), tmp_path / "run"))

    return copy


@pytest.fixture(scope="session")
def covariance(tmp_path_factory) -> Path:
    """A stand-in for the product of MePo's second stage, for vit_tiny_glyphs."""
    file = tmp_path_factory.mktemp("covariance") / "covariance.npy"
    np.save(file, random_covariance(128))
    return file


def rewrite(folder: Path, name: str, content: bytes | None, **claims: object) -> None:
    """A file of a run with another content, or gone, and a summary that agrees: the work of somebody who knows how.

    claims: what the summary is to say instead.
    """
    summary = json.loads((folder / "summary.json").read_text()) | claims
    (folder / name).unlink()
    summary["sha256"].pop(name, None)
    if content is not None:
        (folder / name).write_bytes(content)
        summary["sha256"][name] = sha256(folder / name)
    summary[OWN_DIGEST] = fields_sha256(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
