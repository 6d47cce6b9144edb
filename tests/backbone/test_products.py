"""The side of the network's input: of the dataset, of the network, given, or of the images on disk, in this order."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

import main
from backbone.products import open_dataset
from tests.tiny import run_folder
from utils import plan as plans
from utils.errors import UsageError


@pytest.fixture
def mixed(tmp_path):
    """Pictures of many sizes, and the words of a run on them, but for the network."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(10):
            pixels = draw.integers(0, 256, (*draw.integers(9, 30, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{k}.png")
    folders = {"data_dir": "pictures", "cache_dir": "cache", "results": "runs", "checkpoint_dir": "products"}
    places = [word for option, folder in folders.items() for word in (f"--{option}", str(tmp_path / folder))]
    return ["--model", "er", "--dataset", "seq-folder", *places, "--n_tasks", "2", "--device", "cpu"]


def side(dataset: str, backbone: str, **given) -> int | None:
    plan = plans.make({"model": "er", "dataset": dataset, "backbone": backbone, **given})
    return open_dataset(plan)[1].size


def test_which_size_counts():
    assert side("seq-digits", "resnet18-4") == side("glyphs", "mlp-8") == 32  # the dataset's
    assert side("seq-cifar100", "sup21k") == 224  # the network's
    assert side("seq-cifar100", "resnet18-4") == 32 and side("seq-mnist", "mlp-8") == 28  # that on disk
    assert side("seq-cifar100", "resnet18-4", input_size=16) == 16
    assert side("seq-cub200", "resnet18-4", input_size=84) == 84


@pytest.mark.parametrize("backbone", ["resnet18-4", "mlp-8"])
def test_pictures_of_many_sizes_are_brought_to_the_one_given(mixed, backbone, tmp_path):
    assert main.main([*mixed, "--backbone", backbone, "--input_size", "16"]) == 0
    folder = run_folder(tmp_path / "runs")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["input_size"] == 16
    (array,) = {np.load(file, mmap_mode="r").shape[1:] for file in (tmp_path / "cache").rglob("*.npy")}
    assert array == (3, 16, 16)


def test_what_says_no_size_is_refused(mixed, tmp_path, capsys):
    assert main.main([*mixed, "--backbone", "resnet18-4"]) == 2
    assert capsys.readouterr().err == (
        "error: --backbone resnet18-4: has no input size of its own, and the images of seq-folder have no common one; "
        "give it with --input_size\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "own, message",
    [
        (["--backbone", "vit_tiny_glyphs"], "--input_size 32: --backbone vit_tiny_glyphs has an input size of its own"),
        (
            ["--backbone", "sup21k"],
            "--input_size 32: --backbone sup21k has an input size of its own, 224 px; leave the",
        ),
        (["--backbone", "resnet18-4", "--input_size", "7"], "--input_size 7: must be in 8 ... 10000"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_a_size_that_would_not_count_is_refused(own, message, mixed, tmp_path, capsys):
    assert main.main([*mixed, "--input_size", "32", *own]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_dataset_that_says_the_size_is_refused_another(monkeypatch):
    from datasets.seq_cifar100 import SeqCifar100

    monkeypatch.setattr(SeqCifar100, "image_size", 32)
    with pytest.raises(UsageError, match="^--input_size 64: --dataset seq-cifar100 has an input size of its own"):
        side("seq-cifar100", "resnet18-4", input_size=64)
