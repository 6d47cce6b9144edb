"""What is made once and kept in files for later runs: whoever opens it sees whether it is what was written.

A note is a JSON value with its own digest. An array is an .npy file beside a note of its name, its seal: the digest of
the file, and the stamp of the file as it was left, so that an array nobody touched is not read again to be trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UsageError
from utils.files.atomic import written_whole
from utils.files.disk import filled_by_one
from utils.files.manifest import sha256
from utils.files.text import parse_json, read_text


def write_note(file: Path, value: Any) -> None:
    """Keeps a value of JSON. Raises OSError."""
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps({"value": value, "sha256": _digest(value)}), encoding="utf-8")


def read_note(file: Path) -> Any:
    """The value that was written, None if there is none or if it is not as it was written."""
    try:
        note = parse_json(read_text(file))
        return note["value"] if note["sha256"] == _digest(note["value"]) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def stamp(file: Path) -> list[int]:
    """What changes whenever somebody writes to a file, whatever time he gives it afterwards. Raises OSError."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def seal_of(array: Path) -> Path:
    return array.with_suffix(".json")


@contextlib.contextmanager
def sealed(array: Path, about: dict[str, Any]) -> Iterator[Path]:
    """Gives a temporary name for an .npy file that takes the place of `array`, with its seal written before.

    about: what the seal tells beside the digest; may be filled until the end.
    """
    with written_whole(array) as temporary:
        yield temporary
        seal = about | {"sha256": sha256(temporary)}
        write_note(seal_of(array), seal)
    _renew(array, seal)  # only now, as renaming is a change


def array_fault(array: Path, seal: Any, trusting: bool) -> str | None:
    """Why an array file is not the one that was written; None if it is.

    seal: what `read_note` gives for it. trusting: the file is not read if nobody wrote to it since.
    """
    if seal is None:
        return "nothing tells what was written"
    try:
        if trusting and seal.get("stamp") == stamp(array):
            return None
        return None if sha256(array) == seal["sha256"] else "its bytes are not those that were written"
    except (OSError, AttributeError, KeyError) as error:
        return f"it cannot be read ({getattr(error, 'strerror', None) or 'its seal is of another kind'})"


def open_array(array: Path, fits: Callable[[dict[str, Any]], str | None] = lambda seal: None) -> tuple[Any, Any]:
    """The memory-mapped array and its seal, or (None, why not); (None, None) where no file is.

    fits: of a seal, why its array is not the one that is wanted, or None.
    """
    if not os.path.lexists(array):
        return None, None
    seal = read_note(seal_of(array))
    if fault := array_fault(array, seal, trusting=True) or fits(seal):
        return None, fault
    if seal.get("stamp") != stamp(array):
        _renew(array, seal)
    try:
        return np.lib.format.open_memmap(array, mode="r"), seal
    except Exception as error:  # what is no array of numbers raises almost anything
        return None, f"it cannot be read ({type(error).__name__})"


def made_once(
    array: Path, make: Callable[[], None], fits: Callable[[dict[str, Any]], str | None] = lambda seal: None
) -> tuple[np.ndarray, dict[str, Any]]:
    """The memory-mapped array and its seal. Where it is not what was written, or `fits` says why not, `make` writes it
    by `sealed`, in one process while others wait. Raises UsageError if it is of no use then."""
    found, seal = open_array(array, fits)
    if found is None:
        with filled_by_one(array.with_suffix(".lock"), keep=False):
            found, seal = open_array(array, fits)
            if found is None:
                if seal:
                    warn_of(array, seal)
                make()
                found, seal = open_array(array)
    if found is None:
        raise UsageError(f"{array}: cannot be used, {seal or 'it is gone'}; name another --cache_dir")
    return found, seal


def warn_of(file: Path, fault: str) -> None:
    print(f"warning: {file}: {fault}; made again", file=sys.stderr)


def _renew(array: Path, seal: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a cache that may only be read is hashed every time
        write_note(seal_of(array), seal | {"stamp": stamp(array)})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
