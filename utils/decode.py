"""Image files to one memory-mapped array: listed as torchvision does, decoded once, kept for every later run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from utils.download import lock
from utils.errors import UsageError, reason
from utils.files import parse_json, parse_yaml, read_text, refuse_pipe, written_whole

VERSION = 1  # of what decoding does; a new one makes new caches
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# What Pillow may take a file for, whatever its name is. Not PostScript, which it would let another program run.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
CHUNK = 512  # images that are decoded between two writes
SHOWN = 3  # bad files named in a message
MAX_SIDE = 1 << 16  # pixels of an enlarged image; at the usual 256 this is an aspect ratio of 256

# How an image of any shape becomes a square of S pixels. squash: both sides to S. crop: the shorter side to 8/7 S
# (256 for 224), then the centre.
Fit = Literal["squash", "crop"]


def class_names(folder: Path) -> list[str]:
    """Names of the class folders, sorted. Raises UsageError if there are none."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from None
    if not names:
        raise UsageError(f"{folder}: holds no class folders")
    return names


def class_folders(
    folder: Path, skip_empty: bool = False, known: Sequence[str] | None = None
) -> tuple[list[Path], list[int]]:
    """Images below `folder/<class>/` and their labels, in the order of torchvision's ImageFolder.

    known: names of the classes by label; None: the folders that are there, sorted. Raises UsageError for a folder
    without classes, with another class than the known ones, or that cannot be read, and for a class without an image
    unless skip_empty.
    """
    names = class_names(folder)
    label_of = {name: label for label, name in enumerate(names if known is None else known)}
    if unknown := [name for name in names if name not in label_of]:
        raise UsageError(f"{folder}: class {unknown[0]} is not one of the {len(label_of)} known ones")
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    for name in names:
        own = [
            Path(parent, file)
            for parent, _, files in sorted(os.walk(folder / name, onerror=_unlisted, followlinks=True))
            for file in sorted(files)
            if file.lower().endswith(EXTENSIONS)
        ]
        paths += own
        labels += [label_of[name]] * len(own)
        if not own:
            empty.append(name)
    if empty:
        message = f"{folder}: {len(empty)} class folders hold no image ({', '.join(empty[:SHOWN])}"
        message += ", ...)" if len(empty) > SHOWN else ")"
        if not skip_empty:
            raise UsageError(f"{message}; remove them, or --skip_bad")
        print(f"warning: {message}; left out", file=sys.stderr)
    return paths, labels


def _unlisted(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be listed ({error.strerror})")


def remembered_listing(folder: Path, cache: Path, listing: Callable, *settings) -> tuple[list[Path], list[int]]:
    """What `listing(folder)` gives, images and labels, kept in a file until a class folder or `settings` change."""
    try:
        state = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from None
    key = hashlib.sha256(repr((VERSION, str(folder.resolve()), state, settings)).encode()).hexdigest()[:12]
    file = cache / "listings" / f"{key}.json"
    if not file.exists():
        paths, labels = listing(folder)
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps([[os.path.relpath(path, folder) for path in paths], labels]))
    try:
        names, labels = parse_json(read_text(file))
        found = [folder / name for name in names], [int(label) for label in labels]
        if len(names) != len(labels) or not all(map(_is_name, names)):
            raise ValueError("names and labels do not fit")
        return found
    except (OSError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UsageError(f"{file}: this list cannot be read ({error}); delete it, it will be made again") from None


def split_classes(
    paths: list[Path], labels: list[int], train_share: float, seed: int, train: bool
) -> tuple[list[Path], list[int]]:
    """One part of a split of each class, drawn with `seed`; `train_share` of its images, rounded down but at least one,
    are for training."""
    draw, labels = np.random.default_rng(seed), np.asarray(labels)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        chosen[rows[: max(1, int(train_share * len(rows)))]] = True
    rows = np.flatnonzero(chosen == train)
    return [paths[row] for row in rows], labels[rows].tolist()


def sample_classes(paths: list[Path], labels: list[int], samples: int, seed: int) -> tuple[list[Path], list[int]]:
    """Up to `samples` images of each class, drawn with `seed`, in the order of the list."""
    draw, labels = np.random.default_rng(seed), np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    rows = np.sort(np.concatenate([draw.permutation(part)[:samples] for part in parts]))
    return [paths[row] for row in rows], labels[rows].tolist()


def read_list(file: Path) -> list[str]:
    """Paths in a list file: one per line, a label after the path ignored, or CODA-Prompt's YAML with the key `data`.

    Given back as class/file: what comes before differs between machines.
    """
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as a list of images ({error})") from None
    if file.suffix in (".yaml", ".yml"):
        try:
            names = parse_yaml(text)["data"]
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{file}: holds no list under the key 'data'") from None
    else:
        names = [re.sub(r"\s+-?\d+$", "", line.strip()) for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise UsageError(f"{file}: holds no paths of images")
    parts = [Path(name).parts[-2:] for name in names]
    if short := [name for name, part in zip(names, parts) if len(part) < 2 or part[0] in ("/", "..")]:
        raise UsageError(f"{file}: {short[0]} is no path of the form class/file")
    return ["/".join(part) for part in parts]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def decoded(
    folder: Path, paths: list[Path], size: int, fit: Fit, cache: Path, title: str, skip_bad: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Images of `paths`, uint8 [M, 3, size, size], memory-mapped, and the rows of `paths` they come from, int64 [M].

    The cache file is named by a hash of the list (path below `folder`, bytes, time of change, right to read), size and
    fit. title: of the dataset part, for the file name and messages. Raises UsageError for images that cannot be read,
    unless skip_bad.
    """
    key = _key(folder, paths, size, fit)
    file = cache / "decoded" / f"{title.replace(' ', '-')}-{key}.npy"
    bad_list = file.with_suffix(".bad.json")
    if not file.exists():
        with lock(file.with_suffix(".lock")):
            if not file.exists():
                _decode_all(folder, paths, size, fit, file, bad_list, title, skip_bad)
    bad = _read_bad(bad_list, len(paths))
    if bad:
        if not skip_bad:
            raise UsageError(_bad_message(title, bad, "leave them out with --skip_bad"))
        print(f"warning: {_bad_message(title, bad, f'left out, listed in {bad_list}')}", file=sys.stderr)
    try:
        images = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # a damaged header raises almost anything
        raise UsageError(
            f"{file}: this cache cannot be read ({reason(error)}); delete it, it will be made again"
        ) from None
    kept = np.delete(np.arange(len(paths)), [row for row, _, _ in bad])
    if (images.dtype, images.shape) != (np.uint8, (len(kept), 3, size, size)):
        raise UsageError(f"{file}: this cache does not fit its list; delete it, it will be made again")
    return images, kept


def decode(path: Path, size: int, fit: Fit) -> np.ndarray:
    """One image file as uint8 [3, size, size]: first frame, transparency dropped, sixteen bits reduced to eight.

    Raises OSError, ValueError or one of Pillow's errors for what is no image.
    """
    refuse_pipe(path)
    with Image.open(path, formats=FORMATS) as image:
        if image.mode.startswith("I"):  # sixteen bits of grey, which convert would cut off at 255
            image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("RGB")
    width, height = image.size
    if fit == "squash":
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    else:  # as torchvision's Resize and CenterCrop round
        short = round(size * 8 / 7)
        scaled = [short * side // min(width, height) for side in (width, height)]
        if max(scaled) > MAX_SIDE:
            raise ValueError(f"{width}x{height} pixels are too narrow to be cropped")
        left, top = (round((side - size) / 2) for side in scaled)
        image = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(image).transpose(2, 0, 1)


def _key(folder: Path, paths: list[Path], size: int, fit: Fit) -> str:
    digest = hashlib.sha256(repr((VERSION, size, fit, len(paths))).encode())
    above = f"{folder}{os.sep}"
    for path in paths:
        try:
            stat = path.stat()
            state = (stat.st_size, stat.st_mtime_ns, stat.st_mode & 0o444)
        except OSError:
            state = None  # named when it is decoded
        digest.update(repr((str(path).removeprefix(above), state)).encode())
    return digest.hexdigest()[:12]


def _decode_all(folder, paths, size, fit, file, bad_list, title, skip_bad) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    needed, free = len(paths) * 3 * size * size, shutil.disk_usage(file.parent).free
    if needed > free:
        raise UsageError(
            f"{file.parent}: {needed / 2**30:.1f} GiB are needed for {title} and {free / 2**30:.1f} are free; "
            "give another --cache_dir"
        )

    for old in file.parent.glob(f".{file.name}.*.part"):
        old.unlink()  # of a process that was killed

    def one(path: Path) -> np.ndarray | str:
        try:
            return decode(path, size, fit)
        except Exception as error:  # Pillow raises many types; whichever it is, the file is no usable image
            reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
            return (reason.strip().splitlines() or [type(error).__name__])[0]

    bad: list[tuple[int, str, str]] = []
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 3, size, size)}
    with (
        written_whole(file) as temporary,
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        open(temporary, "wb") as out,
    ):
        warnings.simplefilter("ignore")  # of odd metadata; what matters raises, decompression bombs too
        np.lib.format.write_array_header_1_0(out, header)
        begin, written = out.tell(), 0
        bar = tqdm(total=len(paths), desc=f"decoding {title}", unit="image", disable=None, leave=False)
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            for row, (path, result) in enumerate(zip(chunk, pool.map(one, chunk), strict=True), start):
                if isinstance(result, str):
                    bad.append((row, os.path.relpath(path, folder), result))
                else:
                    out.write(np.ascontiguousarray(result).data)
                    written += 1
            bar.update(len(chunk))
        bar.close()
        if bad and not skip_bad:
            raise UsageError(_bad_message(title, bad, "leave them out with --skip_bad"))
        if not written:
            raise UsageError(f"{title}: no image in {folder}")
        out.seek(0)
        np.lib.format.write_array_header_1_0(out, header | {"shape": (written, 3, size, size)})
        assert out.tell() == begin  # the header is padded to a multiple of 64 bytes, whatever the count
        if bad:  # before the array, so that an array without a list is one without bad images
            with written_whole(bad_list) as part:
                part.write_text(json.dumps(bad, indent=1))


def _read_bad(file: Path, count: int) -> list[tuple[int, str, str]]:
    if not file.exists():
        return []
    try:
        bad = [(int(row), str(name), str(reason)) for row, name, reason in parse_json(read_text(file))]
        if not all(0 <= row < count for row, _, _ in bad):
            raise ValueError("it names images that are not there")
        return bad
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"{file}: this list cannot be read ({error}); delete it and the .npy of its name, both will be made again"
        ) from None


def _bad_message(title: str, bad: list[tuple[int, str, str]], then: str) -> str:
    named = "; ".join(" ".join(f"{name} ({reason})".split()) for _, name, reason in bad[:SHOWN])
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"{title}: {len(bad)} images cannot be read: {named}{more}; {then}"
