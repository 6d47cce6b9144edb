"""The public datasets as people get them: fetched, checked, unpacked, listed, decoded once and learnt from, or refused
by one clear line. Archives are miniatures of the true ones, served on loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import random_split
from torchvision.datasets import CIFAR10, MNIST, ImageFolder

import main
from datasets.base import Places
from tests.miniatures import (
    CASES,
    SIZE,
    STYLES,
    WNIDS,
    Case,
    Gadget,
    answer,
    cifar_rows,
    classes_below,
    dataset_of,
    idx,
    nobody,
    official,
    picture,
    python2_pickle,
    shown,
    told,
    write,
)
from tests.tiny import CPU, tiny_vit, weights_of
from utils import plan as plans
from utils.contracts import StreamInfo
from utils.data import decode as decoding
from utils.data.augment import crop_and_flip
from utils.data.images import Transform, image_set
from utils.data.splits import authors_split
from utils.errors import UsageError
from utils.files.pickles import read_arrays
from utils.registry import DATASETS, METHODS
from utils.streams.base import TaskList
from utils.training.loop import Trainer

BROKEN = [name for name in CASES if name not in ("perm-mnist", "rot-mnist", "seq-cub200", "seq-gtsrb")]


def files_below(folder: Path) -> list[str]:
    """All files but the locks."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name
    )


# Every dataset that is fetched


@pytest.mark.parametrize("name", CASES)
def test_missing_data_are_answered_in_a_few_lines(name, places):
    with pytest.raises(UsageError) as info:
        dataset_of(name).load(places, train=True)
    lines = str(info.value).splitlines()
    kind = DATASETS.load(CASES[name].name)
    assert len(lines) == 3
    assert all(str(places.data / folder) in lines[0] for folder in kind.folders) and str(places.data) in lines[0]
    assert CASES[name].name in lines[0] and dataset_of(name).markers[0][0] in lines[0]
    assert kind.address in lines[1]
    assert "--download" in lines[2] and "--data_dir" in lines[2]
    assert not places.data.exists() and not places.cache.exists()


@pytest.mark.parametrize("name", CASES)
def test_fetched_loaded_and_learnt_from(name, made, places, monkeypatch, capsys):
    case = CASES[name]
    with official(monkeypatch, case, made(name)) as server:
        dataset = dataset_of(name, download=True)
        parts = [dataset.load(places, train) for train in (True, False)]
        assert sorted(server.asked) == sorted(made(name))  # each archive once
    warned = capsys.readouterr().err
    for (images, labels), count, published in zip(parts, case.parts, dataset.counts):
        assert images.shape == (count, 3, *images.shape[2:]) and images.shape[2] == images.shape[3]
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert set(labels.tolist()) <= set(range(case.classes))
        # The split of ImageNet-R is drawn here and rounds per class.
        assert f"{count:,}" in warned and f"{published:,}" in warned
        if "mnist" in name:
            assert images[:, 0, 10, 12].tolist() == (20 + 25 * labels).tolist()
        else:
            assert told(images)[0] == labels.tolist()
    assert dataset.num_classes == case.classes
    assert {label for _, labels in parts for label in labels.tolist()} == set(range(case.classes))

    # Nothing is fetched or decoded again.
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
    files = files_below(places.data)
    for first, train in zip(parts, (True, False)):
        again = dataset_of(name, download=True).load(places, train)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(first, again))
    assert files_below(places.data) == files
    two_steps(case, dataset, parts[0])


def two_steps(case: Case, dataset, part) -> None:
    """Two batches of a stream, learnt by experience replay on the tiny network."""
    words = {"model": "er", "dataset": case.name, "n_tasks": 2, "backbone": "vit_tiny_glyphs"}
    plan = plans.make(words).with_seed(1)
    images = image_set(dataset, plan.run, part, CPU, None)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:16]
    stream = TaskList([rows], [list(range(case.classes))], case.classes, 8)
    stream.num_domains = 2 if dataset.max_domains else 1
    transform = Transform(dataset, CPU, 1, SIZE)
    info = StreamInfo(case.classes, 1, 16, 2, SIZE, 1, transform.train, transform.test)
    model = METHODS.load("er")(tiny_vit().requires_grad_(False), info, plan.method_args)
    model.optimizer = model.configure_optimizer()
    before = weights_of(model)
    trainer = Trainer(model, stream, images, transform, None, 1, -1)
    trainer.train()
    assert trainer.images_met == 16 and np.isfinite(trainer.history.rows[-1]["loss"])
    met = {label % case.classes for label in images.labels[rows].tolist()}
    assert len(trainer.seen) == len(met)
    assert not torch.equal(before["head.weight"], model.state_dict()["head.weight"])


def test_the_command_fetches_and_runs_twice(made, tmp_path, glyph_weights, monkeypatch, capsys):
    places = {"data_dir": "data", "cache_dir": "cache", "results": "runs", "checkpoint_dir": "products"}
    words = ["--model", "er", "--dataset", "seq-cifar100", "--device", "cpu", "--n_tasks", "1", "--eval_period", "-1"]
    words += ["--backbone", "vit_tiny_glyphs", "--backbone_path", str(glyph_weights), "--online_iter", "1"]
    words += ["--batch_size", "100"]
    words += [word for option, folder in places.items() for word in (f"--{option}", str(tmp_path / folder))]
    assert main.main(words) == 2
    assert capsys.readouterr().err.startswith("error: seq-cifar100 is not there: looked for ")
    assert not (tmp_path / "runs").exists()
    with official(monkeypatch, CASES["seq-cifar100"], made("seq-cifar100")) as server:
        assert main.main([*words, "--download"]) == 0
        assert server.asked == ["cifar-100-python.tar.gz"]
    assert main.main(words) == 0
    first, second = (Path(line) for line in capsys.readouterr().out.splitlines())
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (first, second)]
    assert [summary["samples"] for summary in summaries] == [200, 200]
    assert summaries[0]["A_last"] == summaries[1]["A_last"]
    assert yaml.safe_load((first / "config.yaml").read_text())["data"]["download"] is True


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_checksum(name, made, places, monkeypatch):
    case, files = CASES[name], made(name)
    last = DATASETS.load(case.name).downloads[-1].name
    with official(monkeypatch, case, files) as server:
        server.files[last] = server.files[last][: len(server.files[last]) // 2]
        download = DATASETS.load(case.name).downloads[-1]
        answer(lambda: dataset_of(name, download=True).load(places, True), download.url, download.digest[4:], "md5")
    kept = files_below(places.data)
    assert not [file for file in kept if last in file or "unpacking" in file]
    assert not places.cache.exists()


@pytest.mark.parametrize("name", BROKEN)
def test_a_truncated_archive_whose_sum_is_not_known(name, made, places, monkeypatch):
    case, files = CASES[name], made(name)
    archive = DATASETS.load(case.name).downloads[-1].name
    files[archive] = files[archive][: len(files[archive]) * 2 // 3]
    with official(monkeypatch, case, files, checked=False):
        if archive.endswith(("zip", "tar", "gz", "tgz")) and "ubyte" not in archive:
            answer(lambda: dataset_of(name, download=True).load(places, True), archive, "truncated or damaged")
            target = archive.partition(".")[0]
            assert not [file for file in files_below(places.data) if f"{target}/" in file or "unpacking" in file]
        else:  # files of MNIST are read as they are
            dataset_of(name, download=True).load(places, True)
            answer(lambda: dataset_of(name).load(places, False), archive, "cannot be read", "delete it")
    assert [file for file in files_below(places.data) if file.endswith(archive)]


def with_member(content: bytes, archive: str, member: str, folder: Path) -> bytes:
    """The archive with another file in it."""
    (folder / archive).write_bytes(content)
    if archive.endswith(".zip"):
        with zipfile.ZipFile(folder / archive, "a") as file:
            file.writestr(zipfile.ZipInfo(member), "evil")
    else:
        packed = archive.endswith("gz")
        plain = folder / "plain.tar"
        plain.write_bytes(gzip.decompress(content) if packed else content)
        with tarfile.open(plain, "a") as file:
            file.addfile(tarfile.TarInfo(member))
        (folder / archive).write_bytes(gzip.compress(plain.read_bytes()) if packed else plain.read_bytes())
    return (folder / archive).read_bytes()


@pytest.mark.parametrize("member", ["../../evil", "/tmp/evil-miniature"])
@pytest.mark.parametrize("name", [name for name in BROKEN if "mnist" not in name])
def test_a_path_that_leaves_the_folder(name, member, made, places, tmp_path_factory, monkeypatch):
    case, files = CASES[name], made(name)
    archive = DATASETS.load(case.name).downloads[0].name
    files[archive] = with_member(files[archive], archive, member, tmp_path_factory.mktemp("evil"))
    with official(monkeypatch, case, files):
        dataset = dataset_of(name, download=True)
        answer(lambda: dataset.load(places, True), archive, member, "would land outside of its folder", "delete it")
    assert [Path(file).name for file in files_below(places.data)] == [archive]
    assert not [path for path in (*places.data.parent.rglob("evil"), Path("/tmp/evil-miniature")) if path.exists()]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.missing[0]])
def test_a_missing_file_of_the_dataset(name, made, places, monkeypatch):
    case = CASES[name]
    with official(monkeypatch, case, made(name)):
        dataset_of(name, download=True).load(places, True)
    gone, reason = case.missing
    path = places.data / gone
    for file in path.parent.glob("*") if reason == "hold no image" else [path]:
        file.unlink()
    with pytest.raises(UsageError, match=reason) as info:
        [dataset_of(name).load(places, train) for train in (True, False)]
    assert len(str(info.value).splitlines()) == (3 if reason == "not there" else 1)


def test_an_archive_without_the_dataset(made, places, monkeypatch, tmp_path_factory):
    """An archive that unpacks well but holds something else."""
    files = made("seq-imr") | {"tiny-imagenet-200.zip": made("seq-cub200")["CUB_200_2011.tgz"]}
    with official(monkeypatch, CASES["seq-tinyimg"], files):
        answer(
            lambda: dataset_of("seq-tinyimg", download=True).load(places, True), "tiny-imagenet-200.zip", "truncated"
        )
    folder = tmp_path_factory.mktemp("half")
    write(folder / "tiny-imagenet-200" / "words.txt", "n01443537\tgoldfish\n")
    shutil.make_archive(str(folder / "tiny"), "zip", folder, "tiny-imagenet-200")
    shutil.rmtree(places.data)
    files["tiny-imagenet-200.zip"] = (folder / "tiny.zip").read_bytes()
    with official(monkeypatch, CASES["seq-tinyimg"], files):
        dataset = dataset_of("seq-tinyimg", download=True)
        answer(lambda: dataset.load(places, True), places.data, "tiny-imagenet-200", "not what was expected")


@pytest.mark.parametrize("closed", ["", "Cubism", "Cubism/deeper"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_unreadable_folder_is_named(closed, skip_bad):
    with nobody() as folder:
        classes_below(folder / "wikiart", ["Cubism", "Ukiyo_e"], 2)
        write(folder / "wikiart" / "Cubism" / "deeper" / "x.jpg", picture(0, 0, "JPEG"))
        (folder / "wikiart" / closed).chmod(0o300)
        dataset = dataset_of("seq-wikiart", skip_bad=skip_bad)
        places = Places(folder, folder / "cache", SIZE)
        answer(lambda: dataset.load(places, True), folder / "wikiart" / closed, "cannot be listed", "Permission")


def test_a_dataset_of_too_many_and_of_too_few_classes(places, capsys):
    root = places.data / "wikiart"
    classes_below(root, STYLES[:-1], 2)
    write(root / STYLES[-1] / "a.jpg", picture(26, 0, "JPEG"))
    dataset_of("seq-wikiart").load(places, True)
    assert "class folders" not in capsys.readouterr().err
    shutil.rmtree(root / STYLES[0])
    dataset_of("seq-wikiart").load(places, True)
    assert "seq-wikiart has 26 class folders in" in (warned := capsys.readouterr().err) and "published: 27" in warned
    classes_below(root, ["A", "B"], 1)
    answer(lambda: dataset_of("seq-wikiart").load(places, True), root, "28 folders", "27 classes")


# Formats


def test_cifar_reads_as_torchvision_does(made, tmp_path, monkeypatch, places):
    with official(monkeypatch, CASES["seq-cifar10"], made("seq-cifar10")):
        images, labels = dataset_of("seq-cifar10", download=True).load(places, True)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = CIFAR10(places.data / "CIFAR", train=True)
    assert np.array_equal(images, theirs.data.transpose(0, 3, 1, 2)) and labels.tolist() == theirs.targets


def test_cifar_without_autoaugment_is_cropped_and_flipped():
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, usual = (dataset_of("seq-cifar10", autoaugment=whether) for whether in (False, True))
    draws = [torch.Generator().manual_seed(1) for _ in range(3)]
    expected = crop_and_flip(images, 4, draws[0])
    assert torch.equal(plain.augment(images, draws[1]), expected)
    assert not torch.equal(usual.augment(images, draws[2]), expected)


def test_mnist_reads_as_torchvision_does(made, monkeypatch, places):
    with official(monkeypatch, CASES["seq-mnist"], made("seq-mnist")):
        images, labels = dataset_of("seq-mnist", download=True).load(places, True)
    raw = places.data / "MNIST" / "raw"
    for file in list(raw.glob("*.gz")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
    theirs = MNIST(places.data, train=True)
    assert np.array_equal(images, np.repeat(theirs.data.numpy()[:, None], 3, axis=1))
    assert labels.tolist() == theirs.targets.tolist()
    for file in raw.glob("*.gz"):
        file.unlink()
    assert np.array_equal(dataset_of("seq-mnist").load(places, True)[0], images)  # unpacked files do as well


IMAGES, LABELS = np.zeros((10, 28, 28), np.uint8), np.arange(10)


@pytest.mark.parametrize(
    "images, labels, reason",
    [
        (idx(IMAGES), idx(LABELS + 1), "labels 1 ... 10"),
        (idx(IMAGES), idx(LABELS[:9]), "do not fit"),
        (idx(IMAGES), idx(np.zeros((10, 1))), "do not fit"),
        (idx(IMAGES), idx(np.array(7)), "do not fit"),
        (idx(IMAGES[:, :27]), idx(LABELS), "do not fit"),
        (idx(IMAGES)[:-1], idx(LABELS), "cannot be read"),
        (b"\0\0\x0d" + idx(IMAGES)[3:], idx(LABELS), "not an IDX file of bytes"),
        (b"\0\0\x08\xff" + b"\xff" * 1020, idx(LABELS), "cannot be read"),
        (b"", idx(LABELS), "cannot be read"),
    ],
    ids=["label", "fewer", "columns", "number", "narrow", "short", "kind", "shape", "empty"],
)
def test_damaged_files_of_mnist(images, labels, reason, places):
    for name in ("train", "t10k"):
        write(places.data / "MNIST" / "raw" / f"{name}-images-idx3-ubyte", images)
        write(places.data / "MNIST" / "raw" / f"{name}-labels-idx1-ubyte", labels)
    answer(lambda: dataset_of("seq-mnist").load(places, True), places.data / "MNIST" / "raw", reason)


def test_damage_anywhere_in_a_compressed_file_of_mnist(places, made):
    for name, content in made("seq-mnist").items():
        write(places.data / "MNIST" / "raw" / name, content)
    file = places.data / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for offset in range(0, len(whole), 7):
        file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x55]) + whole[offset + 1 :])
        with contextlib.suppress(UsageError):  # some bytes, as the time, mean nothing
            assert dataset_of("seq-mnist").load(places, True)[0].shape == (30, 3, 28, 28)


BATCH = {"labels": [1, 2], "data": cifar_rows([1, 2], [0, 0]), "filenames": ["a", "b"]}
SHAPES = {"data": (-1, 3072), "labels": (-1,)}


def test_a_malicious_pickle_runs_nothing(tmp_path):
    file, trace = tmp_path / "data_batch_1", tmp_path / "trace"
    attacks = [
        python2_pickle(BATCH | {"filenames": Gadget(os.system, f"touch {trace}")}),
        python2_pickle({"data": Gadget(os.system, f"touch {trace}"), "labels": [1]}),
        f"cos\nsystem\n(S'touch {trace}'\ntR.".encode(),
        f'c__builtin__\neval\n(S\'open("{trace}", "w")\'\ntR.'.encode(),
        f"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\ncposix\nsystem\n(S'touch {trace}'\ntR.".encode(),
        # Protocol 4 walks dotted names: numpy, then an attribute of an attribute.
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93" + f"(S'touch {trace}'\ntR.".encode(),
        b"\x80\x02\x82\x01.",  # a code of copyreg's registry
        b"c__main__\nanything\n.",
    ]
    for content in attacks:
        file.write_bytes(content)
        answer(lambda: read_arrays(file, SHAPES), file, "cannot be read", "fetch it again")
    assert not trace.exists()


def test_a_damaged_pickle_is_refused_or_read(tmp_path):
    small = {"labels": [1, 2], "data": BATCH["data"][:, :8].copy(), "filenames": ["a", "b"]}
    shapes, whole = SHAPES | {"data": (-1, 8)}, python2_pickle(small)
    (tmp_path / "whole").write_bytes(whole)
    assert np.array_equal(read_arrays(tmp_path / "whole", shapes)["data"], small["data"])
    refused = 0
    for offset in range(len(whole)):
        changed = [whole[:offset] + bytes([whole[offset] ^ bits]) + whole[offset + 1 :] for bits in (0x01, 0x41)]
        for number, content in enumerate([whole[:offset], *changed]):
            file = tmp_path / f"{offset}-{number}"
            file.write_bytes(content)
            try:
                read_arrays(file, shapes)
            except UsageError as error:
                assert str(file) in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 2 * len(whole)  # every truncation, and most changed bytes


def test_arrays_of_other_kinds_and_protocols(tmp_path):
    data = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for number, array in enumerate((data, np.asfortranarray(data), data.astype(">i4"), data.astype(np.int64))):
        file = tmp_path / str(number)
        for content in (python2_pickle({"data": array}), pickle.dumps({"data": array}, 4)):
            file.write_bytes(content)
            found = read_arrays(file, {"data": (-1, 6)})["data"]
            assert np.array_equal(found, data) and found.dtype == array.dtype
    for array in (np.array([{}], dtype=object), np.zeros(3, "f4"), np.zeros(3, "i4,i4")):
        file.write_bytes(python2_pickle({"data": array}))
        answer(lambda: read_arrays(file, {"data": (-1,)}), file)


def test_a_pickle_cannot_fill_the_memory(tmp_path):
    """A memo index of 31 bits, and an array that is made without content."""
    file = tmp_path / "data_batch_1"
    shape = pickle.dumps((2**28, 3072), 2)[2:-1]
    for content in (
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x02cnumpy\nndarray\n" + shape + b"\x85R.",
        b"\x80\x02cnumpy\nndarray\n" + shape + b"\x85\x81.",
        b"\x80\x02}U\x04data" + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + shape + b"U\x01B\x87Rs.",
    ):
        file.write_bytes(content)
        answer(lambda: read_arrays(file, {"data": (-1, 3072)}), file)


@pytest.mark.parametrize(
    "content, reason",
    [
        (BATCH | {"data": BATCH["data"][:, :-1]}, "data is uint8 [2, 3071], expected integers [-1, 3072]"),
        (BATCH | {"data": BATCH["data"].astype(float)}, "data is float64"),
        (BATCH | {"labels": ["1", "2"]}, "neither an array nor a list of integers"),
        (BATCH | {"labels": [[1], [2]]}, "neither an array nor a list of integers"),
        ({"data": BATCH["data"]}, "KeyError: 'labels'"),
        ([1, 2], "TypeError"),
        (None, "TypeError"),
    ],
)
def test_other_content_in_a_pickle(content, reason, tmp_path):
    (tmp_path / "batch").write_bytes(python2_pickle(content))
    answer(lambda: read_arrays(tmp_path / "batch", SHAPES), tmp_path / "batch", reason)


@pytest.mark.parametrize("change, reason", [({"labels": [3, 10]}, "do not fit"), ({"labels": [3]}, "do not fit")])
def test_labels_of_cifar_that_do_not_fit(change, reason, places):
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        write(places.data / "cifar-10-batches-py" / name, python2_pickle(BATCH | change))
    answer(lambda: dataset_of("seq-cifar10").load(places, True), "cifar-10-batches-py", reason)


# Metadata


@pytest.fixture
def tiny(places, made, monkeypatch):
    """Tiny ImageNet, unpacked."""
    with official(monkeypatch, CASES["seq-tinyimg"], made("seq-tinyimg")):
        dataset_of("seq-tinyimg", download=True).load(places, False)
    shutil.rmtree(places.cache)
    return places.data / "tiny-imagenet-200"


def test_tiny_imagenet_rearranged_into_class_folders(tiny, places):
    before = dataset_of("seq-tinyimg").load(places, False)
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        os.replace(tiny / "val" / "images" / name, tiny / "val" / wnid / name)
    (tiny / "val" / "images").rmdir()
    (tiny / "val" / "val_annotations.txt").unlink()
    images, labels = dataset_of("seq-tinyimg").load(places, False)
    assert sorted(labels.tolist()) == sorted(before[1].tolist())
    assert told(images)[0] == labels.tolist()


@pytest.mark.parametrize(
    "file, change, reason",
    [
        ("wnids.txt", lambda text: text + "n09999999\n", "lists 201 classes instead of 200"),
        ("wnids.txt", lambda text: text.partition("\n")[2], "lists 199 classes instead of 200"),
        ("wnids.txt", lambda text: text.replace(WNIDS[7], WNIDS[8]), "lists 199 classes instead of 200"),
        ("wnids.txt", lambda text: text.replace(WNIDS[7], "n09999999"), f"class {WNIDS[7]} is not one of"),
        ("val/val_annotations.txt", lambda text: text + "val_0.JPEG\n", "'val_0.JPEG' names no class of wnids.txt"),
        ("val/val_annotations.txt", lambda text: text.replace(WNIDS[7], "n0"), "names no class of wnids.txt"),
        ("val/val_annotations.txt", lambda text: "", "no image"),
    ],
    ids=["more", "fewer", "twice", "other", "column", "unknown", "empty"],
)
def test_damaged_metadata_of_tiny_imagenet(file, change, reason, tiny, places):
    (tiny / file).write_text(change((tiny / file).read_text()))
    part = tiny / "train" if reason.startswith("class ") else tiny / file
    message = answer(lambda: dataset_of("seq-tinyimg").load(places, "class " in reason and "wnids" in file), reason)
    assert str(part) in message or reason == "no image"
    (tiny / file).write_bytes(b"\xff\xfe\xfa")
    answer(lambda: dataset_of("seq-tinyimg").load(places, False), tiny / file, "cannot be read")


@pytest.mark.parametrize("damage", ["1 001.Black_footed_Albatross\nx", "", b"\xff\xfe\xfa", None])
@pytest.mark.parametrize("file", ["images.txt", "train_test_split.txt"])
def test_damaged_split_of_cub(file, damage, made, places, monkeypatch):
    with official(monkeypatch, CASES["seq-cub200"], made("seq-cub200")):
        dataset_of("seq-cub200", download=True).load(places, False)
    path = places.data / "CUB_200_2011" / file
    path.unlink()
    if damage is not None:
        write(path, damage)
    answer(lambda: dataset_of("seq-cub200", split="official").load(places, True), places.data / "CUB_200_2011")
    assert len(dataset_of("seq-cub200").load(places, True)[1]) == 480  # the authors' split needs no file


def test_the_official_split_of_cub_is_its_file(made, places, monkeypatch):
    with official(monkeypatch, CASES["seq-cub200"], made("seq-cub200")):
        parts = [dataset_of("seq-cub200", download=True, split="official").load(places, train) for train in (1, 0)]
    for (images, labels), indices in zip(parts, ([0, 2], [1])):  # the second line of three is for testing
        assert told(images) == (labels.tolist(), indices * 200)


@pytest.fixture
def signs(places, made, monkeypatch):
    """GTSRB, unpacked."""
    with official(monkeypatch, CASES["seq-gtsrb"], made("seq-gtsrb")):
        dataset_of("seq-gtsrb", download=True).load(places, True)
    return places.data / "GTSRB"


@pytest.mark.parametrize(
    "content, reason",
    [
        ("Filename;Width\n00000.ppm;12\n", "KeyError"),
        ("Filename;ClassId\n00000.ppm;stop\n", "ValueError"),
        ("Filename;ClassId\n00000.ppm\n", "TypeError"),
        ("Filename;ClassId\n00000.ppm;43\n", "labels 43 ... 43"),
        (b"\xff\xfe\xfa", "UnicodeDecodeError"),
        ("", "no image"),
    ],
)
def test_damaged_list_of_gtsrb(content, reason, signs, places):
    write(signs / "GT-final_test" / "GT-final_test.csv", content)
    answer(lambda: dataset_of("seq-gtsrb", split="official").load(places, False), reason)


def test_parts_of_gtsrb_that_are_missing_are_fetched_where_they_are_needed(signs, places, made, monkeypatch):
    shutil.rmtree(signs / "Final_Test")
    shutil.rmtree(signs / "GT-final_test")
    for file in signs.glob("*.zip"):
        file.unlink()
    dataset_of("seq-gtsrb").load(places, False)
    with pytest.raises(UsageError, match="GT-final_test.csv") as info:
        dataset_of("seq-gtsrb", split="official").load(places, False)
    assert "--download" in str(info.value)
    with official(monkeypatch, CASES["seq-gtsrb"], made("seq-gtsrb")) as server:
        labels, colours = shown(dataset_of("seq-gtsrb", split="official", download=True).load(places, False))
        assert (
            labels == colours
            and server.asked == ["GTSRB_Final_Test_Images.zip", "GTSRB_Final_Test_GT.zip"]
            or (sorted(server.asked) == ["Final_Test.zip", "GT-final_test.zip"])
        )


def test_a_missing_class_does_not_move_the_others(signs, places, made, monkeypatch):
    shutil.rmtree(signs / "Final_Training" / "Images" / "00007")
    labels, colours = shown(dataset_of("seq-gtsrb").load(places, True))
    assert labels == colours and 7 not in labels and 42 in labels
    with official(monkeypatch, CASES["seq-nch"], made("seq-nch")):
        dataset_of("seq-nch", download=True).load(places, True)
    shutil.rmtree(places.data / "NCH" / "CRC-VAL-HE-7K" / "LYM")
    labels, colours = shown(dataset_of("seq-nch").load(places, False))
    assert labels == colours == [0, 1, 2, 4, 5, 6, 7, 8]


# The authors' splits


@pytest.mark.parametrize("name, count", [("seq-cub200", 600), ("seq-cub200", 11_788), ("seq-cars196", 16_185)])
def test_split_of_all_images_as_torch_draws_it(name, count):
    sizes = [int(0.8 * count), count - int(0.8 * count)]
    parts = random_split(range(count), sizes, generator=torch.Generator().manual_seed(42))
    for part, train in zip(parts, (True, False)):
        assert authors_split(count, 42, train, in_order=False) == list(part.indices)
    if count > 10_000:
        assert DATASETS.load(name)().counts == tuple(sizes)


@pytest.mark.parametrize("name, count", [("seq-gtsrb", 39_209), ("seq-wikiart", 81_444)])
def test_split_of_all_images_in_order(name, count):
    drawn, cut = torch.randperm(count, generator=torch.Generator().manual_seed(0)), int(0.8 * count)
    assert authors_split(count, 0, True, in_order=True) == drawn[:cut].sort().values.tolist()
    assert authors_split(count, 0, False, in_order=True) == drawn[cut:].sort().values.tolist()
    assert DATASETS.load(name)().counts == (cut, count - cut)


def test_rows_of_the_loaded_parts(made, places, monkeypatch):
    """Images in the order of the authors' rows: of torchvision's ImageFolder, three images per class here."""
    for name, seed, ordered, folder in (
        ("seq-cub200", 42, False, "CUB_200_2011/images"),
        ("seq-gtsrb", 0, True, "GTSRB/Final_Training/Images"),
        ("seq-wikiart", 0, True, "wikiart"),
    ):
        with official(monkeypatch, CASES[name], made(name)):
            parts = [dataset_of(name, download=True).load(places, train) for train in (True, False)]
        samples = ImageFolder(places.data / folder).samples
        for (images, labels), train in zip(parts, (True, False)):
            rows = authors_split(len(samples), seed, train, ordered)
            assert labels.tolist() == [samples[row][1] for row in rows]
            assert told(images) == (labels.tolist(), [row % 3 for row in rows])
