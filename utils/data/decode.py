"""Image files to one memory-mapped array: decoded once, kept for every later run, and known by their content."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from utils.data import listing
from utils.data.cache import made_once, read_note, sealed, write_note
from utils.errors import UsageError
from utils.files.atomic import written_whole
from utils.files.disk import check_space
from utils.files.text import open_file

VERSION = 2  # of what decoding does; a new one makes new caches
# What Pillow may take a file for, whatever its name is. Not PostScript, which it would let another program run.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF")
MAX_PIXELS = 2 * 89_478_485  # of an image; Pillow's own limit, whose file may need 512 MiB of memory
CHUNK = 512  # images that are decoded between two writes
SHOWN = 3  # bad files named in a message
MAX_SIDE = 1 << 16  # pixels of an enlarged image; at the usual 256 this is an aspect ratio of 256

# How an image of any shape becomes a square of S pixels. squash: both sides to S. crop: the shorter side to 8/7 S
# (256 for 224), then the centre.
Fit = Literal["squash", "crop"]
T = TypeVar("T")


def decoded(
    folder: Path,
    paths: list[Path],
    size: int,
    fit: Fit,
    cache: Path,
    title: str,
    skip_bad: bool,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Images of `paths`, uint8 [M, 3, size, size], memory-mapped, and the rows of `paths` they come from, int64 [M].

    The cache file is named by a hash of the list (path below `folder`, bytes, time of change, right to read), size, fit
    and limit. It is used if it is what was written and the files still have the content it was made of; otherwise it is
    made again. title: of the dataset part, for the file name and messages. max_pixels: of an image that is read. Raises
    UsageError for images that cannot be read, unless skip_bad.
    """
    states = _states(paths)
    limit = () if max_pixels == MAX_PIXELS else (max_pixels,)
    file = _place(cache, title, _key(folder, paths, states, size, fit, *limit), ".npy")

    def fits(seal: dict) -> str | None:
        same = seal["content"] == content_sha256(folder, paths, cache, title, states)
        if not same:
            return "its images have changed since"
        return None if seal["shape"] == [len(paths) - len(seal["bad"]), 3, size, size] else "it is of another list"

    def make() -> None:
        _decode_all(folder, paths, states, size, fit, file, title, skip_bad, max_pixels)

    images, seal = made_once(file, make, fits)
    bad = seal["bad"]
    if bad:
        if not skip_bad:
            raise UsageError(bad_message(title, bad, "leave them out with --skip_bad"))
        listed = f"left out, listed in {file.with_suffix('.bad.json')}"
        print(f"warning: {bad_message(title, bad, listed)}", file=sys.stderr)
    return images, np.delete(np.arange(len(paths)), [row for row, _, _ in bad])


def content_sha256(folder: Path, paths: list[Path], cache: Path, title: str, states: list | None = None) -> str:
    """Digest of names and content of image files in their order, wherever they lie; as if empty where unreadable.

    Kept in the cache; files are read again if one of them was touched since. states: of the files, as `_states` gives.
    """
    states = _states(paths) if states is None else states
    file = _place(cache, title, _key(folder, paths, states), ".content.json")
    note = read_note(file)
    if note is not None and note["stamp"] == _stamp(states):
        return note["sha256"]

    def one(path: Path) -> str:
        try:
            return _sha256(_read(path))
        except OSError:
            return ""

    sums = [found for _, found in _in_threads(one, paths, f"reading {title}")]
    return _keep_content(file, paths, sums, states)


def unreadable(
    folder: Path, paths: list[Path], cache: Path, title: str, max_pixels: int
) -> tuple[list[tuple[int, str, str]], Path]:
    """Row, name and reason of the images of `paths` that cannot be read, and the file that keeps these.

    Every image is read for it, once; again if one of them was touched since.
    """
    states = _states(paths)
    file = _place(cache, title, _key(folder, paths, states, max_pixels), ".unreadable.json")
    note = read_note(file)
    if note is None or note["stamp"] != _stamp(states):
        one = functools.partial(_decoded_or_why, size=8, fit="squash", max_pixels=max_pixels)
        results = enumerate(_in_threads(one, paths, f"looking for bad images of {title}"))
        bad = [(k, os.path.relpath(path, folder), why) for k, (path, (_, why)) in results if isinstance(why, str)]
        note = {"stamp": _stamp(states), "bad": bad}
        write_note(file, note)
    return note["bad"], file


def decode(source: Path | BinaryIO, size: int, fit: Fit, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """One image file as uint8 [3, size, size]: first frame, transparency dropped, grey of more than eight bits reduced.

    Sixteen bits: their upper eight. Thirty-two, whole numbers or not, and sixteen with a sign, whose black and white no
    one agreed on: zero, or the lowest value below it, becomes black and the highest white. Raises OSError,
    ValueError or one of Pillow's errors for what is no image, or one of more than max_pixels.
    """
    Image.MAX_IMAGE_PIXELS = None  # one for all threads, and none that an option could lift; ours is below
    try:
        file = Image.open(io.BytesIO(_read(source)) if isinstance(source, Path) else source, formats=_formats())
    except UnidentifiedImageError:  # whose message names no file, but its place in memory
        raise ValueError("cannot identify image file") from None
    with file as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(
                f"{width}x{height} pixels, --max_pixels is {max_pixels}: a decompression bomb, or give a larger one"
            )
        image = in_colour(image)
    return squared(image, size, fit)


def in_colour(image: Image.Image) -> Image.Image:
    """A picture of any kind as RGB of eight bits, as `decode` makes it."""
    return _eight_bits(image).convert("RGB")


def squared(image: Image.Image, size: int, fit: Fit) -> np.ndarray:
    """A picture in RGB as uint8 [3, size, size]. Raises ValueError for one that is too narrow to be cropped."""
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


def each_decoded(paths: Sequence[Path], size: int, fit: Fit, max_pixels: int, ahead: int) -> Iterator[np.ndarray | str]:
    """Every image of `paths`, in order, as `decode` gives it, or why there is none. ahead: images decoded at a time."""
    one = functools.partial(_decoded_or_why, size=size, fit=fit, max_pixels=max_pixels)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # of odd metadata; what matters raises
        for start in range(0, len(paths), ahead):
            for _, image in pool.map(one, paths[start : start + ahead]):
                yield image


def _formats() -> tuple[str, ...]:
    return (*FORMATS, "AVIF") if listing.AVIF[0] in listing.extensions() else FORMATS


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of sixteen or thirty-two bits, which convert would cut off at 255, in eight."""

    def tagged(tag: int, value: int) -> bool:
        return image.format == "TIFF" and value in cast(Any, image).tag_v2.get(tag, ())

    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or tagged(258, 32) or tagged(339, 2):  # bits of a sample; its format, with a sign
        values = values.astype(np.float64)
        low, high = min(0.0, values.min()), values.max()
        if not np.isfinite([low, high]).all():
            raise ValueError("holds grey values that are no finite numbers")
        values = np.rint((values - low) * 255 / (high - low or 1))
    else:
        values = values.astype(np.int64) >> 8
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def bad_message(title: str, bad: Sequence[tuple[int, str, str]], then: str) -> str:
    """bad: row, name and reason of images that cannot be read."""
    named = "; ".join(" ".join(f"{name} ({why})".split()) for _, name, why in bad[:SHOWN])
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"{title}: {len(bad)} images cannot be read: {named}{more}; {then}"


def _place(cache: Path, title: str, key: str, ending: str) -> Path:
    return cache / "decoded" / f"{title.replace(' ', '-')}-{key}{ending}"


def _states(paths: list[Path]) -> list[tuple[int, ...] | None]:
    """Of each file bytes, time of change, right to read, and time of any change of these; None where there is none."""
    states: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            stat = path.stat()
            states.append((stat.st_size, stat.st_mtime_ns, stat.st_mode & 0o444, stat.st_ctime_ns, stat.st_ino))
        except OSError:
            states.append(None)  # named when it is decoded
    return states


def _key(folder: Path, paths: list[Path], states: list, *settings: object) -> str:
    digest = hashlib.sha256(repr((VERSION, *settings, len(paths))).encode())
    above = f"{folder}{os.sep}"
    for path, state in zip(paths, states):
        digest.update(repr((str(path).removeprefix(above), state and state[:3])).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]


def _stamp(states: list) -> str:
    """Changes with every write to one of the files, whatever time was given to it afterwards."""
    return _sha256(repr(states).encode())


def _read(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _keep_content(file: Path, paths: list[Path], sums: list[str], states: list) -> str:
    """Digest of files by those of each; kept with their stamp, which was taken before they were read."""
    parts = {str(path.parent) for path in paths}
    above = os.path.commonpath(parts) if parts else ""
    digest = hashlib.sha256()
    for path, own in zip(paths, sums):
        name = os.path.relpath(path, above).replace(os.sep, "/")
        digest.update(f"{name}\0{own}\n".encode("utf-8", "surrogateescape"))
    try:
        write_note(file, {"sha256": digest.hexdigest(), "stamp": _stamp(states)})
    except OSError as error:
        print(f"warning: {file}: cannot be kept ({error.strerror})", file=sys.stderr)
    return digest.hexdigest()


def _in_threads(work: Callable[[Path], T], paths: list[Path], title: str) -> Iterator[tuple[Path, T]]:
    """Every path with what `work` makes of it, in order, a chunk at a time."""
    bar = tqdm(total=len(paths), desc=title, unit="image", disable=None, leave=False)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            yield from zip(chunk, pool.map(work, chunk), strict=True)
            bar.update(len(chunk))


def _decoded_or_why(path: Path, size: int, fit: Fit, max_pixels: int) -> tuple[str, np.ndarray | str]:
    """Digest of a file, and its image or why there is none."""
    own = ""
    try:
        content = _read(path)
        own = _sha256(content)
        return own, decode(io.BytesIO(content), size, fit, max_pixels)
    except Exception as error:  # Pillow raises many types; whichever it is, the file is no usable image
        why = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        return own, (why.strip().splitlines() or [type(error).__name__])[0]


def _decode_all(
    folder: Path,
    paths: list[Path],
    states: list,
    size: int,
    fit: Fit,
    file: Path,
    title: str,
    skip_bad: bool,
    max_pixels: int,
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    check_space(file.parent, len(paths) * 3 * size * size, title, "give another --cache_dir")
    for old in file.parent.glob(f".{file.name}.*.part"):
        old.unlink()  # of a process that was killed

    one = functools.partial(_decoded_or_why, size=size, fit=fit, max_pixels=max_pixels)
    bad: list[tuple[int, str, str]] = []
    sums: list[str] = []
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 3, size, size)}
    seal: dict = {}
    with sealed(file, seal) as temporary:
        with warnings.catch_warnings(), open(temporary, "wb") as out:
            warnings.simplefilter("ignore")  # of odd metadata; what matters raises
            np.lib.format.write_array_header_1_0(out, header)
            begin = out.tell()
            for row, (path, (own, result)) in enumerate(_in_threads(one, paths, f"decoding {title}")):
                sums.append(own)
                if isinstance(result, str):
                    bad.append((row, os.path.relpath(path, folder), result))
                else:
                    out.write(np.ascontiguousarray(result).data)
            if bad and not skip_bad:
                raise UsageError(bad_message(title, bad, "leave them out with --skip_bad"))
            shape = (len(paths) - len(bad), 3, size, size)
            if not shape[0]:
                raise UsageError(f"{title}: no image in {folder}")
            out.seek(0)
            np.lib.format.write_array_header_1_0(out, header | {"shape": shape})
            assert out.tell() == begin  # the header is padded to a multiple of 64 bytes, whatever the count
        note = _place(file.parent.parent, title, _key(folder, paths, states), ".content.json")
        seal |= {"content": _keep_content(note, paths, sums, states), "shape": shape, "bad": bad}
        if bad:  # for people; a run believes the seal
            with written_whole(file.with_suffix(".bad.json")) as part:
                part.write_text(json.dumps(bad, indent=1))
