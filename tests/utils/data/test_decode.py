"""Image files to arrays: every kind of picture read right or refused by name, decoded once, whole or absent."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator
from torchvision.transforms import functional as vision

from tests.miniatures import answer, nobody, picture, told, write
from tests.tiny import ROOT
from utils.data import decode as decoding
from utils.data.augment import crop_and_flip, random_flip, random_resized_crop
from utils.data.decode import decode, decoded
from utils.data.images import ImageSet, Transform
from utils.data.listing import class_folders
from utils.data.splits import sample_classes, split_classes

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def saved(tmp_path: Path, image: Image.Image, form: str, **settings) -> Path:
    file = tmp_path / f"picture.{form.lower()}"
    image.save(file, form, **settings)
    return file


def read(file: Path, size: int = 8) -> np.ndarray:
    return decode(file, size, "squash")


# Kinds of pictures


def test_grey_of_eight_and_one_and_sixteen_bits(tmp_path):
    assert (read(saved(tmp_path, Image.fromarray(RAMP), "PNG")) == RAMP).all()  # in all three channels
    assert (read(saved(tmp_path, Image.fromarray(RAMP > 99), "PNG")) == (RAMP > 99) * 255).all()
    sixteen = RAMP.astype(np.uint16) * 256 + 77
    for form in ("PNG", "TIFF"):
        assert (read(saved(tmp_path, Image.fromarray(sixteen), form)) == RAMP).all()
    with_alpha = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(RAMP)])
    assert (read(saved(tmp_path, with_alpha, "PNG")) == RAMP).all()  # transparency is dropped


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_of_grey_are_scaled_by_their_range(tmp_path, kind):
    """Zero, or the lowest below it, is black and the highest white; nothing wraps, and nothing becomes all black."""

    def grey(*values):
        image = Image.fromarray(np.array([values], dtype=kind).repeat(len(values), axis=0))
        return decode(saved(tmp_path, image, "TIFF"), len(values), "squash")[0, 0].tolist()

    assert grey(-100, 0, 300, 900) == [0, 26, 102, 255]
    assert grey(0, 70_000, 140_000) == [0, 128, 255]
    assert grey(100, 200) == [128, 255]
    assert grey(7, 7) == [255, 255] and grey(0, 0) == [0, 0]
    if kind is np.float32:
        assert grey(0.0, 0.25, 0.5) == [0, 128, 255]
        for odd in (np.nan, np.inf):
            with pytest.raises(ValueError, match="no finite numbers"):
                grey(0.0, odd)


def test_sixteen_bits_with_a_sign_are_scaled_by_their_range(tmp_path):
    """Pillow writes none, so the tag says so of one that it wrote."""
    values = np.array([[-100, 0, 300, 900]] * 4, dtype=np.int16)
    file = saved(tmp_path, Image.fromarray(values.view(np.uint16)), "TIFF", tiffinfo={339: 2})
    with Image.open(file) as image:
        assert (image.tag_v2[339], np.asarray(image)[0].tolist()) == ((2,), [-100, 0, 300, 900])
    assert decode(file, 4, "squash")[0, 0].tolist() == [0, 26, 102, 255]


COLOURS = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=2)


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes(tmp_path, transparent):
    image = Image.fromarray(COLOURS).quantize(64)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    for settings in ({"transparency": 3}, {"transparency": bytes(range(0, 256, 4))}) if transparent else ({},):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice to keep the transparency
            assert (read(saved(tmp_path, image, "PNG", **settings)) == expected).all()


def test_colours_with_transparency(tmp_path):
    image = Image.fromarray(np.dstack([COLOURS, RAMP]))
    assert (read(saved(tmp_path, image, "PNG")) == COLOURS.transpose(2, 0, 1)).all()


def test_cmyk_and_grey_jpeg(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    assert np.abs(read(saved(tmp_path, image, "JPEG")).astype(int).mean((1, 2)) - [255, 0, 0]).max() < 6
    assert np.abs(read(saved(tmp_path, Image.new("L", (8, 8), 90), "JPEG")).astype(int) - 90).max() < 3


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    for form in ("GIF", "WEBP", "PNG"):
        settings = {"lossless": True} if form == "WEBP" else {}
        file = saved(tmp_path, frames[0], form, save_all=True, append_images=frames[1:], **settings)
        assert read(file)[:, 0, 0].tolist() == [250, 0, 0], form


def test_a_turned_photograph_is_kept_as_it_is_stored(tmp_path):
    """As torchvision's loader does, which the released code uses."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = saved(tmp_path, Image.fromarray(COLOURS), "PNG", exif=exif)
    assert Image.open(file).getexif()[0x0112] == 6
    assert (read(file) == COLOURS.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (8, 8), (30, 20), (20, 30), (37, 301), (300, 38), (224, 224), (64, 65)]
)
@pytest.mark.parametrize("target", [16, 32, 33])
def test_shapes_are_fitted_as_torchvision_does(size, fit, target, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(noise), "PNG")
    image = Image.open(file)
    if fit == "squash":
        expected = vision.resize(image, [target, target])
    else:
        expected = vision.center_crop(vision.resize(image, round(target * 8 / 7)), target)
    ours = decode(file, target, fit)
    assert ours.shape == (3, target, target) and ours.dtype == np.uint8
    assert np.array_equal(ours, np.asarray(expected).transpose(2, 0, 1))


def test_the_crop_of_the_usual_network_is_that_of_256_to_224(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = saved(tmp_path, Image.fromarray(noise), "PNG")
    expected = vision.center_crop(vision.resize(Image.open(file), 256), 224)
    assert np.array_equal(decode(file, 224, "crop"), np.asarray(expected).transpose(2, 0, 1))


def test_a_picture_of_one_line_fills_no_memory(tmp_path):
    file = saved(tmp_path, Image.new("L", (60_000, 1), 9), "PNG")
    assert (decode(file, 32, "squash") == 9).all()
    with pytest.raises(ValueError, match="60000x1 pixels are too narrow"):
        decode(file, 32, "crop")


# What is no picture


def bomb() -> bytes:
    """The header of a PNG of 10^10 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


BAD = {
    "a_bomb.png": "decompression bomb",
    "a_link.jpg": "No such file",
    "c_cut.jpg": "truncated",
    "d_cut.png": "truncated",
    "e_text.jpg": "cannot identify image file",
    "f_empty.png": "cannot identify image file",
    "g_html.gif": "cannot identify image file",
    "h_folder.jpg": "Is a directory",
    "i_gone.png": "No such file",
}


@pytest.fixture
def mixed(tmp_path):
    """A folder of good and bad files, and its list, one good before, between and after them."""
    folder = tmp_path / "mixed"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    contents = {
        "a_bomb.png": bomb(), "c_cut.jpg": "JPEG", "d_cut.png": "PNG", "e_text.jpg": "a picture of a cat",
        "f_empty.png": b"", "g_html.gif": b"<html>not found</html>",
    }  # fmt: skip
    for name, content in contents.items():
        if content in ("JPEG", "PNG"):
            out = io.BytesIO()
            Image.fromarray(noise).save(out, content)
            content = out.getvalue()[: len(out.getvalue()) // 2]
        write(folder / name, content)
    (folder / "a_link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "h_folder.jpg").mkdir()
    for label, name in enumerate(("0_good.png", "b_good.png", "z_good.png")):
        write(folder / name, picture(label, 1, "PNG"))
    names = sorted([*BAD, "0_good.png", "b_good.png", "z_good.png"])
    return folder, [folder / name for name in names]


def load(mixed, cache: Path, skip_bad: bool = True, size: int = 16):
    folder, paths = mixed
    return decoded(folder, paths, size, "squash", cache, "mixed train", skip_bad)


def caches(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize("name", BAD)
def test_every_bad_file_is_refused_by_name(name, mixed, tmp_path):
    folder, _ = mixed
    good, cache = folder / "b_good.png", tmp_path / "cache"
    answer(
        lambda: decoded(folder, [good, folder / name], 16, "squash", cache, "mixed train", False),
        f"mixed train: 1 images cannot be read: {name} (", BAD[name], "--skip_bad",
    )  # fmt: skip
    assert caches(cache) == []


def test_many_bad_files_are_counted_and_the_first_named(mixed, tmp_path):
    names = sorted(BAD)[:3]
    answer(
        lambda: load(mixed, tmp_path / "cache", skip_bad=False), f"{len(BAD)} images cannot be read", *names, "6 more"
    )
    assert caches(tmp_path / "cache") == []


def test_bad_files_are_left_out_counted_and_listed(mixed, tmp_path, capsys):
    images, kept = load(mixed, tmp_path)
    names = [path.name for path in mixed[1]]
    assert [names[row] for row in kept] == ["0_good.png", "b_good.png", "z_good.png"]
    assert told(images) == ([0, 1, 2], [1, 1, 1])  # the labels of the list at `kept` fit
    warned = capsys.readouterr().err
    (listed,) = (tmp_path / "decoded").glob("*.bad.json")
    assert "warning: mixed train: 9 images cannot be read" in warned and str(listed) in warned
    for row, name, reason in json.loads(listed.read_text()):
        assert names[row] == name and BAD[name] in reason
    assert [name for _, name, _ in json.loads(listed.read_text())] == sorted(BAD)

    again, rows = load(mixed, tmp_path)  # from the cache, with the same warning
    assert np.array_equal(again, images) and np.array_equal(rows, kept)
    assert "9 images cannot be read" in capsys.readouterr().err
    answer(lambda: load(mixed, tmp_path, skip_bad=False), "9 images cannot be read", "leave them out with --skip_bad")


def test_nothing_but_bad_files(mixed, tmp_path):
    folder, _ = mixed
    bad = [folder / name for name in BAD]
    answer(
        lambda: decoded(folder, bad, 16, "crop", tmp_path / "c", "mixed test", True), "mixed test: no image in", folder
    )
    answer(
        lambda: decoded(folder, [], 16, "crop", tmp_path / "c", "mixed test", False), "mixed test: no image in", folder
    )
    assert caches(tmp_path / "c") == []


def test_a_file_without_the_right_to_read():
    with nobody() as folder:
        for name in ("a.png", "b.png"):
            write(folder / name, picture(1, 1, "PNG"))
        (folder / "b.png").chmod(0o200)
        paths = [folder / "a.png", folder / "b.png"]
        read = lambda skip: decoded(folder, paths, 8, "squash", folder / "cache", "own train", skip)  # noqa: E731
        answer(lambda: read(False), "1 images cannot be read: b.png (", "Permission denied")
        assert read(True)[1].tolist() == [0]
        (folder / "b.png").chmod(0o600)
        assert read(False)[1].tolist() == [0, 1]  # the right to read makes it another list


def test_warnings_of_odd_metadata_are_not_shown(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # the good files have 64 pixels: a warning, not yet a refusal
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        assert len(load(mixed, tmp_path)[1]) == 3
    assert seen == [] and warnings.filters == before


# The cache


@pytest.fixture
def plain(tmp_path):
    """A folder of 40 images with 4 in each of 10 classes."""
    for label in range(10):
        for index in range(4):
            write(tmp_path / "plain" / f"{label}" / f"{index}.png", picture(label, index, "PNG"))
    return tmp_path / "plain", class_folders(tmp_path / "plain")[0]


@pytest.fixture
def count_decodings(monkeypatch):
    calls = []
    original = decoding.decode

    def count(*given):
        calls.append(given)
        return original(*given)

    monkeypatch.setattr(decoding, "decode", count)
    return calls


def test_images_are_decoded_once_and_mapped(plain, tmp_path, count_decodings):
    first, kept = load(plain, tmp_path, False)
    assert len(count_decodings) == 40 and kept.tolist() == list(range(40))
    again, _ = load(plain, tmp_path, False)
    assert len(count_decodings) == 40 and isinstance(again, np.memmap)
    assert np.array_equal(first, again) and told(again)[0] == np.arange(10).repeat(4).tolist()
    assert not again.flags.writeable and again.dtype == np.uint8
    (file,) = (tmp_path / "decoded").glob("*.npy")
    assert np.array_equal(np.load(file), first)  # a plain array file
    image_set = ImageSet(again, np.arange(10).repeat(4), torch.device("cpu"))
    assert told(image_set.raw(torch.tensor([39, 0])).numpy()) == ([9, 0], [3, 0])


def test_what_makes_a_new_cache(plain, tmp_path, count_decodings):
    folder, paths = plain
    cache = tmp_path / "cache"
    load(plain, cache)
    changes = [
        lambda: load(plain, cache, size=17),
        lambda: decoded(folder, paths, 16, "crop", cache, "mixed train", True),
        lambda: load((folder, paths[1:]), cache),
        lambda: load((folder, paths[::-1]), cache),
        lambda: os.utime(paths[0], ns=(1, 1)) or load(plain, cache),
        lambda: write(paths[0], picture(9, 3, "BMP")) or load(plain, cache),
    ]
    for number, change in enumerate(changes, 2):
        before = len(count_decodings)
        images = change()[0]
        assert len(count_decodings) - before == len(images)
        assert len(list((cache / "decoded").glob("*.npy"))) == number
    assert told(load(plain, cache)[0])[0][0] == 9
    before = len(count_decodings)
    os.rename(folder, tmp_path / "moved")  # another place of the same files is the same list
    load((tmp_path / "moved", [tmp_path / "moved" / path.relative_to(folder) for path in paths]), cache)
    assert len(count_decodings) == before


def flipped(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 8
    file.write_bytes(content)


def test_a_cache_that_changed_is_made_again(plain, tmp_path, capsys):
    """Whatever changed, and whatever time the file says: nothing but what was written is used."""
    images = np.array(load(plain, tmp_path)[0])
    (file,) = (tmp_path / "decoded").glob("*.npy")
    whole, time = file.read_bytes(), file.stat().st_mtime_ns
    damages = [b"", whole[:5], whole[:64], whole[:-1], b"noise" * 99, whole + b"x"]
    damages += [whole[:k] + bytes([whole[k] ^ 8]) + whole[k + 1 :] for k in (0, 9, 30, 100, 127, 128, 5000)]
    for content in damages:
        file.write_bytes(content)
        os.utime(file, ns=(time, time))
        assert np.array_equal(load(plain, tmp_path)[0], images)
        assert f"warning: {file}: its bytes are not those that were written; made again" in capsys.readouterr().err
        assert file.read_bytes() == whole
    np.save(file, np.zeros((40, 3, 16, 16), np.uint8))
    assert np.array_equal(load(plain, tmp_path)[0], images)


def test_a_cache_without_its_seal_is_made_again(plain, tmp_path, count_decodings, capsys):
    """One of an older version, or one whose seal is damaged itself."""
    load(plain, tmp_path)
    (file,) = (tmp_path / "decoded").glob("*.npy")
    seal = file.with_suffix(".json")
    good = seal.read_text()
    for content in (
        "",
        "null",
        "[]",
        "{}",
        "9" * 9000,
        "[" * 9999,
        good.replace('"bad": []', '"bad": [[0, "a", "b"]]'),
    ):
        seal.write_text(content)
        before = len(count_decodings)
        assert len(load(plain, tmp_path)[0]) == 40 and len(count_decodings) == before + 40
        assert "nothing tells what was written; made again" in capsys.readouterr().err
    seal.unlink()
    load(plain, tmp_path)
    assert len(count_decodings) == before + 80


def test_a_cache_that_nobody_touched_is_not_read_to_be_trusted(plain, tmp_path, monkeypatch, count_decodings):
    load(plain, tmp_path)
    (file,) = (tmp_path / "decoded").glob("*.npy")
    with monkeypatch.context() as patch:
        patch.setattr("utils.data.cache.sha256", lambda _: pytest.fail("hashed"))
        patch.setattr(decoding, "_read", lambda _: pytest.fail("read"))
        load(plain, tmp_path)
    shutil.copytree(tmp_path / "decoded", tmp_path / "copy" / "decoded")  # files of another time are hashed, once
    before = len(count_decodings)
    load(plain, tmp_path / "copy")
    assert len(count_decodings) == before


def test_images_that_changed_behind_their_time_are_decoded_again(plain, tmp_path, count_decodings, capsys):
    folder, paths = plain
    load(plain, tmp_path)
    state, new = paths[0].stat(), picture(9, 3, "PNG")
    assert len(new) == state.st_size

    def put(content: bytes) -> None:
        paths[0].write_bytes(content)
        os.utime(paths[0], ns=(state.st_atime_ns, state.st_mtime_ns))

    put(paths[0].read_bytes())  # the same again
    load(plain, tmp_path)
    assert len(count_decodings) == 40 and capsys.readouterr().err == ""
    put(new)
    images, _ = load(plain, tmp_path)
    assert len(count_decodings) == 80 and told(images)[0][0] == 9
    assert "its images have changed since; made again" in capsys.readouterr().err


def digest_of(plain, cache: Path) -> str:
    return decoding.content_sha256(*plain, cache, "mixed train")


def test_the_digest_is_that_of_names_and_content(plain, tmp_path, monkeypatch):
    folder, paths = plain
    before = digest_of(plain, tmp_path / "cache")
    load(plain, tmp_path / "other")  # as decoding finds it
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded"))
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_read", lambda _: pytest.fail("read again"))
        assert digest_of(plain, tmp_path / "cache") == digest_of(plain, tmp_path / "other") == before
    shutil.copytree(folder, tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(folder) for path in paths]
    assert digest_of((tmp_path / "moved", moved), tmp_path / "cache") == before
    assert digest_of((tmp_path, moved), tmp_path / "cache") == before  # however much lies above
    assert digest_of((folder, paths[::-1]), tmp_path / "cache") != before
    assert digest_of((folder, paths[1:]), tmp_path / "cache") != before
    flipped(paths[5], -1)
    assert digest_of(plain, tmp_path / "cache") != before
    flipped(paths[5], -1)
    assert digest_of(plain, tmp_path / "cache") == before
    os.rename(paths[0], paths[0].with_name("00.png"))
    assert digest_of((folder, [paths[0].with_name("00.png"), *paths[1:]]), tmp_path / "cache") != before


def test_a_list_of_bad_files_is_for_people(mixed, tmp_path):
    images, rows = load(mixed, tmp_path)
    (listed,) = (tmp_path / "decoded").glob("*.bad.json")
    listed.write_text('[[0, "a", "b"]]')
    assert np.array_equal(load(mixed, tmp_path)[1], rows)


KILLED = """
import os, signal, sys
from pathlib import Path
from utils.data import decode as decoding
from utils.data.listing import class_folders
folder, cache = map(Path, sys.argv[1:])
paths, original = class_folders(folder).paths, decoding.decode
last = paths[30].read_bytes()
def decode(file, *given):
    if file.getvalue() == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(file, *given)
decoding.decode, decoding.CHUNK = decode, 10
decoding.decoded(folder, paths, 16, "squash", cache, "mixed train", False)
"""


def test_a_process_that_is_killed_leaves_no_cache(plain, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, plain[0], tmp_path], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    left = caches(tmp_path / "decoded")
    assert len(left) == 1 and left[0].endswith(".part")
    images, _ = load(plain, tmp_path, False)
    assert told(images)[0] == np.arange(10).repeat(4).tolist()
    assert sorted(Path(name).suffix for name in caches(tmp_path / "decoded")) == [".json", ".json", ".npy"]


def test_an_interrupted_decoding_leaves_no_cache(plain, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "decode", stop)
    with pytest.raises(KeyboardInterrupt):
        load(plain, tmp_path)
    assert caches(tmp_path / "decoded") == []


def test_two_at_once_decode_once(plain, tmp_path, monkeypatch, capsys):
    """The second one waits on the lock of the first, which it sees before the first one may go on."""
    original, calls, waits = decoding.decode, [], threading.Event()

    class Waits(io.StringIO):
        def write(self, text):
            if "waits for another process" in text:
                waits.set()
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Waits())

    def slow(*given):
        calls.append(given)
        assert waits.wait(20)
        return original(*given)

    monkeypatch.setattr(decoding, "decode", slow)
    results = []
    threads = [threading.Thread(target=lambda: results.append(load(plain, tmp_path, False)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(calls) == 40 and len(results) == 2 and np.array_equal(*results)


def test_too_little_space_is_said_before(plain, tmp_path, monkeypatch, count_decodings):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=40 * 3 * 16 * 16 - 1))
    answer(lambda: load(plain, tmp_path), tmp_path / "decoded", "mixed train needs 0.00 GB there", "--cache_dir")
    assert count_decodings == [] and caches(tmp_path / "decoded") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=40 * 3 * 16 * 16))
    assert len(load(plain, tmp_path)[0]) == 40


def test_a_cache_folder_that_cannot_be_used(plain, tmp_path):
    write(tmp_path / "file", "kept")
    answer(lambda: load(plain, tmp_path / "file"), tmp_path / "file", "Not a directory")


def test_more_images_than_one_chunk(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 7)
    write(plain[1][13], "no image")
    images, kept = load(plain, tmp_path)
    assert kept.tolist() == [row for row in range(40) if row != 13]
    assert told(images)[0] == [row // 4 for row in kept]


# Lists


def test_split_keeps_the_share_of_each_class_and_every_image():
    labels = np.array([2] * 10 + [0] * 5 + [1])
    paths = [Path(f"{number}.png") for number in range(16)]
    train, test = (split_classes(paths, labels.tolist(), 0.8, 0, part) for part in (True, False))
    assert sorted(train[0] + test[0]) == sorted(paths)
    assert np.bincount(train[1]).tolist() == [4, 1, 8] and np.bincount(test[1]).tolist() == [1, 0, 2]
    assert all(labels[int(path.stem)] == label for part in (train, test) for path, label in zip(*part))
    assert split_classes(paths, labels.tolist(), 0.8, 0, True) == train
    assert split_classes(paths, labels.tolist(), 0.8, 1, True) != train


def test_samples_of_each_class():
    labels = [0, 1, 0, 1, 0, 2]
    paths = [Path(f"{number}.png") for number in range(6)]
    chosen, own = sample_classes(paths, labels, 2, seed=0)
    assert own == [labels[int(path.stem)] for path in chosen] and chosen == sorted(chosen)
    assert np.bincount(own).tolist() == [2, 2, 1]
    assert sample_classes(paths, labels, 9, seed=0) == (paths, labels)


# Transforms


def numbered(count: int, side: int = 12) -> torch.Tensor:
    """Images [B, 2, S, S] whose channels are the row and the column of each pixel, from 1."""
    row = torch.arange(1.0, side + 1)[:, None].expand(side, side)
    return torch.stack([row, row.T]).expand(count, 2, side, side).contiguous()


@pytest.mark.parametrize("per", ["image", "batch"])
def test_crop_and_flip_moves_and_mirrors_whole_images(per):
    images = numbered(64)
    moved = crop_and_flip(images, 4, Generator().manual_seed(0), per)
    assert moved.shape == images.shape
    seen = set()
    for image in moved:
        rows, columns = image.amax(dim=(0, 2)) > 0, image.amax(dim=(0, 1)) > 0
        inside = image[:, rows][:, :, columns]
        steps = inside[1, 0].diff()
        flipped = bool((steps == -1).all())
        assert flipped or (steps == 1).all()
        assert (inside[0, :, 0].diff() == 1).all()
        # From the place of a pixel: where row 6 and column 6 of the image are now.
        row = (image[0] == 6).nonzero()[0, 0].item() - 5
        column = (image[1] == 6).nonzero()[0, 1].item() - (6 if flipped else 5)
        assert abs(row) <= 4 and abs(column) <= 4
        assert (~rows).sum() == abs(row) and (~columns).sum() == abs(column)  # black fills the gap
        seen.add((row, column, flipped))
    assert len(seen) == 1 if per == "batch" else len(seen) > 30
    if per == "image":
        assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(-4, 5))
    again = crop_and_flip(images, 4, Generator().manual_seed(0), per)
    assert torch.equal(again, moved)


def test_crop_and_flip_of_a_batch_mirrors_every_second_batch():
    flips = 0
    generator = Generator().manual_seed(1)
    for _ in range(200):
        row = crop_and_flip(numbered(2), 0, generator, "batch")[:, 1, 0]
        assert torch.equal(row[0], row[1])
        flips += row[0, 0].item() == 12
    assert 70 < flips < 130
    mirrored = crop_and_flip(numbered(4000), 0, generator)[:, 1, 0, 0] == 12
    assert 1900 < mirrored.sum() < 2100  # half of them, but for three standard errors


def test_random_flip_draws_for_each_image():
    flipped = random_flip(numbered(4000), Generator().manual_seed(0))[:, 1, 0, 0] == 12
    assert 1900 < flipped.sum() < 2100  # half of them, but for three standard errors


def test_random_resized_crop_cuts_rectangles_of_the_published_range():
    images = numbered(500, 64)
    cut = random_resized_crop(images, Generator().manual_seed(0))
    assert cut.shape == images.shape and cut.min() >= 1 and cut.max() <= 64
    assert torch.equal(cut, random_resized_crop(images, Generator().manual_seed(0)))
    assert not torch.equal(cut, random_resized_crop(images, Generator().manual_seed(1)))
    # Pixels of the source per pixel of the result, in the middle, where the border does not matter: the extents.
    middle = cut[:, :, 16:48, 16:48]
    height = (middle[:, 0, -1, 0] - middle[:, 0, 0, 0]) / 31
    width = (middle[:, 1, 0, -1] - middle[:, 1, 0, 0]) / 31
    area, ratio = height * width, width / height
    assert area.min() > 0.08 * 0.7 and area.max() <= 1.01  # a side that was cut to the image's makes a smaller area
    assert area.min() < 0.15 and area.max() > 0.9
    assert ratio.min() > 0.74 and ratio.max() < 1.34 and ratio.min() < 0.8 and ratio.max() > 1.25
    assert height.max() <= 1.001 and width.max() <= 1.001
    top = middle[:, 0, 0, 0] - height * 16  # where the rectangles begin
    assert top.min() < 3 and top.max() > 30


def dataset(size: int) -> Transform:
    plain = types.SimpleNamespace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), augment=lambda images, _: images)
    return Transform(plain, torch.device("cpu"), 0, size)


@pytest.mark.parametrize("stored, size", [(64, 224), (32, 224), (64, 32), (28, 32), (37, 224), (300, 37)])
def test_resizing_is_that_of_torchvision(stored, size):
    raw = torch.randint(0, 256, (2, 3, stored, stored), dtype=torch.uint8, generator=Generator().manual_seed(0))
    expected = vision.resize(raw.float() / 255, [size, size], antialias=True).clamp(0, 1)
    for transform in (dataset(size).test, dataset(size).train):
        assert transform(raw).shape == (2, 3, size, size)
        assert (transform(raw) - expected).abs().max() < 1e-5
    assert torch.equal(dataset(stored).test(raw), raw.float() / 255)


def test_inputs_are_normalised_by_channel():
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)}
    plain = types.SimpleNamespace(**statistics, augment=lambda images, _: images / 2)
    transform = Transform(plain, torch.device("cpu"), 0, 4)
    raw = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8)  # 0.2
    for made, value in ((transform.test(raw), 0.2), (transform.train(raw), 0.1)):
        expected = [(value - 0.1) / 0.5, (value - 0.2) / 0.25, (value - 0.3) / 2]
        torch.testing.assert_close(made, torch.tensor(expected).view(1, 3, 1, 1).expand(2, 3, 4, 4))


def test_the_training_seed_decides_the_augmentation():
    def drawn(seed):
        plain = types.SimpleNamespace(
            mean=(0.0,) * 3, std=(1.0,) * 3, augment=lambda images, own: torch.rand(3, generator=own)
        )
        transform = Transform(plain, torch.device("cpu"), seed, 4)
        return transform.train(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).flatten().tolist()

    assert drawn(1) == drawn(1) != drawn(2)


def test_small_images_are_kept_small_and_enlarged_by_the_batch(tmp_path):
    from datasets.base import Places
    from datasets.seq_tinyimg import SeqTinyimg

    side = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file = saved(tmp_path, side, "PNG")
    for network, stored in ((224, 64), (64, 64), (32, 32)):
        images, _ = SeqTinyimg().decode(tmp_path, [file], [0], Places(tmp_path, tmp_path, network), True)
        assert images.shape == (1, 3, stored, stored)
        assert dataset(network).test(torch.from_numpy(np.array(images))).shape == (1, 3, network, network)
