"""The stored pictures: what they say they are, no picture or set on two sides, and refused where they are damaged."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import importlib.util
import lzma
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.base import Places
from datasets.pictures import choose, make, package, stored, views
from datasets.pictures.dataset import PictureArgs
from tests.miniatures import answer
from tests.tiny import ROOT
from utils.data.augment import random_colours
from utils.registry import DATASETS

NAMES = ("icons", "seq-emoji", "seq-icons")
CLASSES = {"icons": 1000, "seq-emoji": 300, "seq-icons": 200, "seq-icons-dev": 100}
PACKAGE = Path(os.environ.get("PICTURES_PACKAGE", ROOT / "build" / "pictures" / "iconify-json-2.2.535.tgz"))


@pytest.fixture(scope="module")
def read():
    return {name: stored.read(stored.FOLDER, name) for name in NAMES}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return Places(folder, folder, 32)


def sets_of(file: stored.Stored) -> tuple[set[str], set[str]]:
    about = file.about
    return {*about.sets[: about.training_sets]}, {*about.sets[about.training_sets :]}


# Datasets


@pytest.mark.parametrize("name", CLASSES)
def test_arrays_follow_the_contract(name, places):
    dataset = DATASETS.load(name)()
    assert (dataset.num_classes, dataset.image_size) == (CLASSES[name], 32)
    for train, count in zip((True, False), dataset.counts):
        images, labels = dataset.load(places, train)
        assert images.shape == (count, 3, 32, 32) and labels.shape == (count,)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert sorted({*labels.tolist()}) == list(range(CLASSES[name]))
        assert dataset.grey == bool((images == images[:, :1]).all())
        assert dataset.is_there(places, train) and re.fullmatch("[0-9a-f]{64}", dataset.digest(places, train))


@pytest.mark.parametrize("name", CLASSES)
def test_a_survey_tells_the_names(name, places):
    dataset = DATASETS.load(name)()
    survey = dataset.survey(places)
    assert survey.counts == dataset.counts
    assert survey.class_names == sorted({*survey.class_names}) and len(survey.class_names) == CLASSES[name]
    assert name in survey.lines(name, dataset.num_classes)[0]


def test_labels_match_names(read, places):
    """A picture of a concept keeps its name in the stream made of some concepts."""
    dataset, icons = DATASETS.load("seq-icons-dev")(), read["icons"]
    names = dataset.class_names()
    assert {*names} <= {*icons.about.concepts}
    for train in (True, False):
        images, labels = dataset.load(places, train)
        told = dict(zip((image[0].tobytes() for image in images), labels.tolist()))
        for row in icons.rows(train):
            name = icons.about.concepts[icons.labels[row]]
            shown = (255 - icons.pictures[row]).tobytes()  # light ink on dark ground
            assert (name in names) == (shown in told)
            if name in names:
                assert names[told[shown]] == name


def test_enough_pictures(read):
    for name, least in (("icons", choose.DRAWN), ("seq-icons", choose.WELL_DRAWN), ("seq-emoji", (4, 3))):
        file = read[name]
        for train, count in zip((True, False), least):
            assert np.bincount(file.labels[file.rows(train)], minlength=len(file.about.concepts)).min() >= count
    for name in ("icons", "seq-icons"):
        pairs = read[name].labels * len(read[name].about.sets) + read[name].sets
        assert np.bincount(pairs).max() <= choose.VARIANTS <= 6
    assert np.bincount(read["seq-emoji"].labels[read["seq-emoji"].rows(False)]).tolist() == [3] * 300


@pytest.mark.parametrize("name", CLASSES)
def test_augment_moves_the_picture(name, places):
    images = torch.tensor(DATASETS.load(name)().load(places, False)[0][:16]).float() / 255
    first, again, other = (DATASETS.load(name)().augment(images, torch.Generator().manual_seed(k)) for k in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == images.shape


# Sides


def test_concepts_are_of_one_set_of_pictures_only(read):
    stems = {name: {choose.stem_of(concept) for concept in read[name].about.concepts} for name in NAMES}
    keys = {name: {choose.key_of(concept) for concept in read[name].about.concepts} for name in NAMES}
    for one, other in (("icons", "seq-icons"), ("icons", "seq-emoji"), ("seq-icons", "seq-emoji")):
        assert not stems[one] & stems[other] and not keys[one] & keys[other]


def test_families_are_on_one_side(read):
    for name in NAMES:
        training, test = sets_of(read[name])
        assert training and test and not training & test
        families = read[name].about.families
        assert sorted(sum(families, [])) == sorted(training | test)
        assert all({*family} <= training or {*family} <= test for family in families)
    assert not sets_of(read["icons"])[0] & sets_of(read["seq-icons"])[1]
    assert not sets_of(read["icons"])[1] & sets_of(read["seq-icons"])[0]


@pytest.mark.parametrize(
    "family",
    [
        "fa-regular fa-solid fa6-regular fa6-solid fa7-regular fa7-solid",
        "lucide feather",
        "ion famicons",
        "ic material-symbols",
        "heroicons heroicons-outline heroicons-solid",
    ],
)
def test_known_relatives_are_one_family(family, read):
    for name in ("icons", "seq-icons"):
        drawn = {*family.split()} & {*read[name].about.sets}
        assert sum(bool(drawn & {*own}) for own in read[name].about.families) == 1


def test_emoji_of_one_hand_are_on_one_side(read):
    training, test = sets_of(read["seq-emoji"])
    assert test == {*choose.EMOJI_TEST} and not {"emojione", "openmoji", "emojione-v1"} & (training | test)
    assert len({own[0] for own in read["seq-emoji"].about.families if {*own} & test}) == 3


def test_no_picture_comes_twice(read):
    digests = [hashlib.sha256(picture.tobytes()).digest() for name in NAMES for picture in read[name].pictures]
    assert len({*digests}) == len(digests)


def test_no_picture_is_empty_or_full(read):
    for name in NAMES:
        pictures = read[name].pictures if name != "seq-emoji" else views.on_white(read[name].pictures).mean(axis=1)
        ink = 1 - pictures.mean(axis=(1, 2)) / 255
        assert ink.min() > package.LEAST_INK - 0.02 and ink.max() < package.MOST_INK + 0.02
        assert pictures.std(axis=(1, 2)).min() > 3


# Licences and files


def test_every_set_has_its_licence(read):
    text = (stored.FOLDER / "LICENCES.md").read_text(encoding="utf-8")
    for name in NAMES:
        rows = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        told = dict(
            re.findall(r"^\| `(\S+)` \| .+ \| .+ \| \[?([\w.-]+)\]?.* \| [\d,]+ \| (?:training|test) \|$", rows, re.M)
        )
        assert told.keys() == {*read[name].about.sets}
        assert {*told.values()} <= {*choose.LICENCES}
    assert not [name for name in choose.LICENCES if re.search("NC|SA|GPL", name)]


def test_files_are_those_of_the_record():
    lines = (stored.FOLDER / stored.SUMS).read_text().splitlines()
    assert [line.split()[1] for line in lines] == [f"{name}.xz" for name in NAMES]
    for line in lines:
        digest, file = line.split()
        content = (stored.FOLDER / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest and len(content) < 8e6


def test_a_written_file_reads_the_same(tmp_path):
    pictures = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    about = stored.About(4, ["bee", "cup"], ["one", "two"], 1, [["one"], ["two"]], [1])
    stored.write(tmp_path, "own", about, np.array([1, 0]), np.array([0, 1]), pictures, (4, 4))
    stored.write_sums(tmp_path, ["own"])
    again = stored.read(tmp_path, "own")
    assert again.about == about and np.array_equal(again.pictures, pictures)
    assert (again.labels.tolist(), again.sets.tolist()) == ([1, 0], [0, 1])
    assert (again.rows(True).tolist(), again.rows(False).tolist()) == ([0], [1])


def test_pictures_of_another_size(read, tmp_path, places):
    file = read["seq-icons"]
    rows = np.unique(file.labels * 2 + (file.sets >= file.about.training_sets), return_index=True)[1]  # one of each
    larger = file.pictures[rows].repeat(2, axis=1).repeat(2, axis=2)
    about = dataclasses.replace(file.about, size=64)
    stored.write(tmp_path, "seq-icons", about, file.labels[rows], file.sets[rows], larger, (64, 64))
    stored.write_sums(tmp_path, ["seq-icons"])
    dataset = DATASETS.load("seq-icons")(PictureArgs(pictures=str(tmp_path)))
    images, labels = dataset.load(places, False)
    assert images.shape == (200, 3, 64, 64) and labels.tolist() == list(range(200)) and dataset.image_size is None
    assert DATASETS.load("seq-icons")().image_size == 32


def spoil(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": content[:-100], "empty": b"", "byte": content[:999] + b"?" + content[1000:]}[how])


@pytest.mark.parametrize("how", ["gone", "folder", "cut", "empty", "byte"])
def test_a_damaged_file_is_one_line(how, tmp_path, places):
    for name in ("seq-emoji.xz", stored.SUMS):
        shutil.copy(stored.FOLDER / name, tmp_path)
    dataset = DATASETS.load("seq-emoji")(PictureArgs(pictures=str(tmp_path)))
    dataset.load(places, False)
    spoil(tmp_path / "seq-emoji.xz", how)
    dataset = DATASETS.load("seq-emoji")(PictureArgs(pictures=str(tmp_path)))
    answer(lambda: dataset.survey(places), tmp_path / "seq-emoji.xz", "make_pictures.sh")
    answer(lambda: dataset.load(places, True), tmp_path / "seq-emoji.xz", "make_pictures.sh")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"one\n", b"0  other.xz\n", None])
def test_a_damaged_record_is_one_line(content, tmp_path, places):
    shutil.copy(stored.FOLDER / "seq-icons.xz", tmp_path)
    if content is not None:
        (tmp_path / stored.SUMS).write_bytes(content)
    dataset = DATASETS.load("seq-icons")(PictureArgs(pictures=str(tmp_path)))
    answer(lambda: dataset.load(places, True), tmp_path / stored.SUMS, "make_pictures.sh")


def test_a_file_that_holds_something_else_is_one_line(tmp_path):
    for content in (b"none", lzma.compress(b""), lzma.compress(b'{"size": 3}\n'), lzma.compress(b"[1]\n")):
        (tmp_path / "icons.xz").write_bytes(content)
        stored.write_sums(tmp_path, ["icons"])
        answer(lambda: stored.read(tmp_path, "icons"), tmp_path / "icons.xz", "cannot be read")


# Views


def test_views_are_the_same_everywhere_and_of_training_only(read, places, tmp_path):
    dataset, file = DATASETS.load("seq-emoji")(), read["seq-emoji"]
    images, labels = dataset.load(places, True)
    other, _ = DATASETS.load("seq-emoji")().load(Places(tmp_path, tmp_path, 32), True)
    assert np.array_equal(images, other) and isinstance(images, np.memmap)
    rows = file.rows(True)
    assert len(images) == views.VIEWS * len(rows)
    assert np.array_equal(images[:: views.VIEWS], views.on_white(file.pictures[rows]))
    assert labels.tolist() == file.labels[rows].repeat(views.VIEWS).tolist()
    tests, labels = dataset.load(places, False)
    assert np.array_equal(tests, views.on_white(file.pictures[file.rows(False)]))
    assert labels.tolist() == file.labels[file.rows(False)].tolist()


def test_views_differ_and_keep_the_whole_picture(read):
    file = read["seq-emoji"]
    pictures = file.pictures[file.rows(True)[:64]]
    images = views.views(pictures).reshape(64, views.VIEWS, 3, 32, 32)
    assert all(len({image.tobytes() for image in own}) == views.VIEWS for own in images)
    corners = images[:, 1:, :, [0, 0, -1, -1], [0, -1, 0, -1]] / 255
    assert np.quantile(corners, 0.05) >= views.DARKEST - 0.01  # ground, not ink


def test_pictures_without_coverage_are_ground():
    nothing = np.zeros((3, 4, 8, 8), dtype=np.uint8)
    assert (views.on_white(nothing) == 255).all()
    moved = views.view(nothing, torch.Generator().manual_seed(0))
    assert all((image == image[:, :1, :1]).all() and image.min() >= 255 * views.DARKEST - 1 for image in moved)


# Making


@pytest.mark.parametrize(
    "icon, concept",
    [
        ("home-outline", "home"),
        ("rocket-launch-24-filled", "rocket-launch"),
        ("outline-bug-report", "bug-report"),
        ("user-add", "user-plus"),
        ("arrow-left-01", "arrow-left"),
        ("line", "line"),
    ],
)
def test_names_without_style(icon, concept):
    assert choose.concept_of(icon) == concept


def test_spellings_of_one_thing_get_one_name():
    counts = collections.Counter({"trash": 9, "bin": 3, "left-arrow": 1, "arrow-left": 5, "github": 9, "7": 9})
    named = choose.one_name_each(counts)
    assert named == {"trash": "trash", "bin": "trash", "left-arrow": "arrow-left", "arrow-left": "arrow-left"}


def test_duplicates_stay_in_training_and_doubtful_ones_nowhere():
    pictures = np.stack([np.full((2, 2), value, np.uint8) for value in (1, 1, 2, 2, 3, 4)])
    names = [("cup", "test"), ("cup", "train"), ("cup", "train"), ("bee", "train"), ("bee", "test"), ("bee", "train")]
    drawings = package.Drawn([package.Source(concept, name, "x") for concept, name in names], pictures)
    kept = choose.without_duplicates(drawings, {"test"})
    assert kept.pictures[:, 0, 0].tolist() == [1, 3, 4]
    assert [source.set for source in kept.sources] == ["train", "test", "train"]


def test_sheets_are_small_pictures():
    for name in NAMES:
        file = ROOT / "results" / "pictures" / f"{name}.png"
        assert file.stat().st_size < 150_000
        with Image.open(file) as image:
            assert min(image.size) > 400


@pytest.mark.skipif(not PACKAGE.is_file(), reason=f"{PACKAGE} is not there")
@pytest.mark.skipif(importlib.util.find_spec("resvg_py") is None, reason="the renderer is not installed")
def test_made_again_they_are_the_same(tmp_path):
    make.main(["--package", str(PACKAGE), "--out", str(tmp_path)])
    for name in NAMES:
        ours, theirs = stored.read(tmp_path, name), stored.read(stored.FOLDER, name)
        assert ours.about == theirs.about and np.array_equal(ours.pictures, theirs.pictures)
    for name in (stored.SUMS, "LICENCES.md"):
        assert (tmp_path / name).read_bytes() == (stored.FOLDER / name).read_bytes()


def test_another_size_needs_a_folder(capsys):
    with pytest.raises(SystemExit):
        make.main(["--package", "none", "--size", "64"])
    assert "--out" in capsys.readouterr().err


def test_colours_of_ink_and_ground():
    ink = torch.zeros(400, 3, 4, 4)
    ink[:, :, :2] = 1  # the upper half
    shown = random_colours(ink, torch.Generator().manual_seed(0))
    assert torch.equal(shown, random_colours(ink, torch.Generator().manual_seed(0)))
    assert shown.min() >= 0 and shown.max() <= 1
    top, bottom = shown[:, :, 0, 0], shown[:, :, 3, 3]
    assert torch.equal(shown[:, :, :2], top[:, :, None, None].expand(-1, -1, 2, 4))
    kept, inverted = (shown == ink).flatten(1).all(1), (shown == 1 - ink).flatten(1).all(1)
    assert 70 < kept.sum() < 130 and 70 < inverted.sum() < 130
    assert ((top - bottom).abs().amax(dim=1) >= 0.25).all()
