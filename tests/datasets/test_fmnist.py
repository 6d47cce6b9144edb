"""Fashion-MNIST: Debian's folder before one's own before a download, read as MNIST is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from datasets import seq_fmnist
from datasets.seq_fmnist import SeqFmnist
from datasets.seq_mnist import FILES
from tests.miniatures import CASES, answer, dataset_of, digits, idx, official, write
from utils.errors import UsageError


def fill(folder, value: int) -> None:
    """The four files, of images whose first corner has a grey of its own."""
    for name in FILES:
        labels = np.arange(20 if name.startswith("train") else 10) % 10
        images = digits(labels)
        images[:, 0, 0] = value
        write(folder / name, idx(images if "images" in name else labels))


def corner(dataset, places) -> int:
    images, labels = dataset.load(places, False)
    assert images.shape == (10, 3, 28, 28) and labels.tolist() == list(range(10))
    return int(images[0, 0, 0, 0])


def test_debian_then_ones_own_then_download(tmp_path, places, made, monkeypatch):
    debian, own = tmp_path / "debian", places.data / "FashionMNIST" / "raw"
    monkeypatch.setattr(seq_fmnist, "DEBIAN", debian)
    fill(debian, 100)
    fill(own, 200)
    with official(monkeypatch, CASES["seq-fmnist"], made("seq-fmnist")) as server:
        assert corner(SeqFmnist(), places) == corner(dataset_of("seq-fmnist", download=True), places) == 100
        (debian / "t10k-labels-idx1-ubyte").unlink()  # a folder that lacks a file is none
        assert corner(SeqFmnist(), places) == corner(dataset_of("seq-fmnist", download=True), places) == 200
        assert server.asked == []
        shutil.rmtree(own)
        with pytest.raises(UsageError, match="--download"):
            SeqFmnist().load(places, False)
        assert corner(dataset_of("seq-fmnist", download=True), places) == 0
        assert sorted(server.asked) == sorted(f"{name}.gz" for name in FILES)


def test_names_of_clothes(places):
    fill(places.data, 0)
    survey = SeqFmnist().survey(places)
    assert survey.counts == (20, 10)
    assert survey.class_names[0] == "T-shirt/top" and survey.class_names[9] == "Ankle boot"
    assert len(survey.class_names) == SeqFmnist.num_classes


def test_a_damaged_file_of_debian_is_one_line(tmp_path, places, monkeypatch):
    monkeypatch.setattr(seq_fmnist, "DEBIAN", tmp_path / "debian")
    fill(tmp_path / "debian", 0)
    (tmp_path / "debian" / "train-images-idx3-ubyte").write_bytes(b"none")
    answer(lambda: SeqFmnist().load(places, True), tmp_path / "debian" / "train-images-idx3-ubyte", "cannot be read")
