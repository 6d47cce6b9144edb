"""Omniglot's two parts, from archives of the true layout with a few of their characters."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Omniglot as TheirOmniglot

from datasets.base import Places
from datasets.omniglot import Omniglot
from datasets.seq_omniglot import SeqOmniglot
from tests.miniatures import answer, omniglot, pack
from utils.data import decode as decoding

FEW = {
    Omniglot: ["Greek/character01", "Greek/character02", "Korean/character01"],
    SeqOmniglot: ["Keble/character01", "ULOG/character01", "ULOG/character02"],
}
PARTS = pytest.mark.parametrize("kind", FEW, ids=["background", "evaluation"])


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "data", tmp_path / "cache", 84)


@pytest.fixture
def fetched(places, tmp_path, monkeypatch):
    """Puts the archive of a class where a download leaves it, and gives the dataset that unpacks it."""

    def of(kind, share: float = 1, **changed):
        (official,) = kind.downloads
        omniglot(tmp_path / "tree", official.name_inside, FEW[kind])
        archive = places.data / "omniglot-py" / official.name
        pack(tmp_path / "tree", archive)
        content = archive.read_bytes()
        archive.write_bytes(content[: int(share * len(content))])
        declared = {"downloads": (replace(official, **changed),), "names": FEW[kind], "num_classes": 3}
        for name, value in (declared | {"counts": (45, 15)}).items():
            monkeypatch.setattr(kind, name, value)
        return kind(kind.Args(download=True))

    return of


@PARTS
def test_archive_and_sum_are_those_of_torchvision(kind):
    (official,) = kind.downloads
    part = official.name.removesuffix(".zip")
    assert official.url == f"{TheirOmniglot.download_url_prefix}/{part}.zip"
    assert official.digest == f"md5:{TheirOmniglot.zips_md5[part]}"


def test_parts_are_those_of_the_release():
    background, evaluation = Omniglot.names, SeqOmniglot.names
    for kind, alphabets in ((Omniglot, 30), (SeqOmniglot, 20)):
        assert len({*kind.names}) == kind.num_classes and kind.names == sorted(kind.names)
        assert len({name.split("/")[0] for name in kind.names}) == alphabets
        assert kind.counts == (15 * kind.num_classes, 5 * kind.num_classes)
    assert (len(background), len(evaluation)) == (964, 659)
    assert not {name.split("/")[0] for name in background} & {name.split("/")[0] for name in evaluation}


@PARTS
def test_fifteen_drawings_train_and_five_test(kind, fetched, places, monkeypatch):
    dataset = fetched(kind, digest=None)
    assert dataset.survey(places).counts == (45, 15) and dataset.survey(places).class_names == FEW[kind]
    for train, numbers in ((True, range(15)), (False, range(15, 20))):
        images, labels = dataset.load(places, train)
        assert (images.shape[1:], images.dtype) == ((3, 84, 84), np.uint8)
        assert labels.tolist() == [label for label in range(3) for _ in numbers]
        cells = images[:, 0, 8::17, 8::17].reshape(len(images), 25)
        assert {*np.unique(cells)} == {0, 255} and (images == images[:, :1]).all()
        told = (cells == 0) @ (1 << np.arange(25))
        assert told.tolist() == [20 * label + number for label in range(3) for number in numbers]
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
    again = kind().load(places, False)  # without --download
    assert np.array_equal(again[0], images) and again[1].tolist() == labels.tolist()


def test_values_are_those_of_the_release(fetched, places):
    dataset = fetched(Omniglot, digest=None)
    images, _ = dataset.load(places, True)
    file = places.data / "omniglot-py" / "images_background" / "Greek" / "character01" / "0900_01.png"
    with Image.open(file) as drawing:
        expected = drawing.convert("L").resize((84, 84), Image.Resampling.BILINEAR)
    assert np.array_equal(images[0, 0], np.asarray(expected))
    x = torch.from_numpy(np.array(images[:2])).float() / 255
    assert torch.equal(dataset.augment(x, torch.Generator()), x)
    assert (dataset.mean, dataset.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "lost, first, count", [("Greek", "Greek/character01", 2), ("Korean/*/0898_07.png", "Korean", 1)]
)
def test_what_is_missing_is_named(lost, first, count, fetched, places):
    fetched(Omniglot, digest=None).load(places, True)
    root = places.data / "omniglot-py" / "images_background"
    (gone,) = root.glob(lost)
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    answer(lambda: Omniglot().survey(places), root, f"{count} characters have not the 20 drawings", first, "fetch it")


@PARTS
def test_archives_that_are_not_whole_are_refused(kind, fetched, places):
    archive = places.data / "omniglot-py" / kind.downloads[0].name
    dataset = fetched(kind, 0.6)
    answer(lambda: dataset.load(places, True), archive, "has md5", "instead of", "delete it and run again")
    dataset = fetched(kind, 0.6, digest=None)
    answer(lambda: dataset.load(places, True), archive, "truncated or damaged")
    assert not archive.with_suffix("").exists() and not places.cache.exists()
