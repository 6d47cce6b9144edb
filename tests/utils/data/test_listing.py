"""Datasets that people lay out themselves, since they cannot be fetched or have no split: cars, ImageNet, ImageNet-R,
and folders of one's own images."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.io import savemat
from torch.utils.data import random_split
from torchvision.datasets import ImageFolder

import main
from datasets.base import Places
from tests.miniatures import (
    CASES,
    SIZE,
    WNIDS,
    answer,
    classes_below,
    dataset_of,
    imr,
    official,
    picture,
    shown,
    tinyimg,
    told,
    write,
)
from tests.tiny import ROOT, random_covariance
from utils.data import listing
from utils.errors import UsageError
from utils.registry import DATASETS

# Cars

CARS = ["Acura Integra Type R 2001", *(f"Maker Model {k:03d} 2012" for k in range(195))]


@pytest.mark.parametrize("underscores", [True, False])
def test_cars_in_a_folder_per_class(underscores, places):
    names = [name.replace(" ", "_") for name in CARS] if underscores else CARS
    classes_below(places.data / "CARS196" / "split_imgs", names, 2)
    parts = [dataset_of("seq-cars196").load(places, train) for train in (True, False)]
    halves = random_split(range(392), [313, 79], generator=torch.Generator().manual_seed(42))
    for (images, labels), half in zip(parts, halves):
        assert labels.tolist() == [row // 2 for row in half.indices]
        assert told(images) == (labels.tolist(), [row % 2 for row in half.indices])


def annotations(names: list[str], labels: list[int], **more) -> dict:
    """As in the devkit: an array of structures."""
    kinds = [(name, "O") for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    rows = np.zeros((1, len(names)), dtype=kinds)
    for row, (name, label) in enumerate(zip(names, labels)):
        rows[0, row] = (1, 1, 7, 7, label, name)
    return {"annotations": rows} | more


@pytest.fixture
def devkit(places):
    """Stanford Cars as torchvision keeps it: 196 and 98 images."""
    root = places.data / "stanford_cars"
    for part, count, file in (
        ("cars_train", 196, "devkit/cars_train_annos.mat"),
        ("cars_test", 98, "cars_test_annos_withlabels.mat"),
    ):
        labels = [k * 5 % 196 for k in range(count)]
        names = [f"{k + 1:05d}.jpg" for k in range(count)]
        for name, label in zip(names, labels):
            write(root / part / name, picture(label, 0, "JPEG"))
        (root / "devkit").mkdir(exist_ok=True)
        savemat(root / file, annotations(names, [label + 1 for label in labels]))
    return root


def test_cars_as_torchvision_keeps_them(devkit, places, capsys):
    for train, count, published in ((True, 196, "8,144"), (False, 98, "8,041")):
        labels, colours = shown(dataset_of("seq-cars196").load(places, train))
        assert labels == colours == [k * 5 % 196 for k in range(count)]
        assert f"seq-cars196 has {count} images in" in (warned := capsys.readouterr().err) and published in warned


def test_damaged_annotations_of_cars(devkit, places):
    file = devkit / "cars_test_annos_withlabels.mat"
    whole = file.read_bytes()

    def read(*parts):
        answer(lambda: dataset_of("seq-cars196").load(places, False), *parts)

    for content in (b"", b"noise" * 50, whole[:100], whole[: len(whole) // 2]):
        file.write_bytes(content)
        read(file, "cannot be read as annotations")
    savemat(file, {"other": np.zeros(3)})
    read(file, "cannot be read as annotations", "KeyError")
    savemat(file, annotations(["00001.jpg", "00002.jpg"], [0, 196]))
    read(devkit, "labels -1 ... 195", "196 classes")
    file.unlink()
    read(file, "cannot be read as annotations", "No such file")


@pytest.fixture
def kaggle_cars(devkit, places):
    """As Kaggle ships it: a folder more, and the annotations beside."""
    for part in ("cars_train", "cars_test"):
        os.rename(devkit / part, devkit / "images")
        (devkit / part).mkdir()
        os.rename(devkit / "images", devkit / part / part)
    os.rename(devkit / "devkit" / "cars_train_annos.mat", devkit / "cars_train_annos.mat")
    os.rename(devkit / "cars_test_annos_withlabels.mat", devkit / "cars_test_annos_withlabels (1).mat")
    return devkit


def test_cars_as_kaggle_ships_them(kaggle_cars, places):
    survey = dataset_of("seq-cars196").survey(places)
    assert survey.counts == (196, 98) and survey.class_names is None
    for train, count in ((True, 196), (False, 98)):
        labels, colours = shown(dataset_of("seq-cars196").load(places, train))
        assert labels == colours == [k * 5 % 196 for k in range(count)]


def test_cars_by_classes(places, capsys):
    root = places.data / "car_data" / "car_data"
    for part, count, first in (("train", 2, 0), ("test", 1, 2)):
        classes_below(root / part, CARS, count, first=first)
    dataset = dataset_of("seq-cars196")
    assert dataset.survey(places).class_names == sorted(CARS)
    assert "published: 8,144" in capsys.readouterr().err
    for train, count in ((True, 2), (False, 1)):
        labels, colours = shown(dataset.load(places, train))
        assert labels == colours == [label for label in range(196) for _ in range(count)]


def test_cars_in_one_folder(places):
    root, labels = places.data / "stanford_cars", [k * 5 % 196 for k in range(60)]
    names = [f"car_ims/{k + 1:06d}.jpg" for k in range(60)]
    for name, label in zip(names, labels):
        write(root / name, picture(label, 0, "JPEG"))
    kinds = [(name, "O") for name in ("relative_im_path", "bbox_x1", "class", "test")]
    rows = np.zeros((1, 60), dtype=kinds)
    for row, (name, label) in enumerate(zip(names, labels)):
        rows[0, row] = (name, 1, label + 1, int(row % 3 == 0))
    savemat(root / "cars_annos.mat", {"annotations": rows})
    dataset = dataset_of("seq-cars196")
    for train in (True, False):
        given, colours = shown(dataset.load(places, train))
        assert given == colours == [label for row, label in enumerate(labels) if (row % 3 != 0) == train]


def test_what_a_test_part_lacks_is_said_before_anything_is_decoded(devkit, places, monkeypatch):
    monkeypatch.setattr("utils.data.decode.decode", lambda *_: pytest.fail("decoded"))
    (devkit / "cars_test" / "00007.jpg").unlink()
    answer(lambda: dataset_of("seq-cars196").survey(places), "seq-cars196 test: 1 images", "00007.jpg (No such file)")
    assert dataset_of("seq-cars196", skip_bad=True).survey(places).counts == (196, 98)
    (devkit / "cars_test_annos_withlabels.mat").unlink()
    answer(lambda: dataset_of("seq-cars196").survey(places), "cars_test_annos_withlabels.mat", "No such file")
    assert dataset_of("seq-cars196").survey(places, test=False).counts == (196, 0)


# Signs


@pytest.mark.parametrize("layout", ["torchvision", "kaggle"])
@pytest.mark.parametrize("split", ["authors", "official"])
def test_signs_as_others_ship_them(layout, split, places, made, monkeypatch, tmp_path):
    """The same images in the same order as in the archives of the authors."""
    with official(monkeypatch, CASES["seq-gtsrb"], made("seq-gtsrb")):
        own = Places(tmp_path / "official", places.cache, SIZE)
        expected = [dataset_of("seq-gtsrb", split=split, download=True).load(own, train) for train in (True, False)]
    source, root = own.data / "GTSRB", places.data / "gtsrb"
    rows = (source / "GT-final_test" / "GT-final_test.csv").read_text()
    if layout == "torchvision":
        shutil.copytree(source / "Final_Training" / "Images", root / "GTSRB" / "Training")
        shutil.copytree(source / "Final_Test", root / "GTSRB" / "Final_Test")
        write(root / "GT-final_test.csv", rows)
    else:
        for label in range(43):
            shutil.copytree(source / "Final_Training" / "Images" / f"{label:05d}", root / "Train" / str(label))
        shutil.copytree(source / "Final_Test" / "Images", root / "Test")
        lines = [line.split(";") for line in rows.splitlines()[1:]]
        write(root / "Test.csv", "\ufeffPath,ClassId\n" + "".join(f"Test/{r[0]},{r[-1]}\n" for r in lines))
    dataset = dataset_of("seq-gtsrb", split=split)
    assert dataset.survey(places).counts == tuple(len(labels) for _, labels in expected)
    for (images, labels), train in zip(expected, (True, False)):
        found = dataset.load(places, train)
        assert np.array_equal(found[0], images) and found[1].tolist() == labels.tolist()


def test_signs_whose_list_is_missing(places, made, monkeypatch):
    with official(monkeypatch, CASES["seq-gtsrb"], made("seq-gtsrb")):
        dataset_of("seq-gtsrb", download=True).survey(places)
    shutil.rmtree(places.data / "GTSRB" / "GT-final_test")
    answer(lambda: dataset_of("seq-gtsrb", split="official").survey(places), "GT-final_test.csv", "--download")
    assert dataset_of("seq-gtsrb").survey(places).counts == (103, 26)


def test_a_dataset_that_cannot_be_fetched_says_so(places):
    for name in ("seq-cars196", "imagenet"):
        with pytest.raises(UsageError, match="cannot be fetched automatically") as info:
            dataset_of(name, download=True).load(places, True)
        assert len(str(info.value).splitlines()) == 3 and DATASETS.load(name).address in str(info.value)


# ImageNet


@pytest.fixture(scope="module")
def imagenet_tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    names = ["n01440764", *(f"n{2000000 + k:08d}" for k in range(999))]
    classes_below(folder / "imagenet" / "train", names, 1, ".JPEG", "PNG")
    for label in (0, 1, 999):
        for index in (1, 2, 3):
            write(folder / "imagenet" / "train" / names[label] / f"x{index}.JPEG", picture(label, index, "PNG"))
    return folder


def test_imagenet_of_a_thousand_classes(imagenet_tree, tmp_path, capsys):
    places = Places(imagenet_tree, tmp_path, 8)
    images, labels = dataset_of("imagenet", samples=2).load(places, True)
    assert labels.tolist() == sorted([*range(1000), 0, 1, 999]) and told(images)[0] == labels.tolist()
    warned = capsys.readouterr().err
    assert "imagenet has 1,009 training images" in warned and "published: 1,281,167" in warned
    assert "class folders" not in warned


@pytest.fixture
def small(places, monkeypatch):
    """ImageNet of six classes with four images each, and a `val` part that lacks one."""
    monkeypatch.setattr(DATASETS.load("imagenet"), "num_classes", 6)
    classes_below(places.data / "ILSVRC2012" / "train", ["n01440764", *WNIDS[1:6]], 4, ".JPEG")
    classes_below(places.data / "ILSVRC2012" / "val", ["n01440764", *WNIDS[1:6]], 2, ".JPEG")
    shutil.rmtree(places.data / "ILSVRC2012" / "val" / WNIDS[2])
    return places.data / "ILSVRC2012"


def test_samples_of_imagenet_are_drawn_once(small, places):
    whole = dataset_of("imagenet").load(places, True)
    assert len(whole[1]) == 24
    draws = [dataset_of("imagenet", samples=2, subset_seed=seed).load(places, True) for seed in (0, 0, 1)]
    for images, labels in draws:
        assert labels.tolist() == [label for label in range(6) for _ in range(2)]
        assert told(images)[0] == labels.tolist()
        assert images.shape[0] == 12  # no more are decoded
    chosen = [told(images)[1] for images, _ in draws]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(dataset_of("imagenet", samples=9).load(places, True)[1]) == 24
    labels, colours = shown(dataset_of("imagenet", samples=1).load(places, False))  # of training images only
    assert labels == colours == [0, 0, 1, 1, 3, 3, 4, 4, 5, 5]


def test_imagenet_is_listed_once(small, places, monkeypatch, capsys):
    calls = []
    listed = listing.class_folders

    def count(*args):
        calls.append(args[0])
        return listed(*args)

    monkeypatch.setattr("datasets.imagenet.class_folders", count)
    first = dataset_of("imagenet").load(places, True)
    again = dataset_of("imagenet").load(places, True)
    assert calls == [small / "train"]
    assert np.array_equal(first[0], again[0]) and first[1].tolist() == again[1].tolist()
    write(small / "train" / WNIDS[3] / "new.JPEG", picture(3, 3, "JPEG"))
    os.utime(small / "train" / WNIDS[3], ns=(1, 1))  # whatever the resolution of the clock
    images, labels = dataset_of("imagenet").load(places, True)
    assert len(calls) == 2 and len(labels) == 25 and told(images)[0] == labels.tolist()
    shutil.rmtree(small / "train" / WNIDS[5])
    capsys.readouterr()
    for _ in range(2):  # a remembered list does not hide what is missing
        assert len(dataset_of("imagenet").load(places, True)[1]) == 21
        assert "imagenet has 5 class folders" in capsys.readouterr().err
    assert len(calls) == 3


def test_a_list_of_imagenet_that_changed_is_made_again(small, places, capsys):
    dataset_of("imagenet").load(places, True)
    (file,) = (places.cache / "listings").iterdir()
    whole = file.read_text()
    for content in ("", "[[]]", "{}", "null", "[[\xff", whole.replace("[0, 0,", "[0, 1,"), whole[:-9]):
        file.write_text(content, "latin-1")
        assert dataset_of("imagenet").load(places, True)[1].tolist() == [label for label in range(6) for _ in range(4)]
        assert f"warning: {file}: this list is not as it was written; made again" in capsys.readouterr().err
        assert file.read_text() == whole


def test_validation_images_of_imagenet(small, places):
    assert dataset_of("imagenet").survey(places).counts == (24, 10)
    os.rename(small / "val", small / "Validation")
    assert dataset_of("imagenet").survey(places).counts == (24, 10)
    shutil.rmtree(small / "Validation")
    (small / "test").mkdir()
    answer(lambda: dataset_of("imagenet").survey(places), small, "holds no val")
    assert dataset_of("imagenet").survey(places, test=False).counts == (24, 0)
    write(small / "val" / "ILSVRC2012_val_00000001.JPEG", picture(0, 0, "JPEG"))
    answer(lambda: dataset_of("imagenet").survey(places), small / "val", "holds no class folders, but 1 images")


# Tiny ImageNet


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("left", ["nothing", "list", "list and folder"])
def test_tiny_imagenet_whose_test_part_is_sorted(inner, left, places):
    tinyimg(places.data)
    val = places.data / "tiny-imagenet-200" / "val"
    expected = dataset_of("seq-tinyimg").load(places, False)
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (val / wnid / inner).mkdir(parents=True, exist_ok=True)
        os.rename(val / "images" / name, val / wnid / inner / name)
    if left != "list and folder":
        (val / "images").rmdir()
    if left == "nothing":
        (val / "val_annotations.txt").unlink()
    dataset = dataset_of("seq-tinyimg")
    assert dataset.survey(places).counts == (400, 200) and dataset.survey(places).class_names == WNIDS[::-1]
    labels, colours = shown(dataset.load(places, False))
    assert labels == colours and sorted(labels) == sorted(expected[1].tolist())


def test_tiny_imagenet_whose_test_part_is_neither(places):
    tinyimg(places.data)
    val = places.data / "tiny-imagenet-200" / "val"
    write(val / WNIDS[3] / "x.JPEG", picture(0, 0, "JPEG"))
    answer(lambda: dataset_of("seq-tinyimg").survey(places), val, "holds class folders beside images")
    shutil.rmtree(val / WNIDS[3])
    (val / "val_annotations.txt").unlink()
    answer(lambda: dataset_of("seq-tinyimg").survey(places), "val_annotations.txt", "No such file")


# WikiArt


def test_damaged_members_of_wikiart_are_no_part_of_it(places, made, monkeypatch, capsys):
    """Its archive is unpacked without them, and a split is drawn as if they never were, wherever they lie."""
    kind, files = DATASETS.load("seq-wikiart"), made("seq-wikiart")
    archive = io.BytesIO(files["wikiart.zip"])
    with zipfile.ZipFile(archive, "a") as file:
        for name in kind.downloads[0].damaged:
            file.writestr(name, b"a painting " * 99)
    content = archive.getvalue()
    assert content.count(b"a painting " * 99) == len(kind.known_bad) == 2
    content = content.replace(b"a painting ", b"no painting", 1)  # the sum of the first is wrong
    with official(monkeypatch, CASES["seq-wikiart"], {"wikiart.zip": content}):
        parts = [dataset_of("seq-wikiart", download=True).load(places, train) for train in (True, False)]
    assert not [name for name in kind.known_bad if (places.data / "wikiart" / name).exists()]
    for name in kind.known_bad:
        write(places.data / "wikiart" / name, "no image")
    for images, labels in parts:
        assert told(images)[0] == labels.tolist()
    dataset = dataset_of("seq-wikiart")
    assert dataset.survey(places).counts == (64, 17)
    for (images, labels), train in zip(parts, (True, False)):
        again = dataset.load(places, train)
        assert np.array_equal(images, again[0]) and labels.tolist() == again[1].tolist()


@pytest.mark.parametrize("name", ["seq-wikiart", "seq-imr"])
def test_a_bad_image_moves_no_other(name, places, made, monkeypatch):
    """Splits are drawn over the published list; what cannot be read is left out of its part then."""
    with official(monkeypatch, CASES[name], made(name)):
        parts = [dataset_of(name, download=True).load(places, train) for train in (True, False)]
    monkeypatch.setattr(DATASETS.load(name), "counts", tuple(len(labels) for _, labels in parts))
    dataset = dataset_of(name, skip_bad=True)
    bad = [dataset.images(places)[k] for k in (3, -2)]
    for file in bad:
        write(file, "no image")
    for (images, labels), train, gone in zip(parts, (True, False), (3, len(parts[1][1]) - 2)):
        found = dataset_of(name, skip_bad=True).load(places, train)
        assert found[1].tolist() == np.delete(labels, gone).tolist()
        assert np.array_equal(found[0], np.delete(images, gone, axis=0))


@pytest.mark.parametrize("name", ["seq-wikiart", "seq-imr", "seq-cub200", "seq-gtsrb"])
def test_a_bad_image_that_was_not_published_moves_none(name, places, made, monkeypatch, capsys):
    """As if it were removed, so that a split is the one of the images that can be read."""
    with official(monkeypatch, CASES[name], made(name)):
        parts = [dataset_of(name, download=True).load(places, train) for train in (True, False)]
    first = dataset_of(name).images(places)[0]
    write(first.with_name(f"0-{first.name}"), "no image")
    dataset = dataset_of(name, skip_bad=True)
    for (images, labels), train in zip(parts, (True, False)):
        found = dataset.load(places, train)
        assert found[1].tolist() == labels.tolist() and np.array_equal(found[0], images)
    said = capsys.readouterr().err
    assert "1 images cannot be read: " in said and f"{first.parent.name}/0-{first.name} (" in said


# ImageNet-R


@pytest.fixture
def renditions(places):
    imr(places.data)
    return places.data / "imagenet-r"


def test_split_of_imagenet_r_is_fixed(renditions, places, tmp_path):
    parts = [dataset_of("seq-imr").load(places, train) for train in (True, False)]
    other = Places(places.data, tmp_path / "other", SIZE)
    for (images, labels), train, count in zip(parts, (True, False), (3, 1)):
        assert np.bincount(labels).tolist() == [count] * 200  # four fifths of four, rounded down
        again = dataset_of("seq-imr").load(other, train)
        assert np.array_equal(images, again[0]) and labels.tolist() == again[1].tolist()
    shown = [set(zip(*told(images))) for images, _ in parts]
    assert not shown[0] & shown[1] and len(shown[0] | shown[1]) == 800
    assert len({index for _, index in shown[1]}) == 4  # not the same place in every class
    # The rule is documented: NumPy's generator with seed 0, class by class over sorted names.
    draw = np.random.default_rng(0)
    training = {(label, int(index)) for label in range(200) for index in draw.permutation(np.arange(4))[:3]}
    assert shown[0] == training


def test_the_count_of_imagenet_r_tolerates_rounding_only(capsys):
    dataset = dataset_of("seq-imr")
    for found, warns in ((24_000, False), (23_903, False), (23_799, True), (20_000, True)):
        dataset.check_count(Path("x"), found, train=True)
        assert bool(capsys.readouterr().err) == warns


def test_train_and_test_folders_of_imagenet_r(places):
    root = places.data / "imagenet-r"
    classes_below(root / "train", WNIDS[:200], 2)
    classes_below(root / "test", WNIDS[:200], 1, first=3)
    shutil.rmtree(root / "test" / WNIDS[5])
    images, labels = dataset_of("seq-imr").load(places, True)
    assert told(images)[0] == labels.tolist() == [label for label in range(200) for _ in range(2)]
    images, labels = dataset_of("seq-imr").load(places, False)  # a class that is missing does not move the others
    assert told(images) == (labels.tolist(), [3] * 199) and labels.tolist() == [k for k in range(200) if k != 5]
    os.rename(root / "test" / WNIDS[6], root / "test" / "n09999999")
    answer(lambda: dataset_of("seq-imr").load(places, False), root / "test", "class n09999999 is not one of")


def test_labels_of_lists_are_used(renditions, places, tmp_path):
    """Whichever label they give a class; both lists agree, and so do line and folder."""
    lines = [f"{wnid}/{wnid}_{index}.jpg {199 - k}\n" for k, wnid in enumerate(WNIDS[:200]) for index in (0, 1)]
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    write(train, "".join(lines[::2]))
    write(test, "\n".join(lines[1::2]))

    def load():
        dataset = dataset_of("seq-imr", train_list=str(train), test_list=str(test))
        assert dataset.survey(places).class_names == WNIDS[199::-1]
        return dataset.load(places, False)

    images, labels = load()
    assert labels.tolist() == list(range(199, -1, -1)) and told(images)[0] == list(range(200))

    def refused(line: int, new: str, *parts):
        content = test.read_text()
        rows = content.splitlines()
        rows[line - 1] = new
        write(test, "\n".join(rows))
        answer(load, f"{test}, line {line}: ", *parts)
        write(test, content)

    name = f"{WNIDS[1]}/{WNIDS[1]}_1.jpg"
    refused(3, f"{name} 197", name, "has label 197, but 198 is that of", f"{train}, line 2")
    refused(3, name, name, "has no label")
    refused(3, f"{WNIDS[1]}/{WNIDS[1]}_1.jpg 200", "has label 200")
    for file in (train, test):
        write(file, file.read_text().replace(" 199", " 200"))
    answer(load, f"{train}, line 1: label 200 of 200 classes; they count from 0")
    for file in (train, test):
        write(file, file.read_text().replace(" 200", " 197"))
    answer(load, f"{train}, line 3", "label 197, but that is the one of", WNIDS[0], f"{train}, line 1")


def test_labels_of_a_yaml_list_are_used(renditions, places, tmp_path):
    for part, index in (("train", 0), ("test", 1)):
        names = [f"data/imagenet-r/{wnid}/{wnid}_{index}.jpg" for wnid in WNIDS[:200]]
        targets = list(range(199, -1, -1))
        (tmp_path / f"{part}.yaml").write_text(yaml.safe_dump({"data": names, "targets": targets}))
    lists = {f"{part}_list": str(tmp_path / f"{part}.yaml") for part in ("train", "test")}
    assert dataset_of("seq-imr", **lists).load(places, True)[1].tolist() == targets
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"data": names, "targets": list(range(200))}))
    answer(lambda: dataset_of("seq-imr", **lists).survey(places), "test.yaml, entry 1: ", "has label 0, but 199 is")


@pytest.mark.parametrize("form", ["plain", "yaml"])
def test_lists_of_the_authors(form, renditions, places, tmp_path):
    train = [f"{wnid}/{wnid}_{index}.jpg" for index in (3, 0) for wnid in reversed(WNIDS[:200])]
    test = [f"{wnid}/{wnid}_1.jpg" for wnid in WNIDS[:200]]
    files = []
    for part, names in (("train", train), ("test", test)):
        if form == "yaml":
            file = tmp_path / f"imagenet-r_{part}.yaml"
            paths = [f"data/imagenet-r/{name}" for name in names]
            file.write_text(yaml.safe_dump({"data": paths}))
        else:
            file = tmp_path / f"{part}.txt"
            file.write_text("".join(f"/home/x/{name}\n" for name in names) + "\n")
        files.append(str(file))
    for train_part, names, indices in ((True, train, [3] * 200 + [0] * 200), (False, test, [1] * 200)):
        dataset = dataset_of("seq-imr", train_list=files[0], test_list=files[1])
        images, labels = dataset.load(places, train_part)
        assert labels.tolist() == [WNIDS.index(name.partition("/")[0]) for name in names]
        assert told(images) == (labels.tolist(), indices)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("list.txt", "", "holds no paths of images"),
        ("list.txt", "image.jpg\n", "image.jpg is no path of the form class/file"),
        ("list.txt", "../image.jpg\n", "../image.jpg is no path of the form class/file"),
        ("list.txt", "/image.jpg\n", "/image.jpg is no path of the form class/file"),
        ("list.txt", b"\xff\xfe\x00", "cannot be read as a list"),
        ("list.yaml", "targets: [1]\n", "holds no list under the key 'data'"),
        ("list.yaml", "[1, 2", "holds no list under the key 'data'"),
        ("list.yaml", "data: 5\n", "holds no paths of images"),
        ("list.yaml", "data: [1, 2]\n", "holds no paths of images"),
        ("list.yaml", "data: !!python/object/apply:os.system ['true']\n", "holds no list under the key 'data'"),
        ("list.yaml", "data: [a/1.jpg]\ntargets: [0, 1]\n", "'targets' holds no label for each of the 1 paths"),
        ("list.yaml", "data: [a/1.jpg]\ntargets: [x]\n", "'targets' holds no label for each of the 1 paths"),
        ("list.txt", "n01443537/n01443537_0.jpg\n", "name 1 classes, seq-imr has 200"),
        ("missing.txt", None, "cannot be read as a list"),
    ],
)
def test_bad_lists(name, content, reason, renditions, places, tmp_path):
    file = tmp_path / name
    if content is not None:
        write(file, content)
    dataset = dataset_of("seq-imr", train_list=str(file), test_list=str(file))
    answer(lambda: dataset.load(places, True), file, reason)


def test_lists_with_a_mark_of_their_byte_order(tmp_path):
    """As Windows' editors write them; the ending of YAML in any case."""
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 2)
    write(tmp_path / "train.txt", "\ufeffcat/cat_0.png 1\ndog/dog_0.png 0\n")
    write(tmp_path / "test.YAML", "\ufeffdata: [cat/cat_1.png, dog/dog_1.png]\ntargets: [1, 0]\n")
    lists = {"train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "test.YAML")}
    found = survey_of(data, tmp_path, **lists)
    assert (found.counts, found.class_names) == ((2, 2), ["dog", "cat"])


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 2)
    write(tmp_path / "train.txt", "cat/cat_0.png\n")
    write(tmp_path / "test.txt", "cat/cat_1.png\ndog/dog_0.png\n")
    lists = {"train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "test.txt")}
    answer(lambda: survey_of(data, tmp_path, **lists), "test.txt, line 2: class dog has no training image in", "train.")


def test_lists_that_cannot_be_used(renditions, places, tmp_path, made, monkeypatch):
    file = tmp_path / "list.txt"
    write(file, "".join(f"{wnid}/{wnid}_0.jpg\n" for wnid in WNIDS[:200]))
    for lists in ({"train_list": str(file)}, {"test_list": str(file)}):
        answer(lambda: dataset_of("seq-imr", **lists).load(places, True), "give both or none")  # noqa: B023
    both = {"train_list": str(file), "test_list": str(file)}
    with official(monkeypatch, CASES["seq-mnist"], made("seq-mnist")):
        answer(lambda: dataset_of("seq-mnist", download=True, **both).load(places, True), "seq-mnist takes none")
    answer(lambda: dataset_of("seq-imr", **both).load(places, True), "both name", "_0.jpg (200 images in all)")
    write(tmp_path / "test.txt", file.read_text().replace("_0.jpg", "_1.jpg"))
    write(file, file.read_text().replace(f"{WNIDS[9]}_0", f"{WNIDS[9]}_7"))
    apart = {"train_list": str(file), "test_list": str(tmp_path / "test.txt")}
    answer(lambda: dataset_of("seq-imr", **apart).load(places, True), f"{WNIDS[9]}/{WNIDS[9]}_7.jpg (", "No such file")


# Your own folders


def own(folder: Path, names: list[str], count: int, first: int = 0) -> None:
    classes_below(folder, names, count, ".png", "PNG", first)


def folder_of(data: Path, tmp_path: Path, **options):
    """Both parts of seq-folder."""
    dataset = dataset_of("seq-folder", **options)
    places = Places(data, tmp_path / "cache", SIZE)
    return dataset, [dataset.load(places, train) for train in (True, False)]


def survey_of(data: Path, tmp_path: Path, *further: Path, **options):
    """What is found of both parts; `further`: folders of the run, beside its cache."""
    return dataset_of("seq-folder", **options).survey(Places(data, tmp_path / "cache", SIZE, further))


@pytest.mark.parametrize(
    "training, testing, others",
    [
        ("Train", "Test", ["val"]),
        ("TRAINING", "validation", []),
        ("training", "Testing", ["valid", "Val"]),
        ("train", "VALID", ["validation"]),
    ],
)
def test_parts_of_own_images_by_their_usual_names(training, testing, others, tmp_path):
    data = tmp_path / "own"
    own(data / training, ["cat", "dog"], 3)
    own(data / testing, ["cat", "dog"], 1, first=3)
    for name in others:
        own(data / name, ["cat"], 1)
    survey = survey_of(data, tmp_path)
    assert (survey.counts, survey.class_names) == ((6, 2), ["cat", "dog"])
    assert all(any(f"{data / name} is not looked at" in note for note in survey.notes) for name in others)
    _, parts = folder_of(data, tmp_path)
    assert [told(images)[1] for images, _ in parts] == [[0, 1, 2] * 2, [3, 3]]


@pytest.mark.parametrize(
    "folders, reasons",
    [
        (["train/cat", "Train/cat", "test/cat"], ["holds Train and train"]),
        (["train/cat", "training/cat", "test/cat"], ["holds train and training"]),
        (["train/cat", "test/cat", "Test/cat"], ["holds Test and test"]),
        (["train/cat", "test/cat", "emu"], ["holds emu with images beside train and test"]),
        (["train/cat", "emu"], ["holds train, but no folder test"]),
        (["test/cat", "val/cat"], ["holds test, but no folder train"]),
        (["top/cat", "top/dog"], ["top: no class", "(top/cat/", "give {data}/top instead"]),
        (
            ["top", "top/images/cat", "top/images/dog"],
            ["top: no class", "(top/images/cat/", "{data}/top/images instead"],
        ),
        (["train_set/cat", "test_set/cat"], ["test_set: no class", "train or training, and test, testing, val, valid"]),
        (["a/train/cat", "a/test/cat", "b/train/cat", "b/test/cat"], ["a: no class", "parts are named train or"]),
        (["top/images/cat", "top/images/dog"], ["top: no class", "(top/images/cat/", "give {data}/top/images instead"]),
        (["top/Train/cat", "top/Test/cat"], ["top: no class", "give {data}/top instead"]),
        (["train/top/cat", "test/top/cat"], ["train/top: no class", "(top/cat/"]),
    ],
)
def test_layouts_of_own_images_that_could_mean_anything(folders, reasons, tmp_path):
    data = tmp_path / "own"
    for folder in folders:
        own((data / folder).parent, [Path(folder).name], 2)
    answer(lambda: survey_of(data, tmp_path), data, *(reason.replace("{data}", str(data)) for reason in reasons))


LITTER = [
    *("__MACOSX/._a.png", "cat/__MACOSX/x.png", "System Volume Information/x.png", "$RECYCLE.BIN/a.png", ".git/a.png"),
    *("lost+found/a.png", "@eaDir/a.png", "cat/@eaDir/a.png/thumb.jpg", "cat/.ipynb_checkpoints/cat_0-checkpoint.png"),
    *("#recycle/a.png", "cat/@Recycle/a.png", "dog/more/#snapshot/a.png", "@Recently-Snapshot/cat/a.png"),
    *("RECYCLER/a.png", "cat/FOUND.000/a.png", "__pycache__/a.png", "dog/__pycache__/a.png"),
    *("dog/more/.hidden/a.png", "dog/._dog_0.png", "dog/.a.png", ".ipynb_checkpoints/a.png"),
]


def test_one_class_only_is_asked_about(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat"], 4)
    assert survey_of(data, tmp_path).notes == [f"one class only, cat; is {data} the right folder?"]


def test_what_systems_leave_is_no_data(tmp_path):
    """As images and as anything else, beside classes and in them, at every depth."""
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    expected = survey_of(data, tmp_path)
    for name in LITTER:
        write(data / name, picture(7, 0, "PNG"))
    for name in ("Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini", "dog/.DS_Store"):
        write(data / name, "x")
    for skip_bad in (False, True):
        assert survey_of(data, tmp_path, skip_bad=skip_bad) == expected
    _, parts = folder_of(data, tmp_path)
    assert sorted(told(np.concatenate([images for images, _ in parts]))[0]) == [0, 0, 0, 1, 1, 1]


def test_refusals_for_want_of_images_say_what_was_not_looked_at(tmp_path):
    data = tmp_path / "own"
    for name in ("cat/a.heic", "cat/b.heic", "c.heic"):
        write(data / name, "x")
    said = "files are not looked at: {} .heic"
    answer(lambda: survey_of(data, tmp_path), "1 class folders hold no image (cat)", "3 " + said.format(3))
    answer(lambda: survey_of(data, tmp_path, skip_bad=True), "no image in", "3 " + said.format(3))
    shutil.rmtree(data / "cat")
    answer(lambda: survey_of(data, tmp_path), "holds no class folders", "1 " + said.format(1))


def test_other_files_are_counted(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    for name in ("cat/a.HEIC", "cat/more/b.heic", "cat/c.txt", "README", "a.png"):
        write(data / name, "x")
    assert survey_of(data, tmp_path).notes == [
        "1 images lie beside the class folders and are not looked at",
        "4 files are not looked at: 2 .heic, 1 without ending, 1 .txt",
    ]


@pytest.mark.parametrize("ending, form", [(".jfif", "JPEG"), (".JPE", "JPEG"), (".dib", "DIB"), (".pnm", "PPM")])
def test_every_ending_that_is_read(ending, form, tmp_path):
    data = tmp_path / "own"
    classes_below(data, ["cat", "dog"], 3, ending, form)
    dataset, parts = folder_of(data, tmp_path)
    assert survey_of(data, tmp_path).notes == [] and len(parts[0][1]) + len(parts[1][1]) == 6
    assert told(parts[0][0])[0] == parts[0][1].tolist()


def test_avif_where_pillow_reads_it(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 2)
    if ".avif" not in listing.extensions():
        write(data / "cat" / "a.avif", "x")
        assert survey_of(data, tmp_path).notes == ["1 files are not looked at: 1 .avif"]
        return
    write(data / "cat" / "a.avif", picture(0, 2, "AVIF", (32, 32)))
    assert survey_of(data, tmp_path).counts == (3, 2)
    folder_of(data, tmp_path)


def test_links_multiply_nothing(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog", "emu"], 3)
    expected = survey_of(data, tmp_path)
    links = {
        "loop": ".",
        "cat/up": "..",
        "cat/self": ".",
        "dog/cats": "../cat",
        "dog/more": "../emu",
        "above": "..",
        "z": "cat",
    }
    for name, target in links.items():
        (data / name).symlink_to(target)
    found = survey_of(data, tmp_path)
    assert (found.counts, found.class_names) == (expected.counts, expected.class_names)
    assert all(any(f"{data / name} leads to" in note for note in found.notes) for name in links)
    own(tmp_path / "store", ["fox", "gnu"], 2)
    (tmp_path / "store" / "fox" / "loop").symlink_to(tmp_path / "store")
    (data / "fox").symlink_to(tmp_path / "store" / "fox")  # elsewhere: a class as any other
    (data / "fox2").symlink_to(tmp_path / "store" / "fox")
    found = survey_of(data, tmp_path)
    assert found.class_names == ["cat", "dog", "emu", "fox"] and sum(found.counts) == 11 + 2


def test_links_between_the_parts(tmp_path):
    """Refused where they make training images test images; a part itself may be a link, and nothing false is said."""
    data = tmp_path / "own"
    own(data / "train", ["cat", "dog"], 3)
    links = [("test", "train"), ("test/cat", "../train/cat"), ("test/dog/more", "../../train/dog")]
    for name, target in links:
        if name != "test":
            own(data / "test", ["dog"], 4)
        (data / name).symlink_to(target)
        answer(lambda: survey_of(data, tmp_path), data / "test", "is the same folder as", data / "train")
        (data / name).unlink()
    own(data / "val", ["cat", "dog"], 1)
    shutil.rmtree(data / "test")
    (data / "test").symlink_to("val")
    (data / "training").symlink_to("train")
    found = survey_of(data, tmp_path)
    assert (found.counts, found.notes) == ((6, 2), [])
    (data / "again").symlink_to("val/cat")
    assert ["again" in note for note in survey_of(data, tmp_path).notes] == [True]


def test_links_into_a_hidden_store(tmp_path):
    data = tmp_path / "own"
    own(data / ".store", ["cat", "dog"], 2)
    for name in ("cat", "dog"):
        (data / name).symlink_to(f".store/{name}")
    assert survey_of(data, tmp_path).class_names == ["cat", "dog"]


def test_folders_of_runs_are_no_classes(tmp_path):
    """Those of this run wherever they are, and those of runs before, by what is in them."""
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    expected = survey_of(data, tmp_path)
    mine = [data / name for name in ("data", "kept", "cat/results")]
    for folder in mine:
        write(folder / "x" / "stream.png", picture(5, 0, "PNG"))
        write(folder / "curve.png", picture(5, 0, "PNG"))
    found = survey_of(data, tmp_path, *mine)
    assert found.counts == expected.counts and found.class_names == ["cat", "dog"] and len(found.notes) == 3
    for folder in mine:
        shutil.rmtree(folder)
    for name in ("runs/seq-folder/er/20250101-000000-seed1", "old/er/20250101-000000-seed1"):
        write(data / name / "config.yaml", "run: {}")
        write(data / name / "stream.png", picture(5, 0, "PNG"))
    write(data / "checkpoints" / "vit" / "mepo_cov-x" / "manifest.json", "{}")
    write(data / "cache" / "decoded" / "x.npy", "x")
    write(data / "venv" / "pyvenv.cfg", "")
    write(data / "venv" / "lib" / "logo.png", picture(5, 0, "PNG"))
    for skip_bad in (False, True):
        found = survey_of(data, tmp_path, skip_bad=skip_bad)
        assert found.counts == expected.counts and found.class_names == ["cat", "dog"] and len(found.notes) == 5


@pytest.mark.parametrize("results", ["runs/exp1", "runs/exp2", "out/deep/er", "cat/kept/er"])
def test_nested_folders_of_runs_are_no_classes(results, tmp_path):
    """Of this run, which may not be made yet, of runs before beside it, and what the report made of them."""
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    expected = survey_of(data, tmp_path)
    (data / results).parent.mkdir(parents=True)
    assert survey_of(data, tmp_path, data / results).counts == expected.counts
    for name in ("runs/exp1", "runs/a/b/c/exp3", "cat/kept/er", results):
        for file in ("config.yaml", "stream.csv", "stream.png", "curves/a.png"):
            write(data / name / "seq-folder" / "er" / "20250101-000000-seed1" / file, picture(5, 0, "PNG"))
    for name in ("table.md", "table.tex", "seeds.csv", "curves.png"):
        write(data / "tables" / name, picture(5, 0, "PNG"))
    for further in ((data / results,), ()):
        found = survey_of(data, tmp_path, *further)
        assert (found.counts, found.class_names) == (expected.counts, expected.class_names)
        assert any(f"{data / 'runs'} is left out" in note for note in found.notes)
        assert any(f"{data / 'tables'} is left out" in note for note in found.notes)


def test_classes_that_hold_a_file_as_runs_do_are_classes(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    for name in ("cat/config.yaml", "cat/manifest.json", "dog/table.md"):
        write(data / name, "x")
    assert survey_of(data, tmp_path).class_names == ["cat", "dog"]


def test_empty_classes_are_none_where_they_are_left_out(tmp_path, capsys):
    data = tmp_path / "own"
    own(data, ["ant", "cat", "dog", "emu"], 4)
    expected = folder_of(data, tmp_path)[1]
    for name in ("aaa", "cow", "zzz"):
        (data / name).mkdir()
    answer(lambda: survey_of(data, tmp_path), data, "3 class folders hold no image (aaa, cow, zzz)", "--skip_bad")
    assert survey_of(data, tmp_path, skip_bad=True).class_names == ["ant", "cat", "dog", "emu"]
    dataset, parts = folder_of(data, tmp_path, skip_bad=True)
    assert dataset.num_classes == 4
    for (images, labels), (other, others) in zip(parts, expected):
        assert np.array_equal(images, other) and labels.tolist() == others.tolist()
    for file in (data / "cat").iterdir():
        write(file, "no image")
    answer(lambda: folder_of(data, tmp_path, skip_bad=True), "no image of class cat can be read", "remove")
    for file in data.glob("*/*"):
        file.unlink()
    answer(lambda: survey_of(data, tmp_path, skip_bad=True), "seq-folder train: no image in", data)


def test_images_that_arrive_meanwhile_are_in_one_part_at_most(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 8)
    dataset, places = dataset_of("seq-folder"), Places(data, tmp_path / "cache", SIZE)
    parts = [dataset.load(places, True)]
    own(data, ["ant", "cat"], 12)
    parts.append(dataset.load(places, False))
    assert [len(labels) for _, labels in parts] == [12, 4] and dataset.num_classes == 2
    assert not {*dataset.part(data, places, True)[0]} & {*dataset.part(data, places, False)[0]}


def test_digests_of_own_images(tmp_path, monkeypatch):
    """What the images are and which class they belong to, never where they lie."""
    data, cache = tmp_path / "own", tmp_path / "cache"
    own(data, ["cat", "dog"], 5)

    def digests(folder: Path, **options) -> list[str | None]:
        dataset = dataset_of("seq-folder", **options)
        return [dataset.digest(Places(folder, cache, SIZE), train) for train in (True, False)]

    assert digests(tmp_path / "nowhere") == [None, None]
    with monkeypatch.context() as patch:
        patch.setattr("utils.data.decode.decode", lambda *_: pytest.fail("decoded"))
        before = digests(data)
    assert len({*before, None}) == 3 and all(len(digest) == 64 for digest in before)
    folder_of(data, tmp_path)
    assert digests(data) == before
    shutil.copytree(data, tmp_path / "moved")
    assert digests(tmp_path / "moved") == before
    assert digests(data, split_seed=1) != before
    os.rename(data / "dog", data / "ant")  # other labels of the same images
    assert digests(data) != before
    os.rename(data / "ant", data / "dog")
    write(data / "dog" / "dog_3.png", picture(3, 3, "PNG"))
    assert digests(data) != before


@pytest.mark.parametrize("name", ["seq-digits", "seq-glyphs-dev"])
def test_digests_of_what_needs_no_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.drawing.renditions.synthesise", lambda *_: np.zeros((1000, 3, 32, 32), np.uint8))
    monkeypatch.setattr("datasets.drawing.characters.characters", lambda _: "a" * 1000)
    dataset, places = DATASETS.load(name)(), Places(tmp_path, tmp_path, SIZE)
    if name != "seq-digits":
        assert dataset.digest(places, False) is None and not [*tmp_path.iterdir()]  # not drawn for it
        dataset.load(places, False)
    digest = dataset.digest(places, False)
    assert len(digest) == 64 and digest == DATASETS.load(name)().digest(places, False)
    assert dataset.survey(places).counts == dataset.counts


def test_the_limit_of_pixels_can_be_lifted(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 3)
    write(data / "cat" / "large.png", picture(0, 3, "PNG", (40, 30)))
    answer(lambda: folder_of(data, tmp_path, max_pixels=1199), "large.png (40x30 pixels, --max_pixels is 1199")
    _, parts = folder_of(data, tmp_path, max_pixels=1199, skip_bad=True)
    assert sum(len(labels) for _, labels in parts) == 6
    _, parts = folder_of(data, tmp_path, max_pixels=1200, skip_bad=True)
    assert sum(len(labels) for _, labels in parts) == 7


@pytest.mark.parametrize("held", ["test", "val"])
def test_own_images_in_two_parts(held, tmp_path):
    data = tmp_path / "own"
    own(data / "train", ["cat", "dog", "emu"], 3)
    own(data / held, ["cat", "dog", "emu"], 1, first=3)
    shutil.rmtree(data / held / "dog")
    dataset, parts = folder_of(data, tmp_path)
    assert dataset.num_classes == 3
    assert (
        told(parts[0][0]) == (parts[0][1].tolist(), [0, 1, 2] * 3)
        and parts[0][1].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    )
    assert told(parts[1][0]) == (parts[1][1].tolist(), [3, 3]) and parts[1][1].tolist() == [0, 2]
    own(data / held, ["fox"], 1)
    answer(lambda: folder_of(data, tmp_path), data / held, "class fox is not one of the 3 known ones")


def test_own_images_in_one_tree(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 4)
    own(data, ["emu"], 1)
    os.rename(data / "emu", data / "zebra")
    write(data / "zebra" / "emu_0.png", picture(2, 0, "PNG"))
    write(data / "notes.txt", "mine")
    dataset, parts = folder_of(data, tmp_path, test_share=0.25)
    assert dataset.num_classes == 3
    assert [np.bincount(labels, minlength=3).tolist() for _, labels in parts] == [[3, 3, 1], [1, 1, 0]]
    for images, labels in parts:
        assert told(images)[0] == labels.tolist()
    shown = [set(zip(*told(images))) for images, _ in parts]
    assert not shown[0] & shown[1] and len(shown[0] | shown[1]) == 9
    draws = [folder_of(data, tmp_path, test_share=0.25, split_seed=seed)[1][1] for seed in (0, *range(1, 6))]
    assert np.array_equal(draws[0][0], parts[1][0])
    assert len({tuple(told(images)[1]) for images, _ in draws}) > 1


def test_class_names_of_own_images_may_have_spaces_and_any_script(tmp_path):
    data = tmp_path / "own"
    own(data, ["großer Hund", "大きな犬", "a b"], 2)
    names = sorted(["großer Hund", "大きな犬", "a b"])
    _, parts = folder_of(data, tmp_path)
    expected = [["großer Hund", "大きな犬", "a b"].index(name) for name in names]
    assert told(parts[0][0])[0] == expected and parts[0][1].tolist() == [0, 1, 2]
    write(tmp_path / "train.txt", "".join(f"{name}/{name}_0.png\n" for name in names))
    write(tmp_path / "test.txt", "".join(f"{name}/{name}_1.png\n" for name in names))
    lists = {"train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "test.txt")}
    dataset, parts = folder_of(data, tmp_path, **lists)
    assert dataset.num_classes == 3 and told(parts[1][0]) == (expected, [1, 1, 1])
    dataset.inspect(Places(data, tmp_path, SIZE))
    assert dataset.counts == (3, 3)


def test_own_images_that_are_not_there(tmp_path, capsys):
    data = tmp_path / "own"
    answer(lambda: folder_of(data, tmp_path), data, "no such folder")
    data.mkdir()
    answer(lambda: folder_of(data, tmp_path), data, "holds no class folders")
    own(data / "train", ["cat"], 1)
    answer(
        lambda: folder_of(data, tmp_path), data, "holds train, but no folder test, testing, val, valid or validation"
    )
    own(data / "test", ["cat"], 1)
    (data / "train" / "dog").mkdir()
    answer(lambda: folder_of(data, tmp_path), data / "train", "1 class folders hold no image (dog)", "--skip_bad")
    dataset, parts = folder_of(data, tmp_path, skip_bad=True)
    assert "1 class folders hold no image (dog); left out" in capsys.readouterr().err
    assert dataset.num_classes == 1 and parts[0][1].tolist() == parts[1][1].tolist() == [0]
    shutil.rmtree(data)
    own(data, ["cat", "dog"], 1)  # nothing is left for testing
    answer(lambda: folder_of(data, tmp_path), "seq-folder test: no image in", data)


def test_images_that_cannot_be_read_are_said_once(tmp_path, capsys):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 4)
    write(data / "cat" / "bad.png", "no image")
    dataset, places = dataset_of("seq-folder", skip_bad=True), Places(data, tmp_path / "cache", SIZE)
    assert dataset.survey(places).counts == (6, 2)
    assert [len(dataset.load(places, train)[1]) for train in (True, False)] == [6, 2]
    assert capsys.readouterr().err.count("images cannot be read") == 1


def test_labels_fit_where_bad_images_are_left_out(tmp_path, capsys):
    data = tmp_path / "own"
    own(data / "train", ["cat", "dog", "emu"], 4)
    own(data / "test", ["cat", "dog", "emu"], 1)
    for name in ("cat/cat_0", "dog/dog_2", "dog/dog_3", "emu/emu_3"):
        write(data / "train" / f"{name}.png", "no image")
    answer(
        lambda: folder_of(data, tmp_path),
        "seq-folder train: 4 images cannot be read: train/cat/cat_0.png (",
        "--skip_bad",
    )
    _, parts = folder_of(data, tmp_path, skip_bad=True)
    assert parts[0][1].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert told(parts[0][0]) == (parts[0][1].tolist(), [1, 2, 3, 0, 1, 0, 1, 2])
    warned = capsys.readouterr().err
    (listed,) = (tmp_path / "cache").rglob("*.bad.json")
    assert "seq-folder train: 4 images cannot be read" in warned and str(listed) in warned
    assert [name for _, name, _ in json.loads(listed.read_text())][-1] == "train/emu/emu_3.png"
    answer(lambda: folder_of(data, tmp_path), "4 images cannot be read", "--skip_bad")  # the cache does not hide it


def test_the_cache_is_not_kept_among_the_classes(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 2)
    dataset = dataset_of("seq-folder")
    answer(lambda: dataset.load(Places(data, data, SIZE), True), f"--cache_dir {data}", "another folder")
    assert sorted(path.name for path in data.iterdir()) == ["cat", "dog"]
    data = tmp_path / "other"
    own(data / "train", ["cat", "dog"], 2)
    own(data / "test", ["cat", "dog"], 2)
    for train in (True, False):
        assert dataset.load(Places(data, data, SIZE), train)[1].tolist() == [0, 0, 1, 1]


def test_own_images_below_deeper_folders_and_other_files(tmp_path):
    data = tmp_path / "own"
    own(data, ["cat", "dog"], 2)
    write(data / "cat" / "more" / "x.PNG", picture(0, 2, "PNG"))
    write(data / "cat" / "notes.txt", "mine")
    write(data / ".git" / "x.png", picture(0, 3, "PNG"))
    dataset = dataset_of("seq-folder", test_share=0.0)
    images, labels = dataset.load(Places(data, tmp_path / "cache", SIZE), True)
    assert told(images) == ([0, 0, 0, 1, 1], [0, 1, 2, 0, 1]) and labels.tolist() == [0, 0, 0, 1, 1]
    shutil.rmtree(data / ".git")
    assert [str(path) for path in listing.class_folders(data).paths] == [path for path, _ in ImageFolder(data).samples]


def test_a_run_among_its_own_images(tmp_path, glyph_weights, monkeypatch, capsys):
    """`--data_dir .` twice, with all that the run writes beside the classes: the same classes, in the order asked for;
    what was found is said, and which label is which class."""
    data = tmp_path / "own"
    own(data, ["a, b", "cat", "dog"], 6)
    monkeypatch.chdir(data)
    write(data / "order.txt", "dog\ncat\na, b\n")
    words = ["--model", "er", "--dataset", "seq-folder", "--data_dir", ".", "--device", "cpu", "--n_tasks", "3"]
    words += ["--scenario", "class-il", "--class_order", "order.txt", "--eval_period", "-1", "--online_iter", "1"]
    words += ["--backbone_path", str(glyph_weights)]
    for _ in range(2):
        assert main.main(words) == 0
        said = capsys.readouterr()
        folder = Path(said.out.splitlines()[-1])
        assert "seq-folder: 3 classes, 12 training and 6 test images; classes a, b, cat, dog\n" in said.err
        table = pd.read_csv(folder / "per_class.csv")
        assert table[table["task"] == 2][["label", "name"]].values.tolist() == [[2, "dog"], [1, "cat"], [0, "a, b"]]
    assert "data is left out" in said.err and "runs is left out" in said.err
    write(data / "order.txt", "dog\ncat\n")
    assert main.main(words) == 2
    assert "order.txt: names 2 of 3 classes" in capsys.readouterr().err
    assert main.main([*words, "--scenario", "si-blurry"]) == 2
    assert capsys.readouterr().err == (
        "error: --class_order order.txt: only streams of whole tasks take it (--scenario class-il, task-il, "
        "domain-il), and this one is si-blurry\n"
    )


def test_mepo_on_own_images(tmp_path, glyph_weights):
    """The command of the README, with a stand-in covariance and without the meta stage."""
    data = tmp_path / "own"
    random = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog", "emu")):
        for index in range(20):
            size = tuple(random.integers(20, 50, 2).tolist())
            write(data / name / f"{index}.png", picture(label * 45, index % 4, "PNG", size))
    np.save(tmp_path / "covariance.npy", random_covariance(128))
    words = ["--model", "mepo", "--dataset", "seq-folder", "--data_dir", data, "--host", "dualprompt"]
    words += ["--meta_path", "none", "--cor_path", tmp_path / "covariance.npy", "--cache_dir", tmp_path / "cache"]
    words += ["--results", tmp_path / "runs", "--device", "cpu", "--backbone_path", glyph_weights, "--n_tasks", 2]
    words += ["--eval_period", -1, "--checkpoint_dir", tmp_path / "products"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "main.py", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((Path(done.stdout.splitlines()[-1]) / "summary.json").read_text())
    assert summary["label"] == "mepo (dualprompt)" and summary["samples"] == 48
    assert len(list((tmp_path / "cache" / "decoded").glob("*.npy"))) == 2
    assert sorted(path.name for path in data.iterdir()) == ["cat", "dog", "emu"]  # nothing is written there
