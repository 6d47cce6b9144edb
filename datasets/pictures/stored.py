"""Pictures of one dataset in one compressed file, with the names of what they show and of the sets they come from.

The file is an xz stream: a line of JSON, then three arrays as .npy files: labels, sets, pictures. `SHA256SUMS` beside
it has its digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.errors import UsageError, reason
from utils.files.text import open_file

FOLDER = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
AGAIN = "get it again with git, or make it with command/make_pictures.sh"
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


@dataclass(frozen=True)
class About:
    """What the pictures are. size: side in pixels. concepts: what they show, by label. sets: who drew them; the first
    `training_sets` of them are for training. families: sets of one origin, each wholly on one side. development: labels
    of the concepts on which options are chosen."""

    size: int
    concepts: list[str]
    sets: list[str]
    training_sets: int
    families: list[list[str]]
    development: list[int]


@dataclass(frozen=True)
class Stored:
    """pictures: uint8, grey [N, S, S], or colours and coverage [N, 4, S, S]. labels, sets: int64 [N], positions in
    `about.concepts` and `about.sets`."""

    about: About
    labels: np.ndarray
    sets: np.ndarray
    pictures: np.ndarray

    def rows(self, train: bool) -> np.ndarray:
        """Positions of the pictures of a part."""
        return np.flatnonzero((self.sets < self.about.training_sets) == train)


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.xz"


def digest_of(folder: Path, name: str) -> str:
    """SHA-256 of a file of pictures as it was written. Raises UsageError if nothing tells it."""
    file = file_of(folder, name)
    try:
        with open_file(folder / SUMS) as sums:
            lines = sums.read(1 << 16).decode("ascii").splitlines()
        return dict(reversed(line.split(maxsplit=1)) for line in lines)[file.name]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder / SUMS}: does not tell the digest of {file.name} ({reason(error)}); {AGAIN}"
        ) from None


def read(folder: Path, name: str) -> Stored:
    """The pictures of a file. Raises UsageError if it is not what was written."""
    content, digest = _content(folder, name), digest_of(folder, name)
    file = file_of(folder, name)
    if hashlib.sha256(content).hexdigest() != digest:
        raise UsageError(f"{file}: its bytes are not those of {SUMS}; {AGAIN}")
    try:
        stream = io.BytesIO(lzma.decompress(content, format=lzma.FORMAT_XZ))
        about = About(**json.loads(stream.readline()))
        arrays = [np.lib.format.read_array(stream, allow_pickle=False) for _ in range(3)]
    except (lzma.LZMAError, ValueError, TypeError, EOFError) as error:
        raise UsageError(f"{file}: cannot be read ({reason(error)}); {AGAIN}") from None
    return Stored(about, arrays[0].astype(np.int64), arrays[1].astype(np.int64), arrays[2])


def write(
    folder: Path,
    name: str,
    about: About,
    labels: np.ndarray,
    sets: np.ndarray,
    pictures: Iterable[np.ndarray],
    shape: tuple[int, ...],
) -> None:
    """Writes the file of `pictures`, one after the other, each of `shape`."""
    file = file_of(folder, name)
    with lzma.open(file, "wb", format=lzma.FORMAT_XZ, filters=FILTERS) as stream:
        stream.write(json.dumps(asdict(about), separators=(",", ":")).encode() + b"\n")
        for array in (labels, sets):
            np.lib.format.write_array(stream, array.astype("<u2"), version=(1, 0), allow_pickle=False)
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
        np.lib.format.write_array_header_1_0(stream, header)
        for picture in pictures:
            assert picture.shape == shape and picture.dtype == np.uint8
            stream.write(picture.tobytes())


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Writes the digests of the files, as sha256sum does."""
    files = [file_of(folder, name) for name in sorted(names)]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def _content(folder: Path, name: str) -> bytes:
    file = file_of(folder, name)
    try:
        with open_file(file) as stream:
            return stream.read()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({reason(error)}); {AGAIN}") from None
