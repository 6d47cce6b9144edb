"""Features of test images by a frozen network: computed once, and found again by later runs, methods and seeds.

A file is named by what decides its numbers, and holds them beside their digest. Before it is believed, the features of
the first batch are computed again and compared with it, bit by bit: that tells what no name says, other code, libraries
or a processor that rounds otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UsageError, reason
from utils.files.tensors import read_tensors, tensors_sha256, write_tensors

FOLDER = "features"  # below `--cache_dir`
LIMIT = 2**30  # bytes that the folder may take; files that were not read for longest leave first
FILES = "features-*.safetensors"
NUMBERS, DIGEST = "features", "sha256"  # names in a file


def kept_features(
    folder: Path, weights: dict[str, Tensor], settings: list, count: int, parts: Iterable[Callable[[], Tensor]]
) -> Tensor:
    """Features [N, ...] whose batches `parts` compute in order; from the folder, where it has them, or put there.

    count: N. weights: of the network. settings: what else decides the numbers, plain values. What cannot be kept is a
    warning.
    """
    first, *rest = parts
    begin = first()
    decides = [*settings, tensors_sha256(weights), torch.__version__]
    file = folder / f"features-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:24]}.safetensors"
    if os.path.isfile(file):
        found = _read(file)
        if not isinstance(found, str) and not torch.equal(found[: len(begin)], begin.cpu()):
            found = "its first batch is not what is computed now"
        if not isinstance(found, str) and len(found) != count:
            found = f"it has {len(found):,} images, not {count:,}"
        if not isinstance(found, str):
            with contextlib.suppress(OSError):  # a folder that may only be read
                os.utime(file)
            return found.to(begin.device)
        print(f"warning: {file}: {found}; computed again", file=sys.stderr)
    features = torch.cat([begin, *(part() for part in rest)])
    try:
        _write(file, features)
    except OSError as error:
        print(f"warning: {file}: cannot be kept ({error.strerror}); later runs compute it again", file=sys.stderr)
    return features


def fault(file: Path) -> str | None:
    """Why a file is not believed, None if nothing speaks against it."""
    found = _read(file)
    return found if isinstance(found, str) else None


def _read(file: Path) -> Tensor | str:
    """The features in a file, or why there are none."""
    try:
        tensors = read_tensors(file)
    except UsageError as error:
        return reason(error).removeprefix(f"{file}: ")
    if tensors.keys() != {NUMBERS, DIGEST} or not torch.equal(tensors[DIGEST], _digest(file, tensors[NUMBERS])):
        return "its numbers are not those that were written"
    return tensors[NUMBERS]


def _write(file: Path, features: Tensor) -> None:
    """Raises OSError."""
    size = features.numel() * features.element_size()
    if size <= LIMIT and features.isfinite().all():  # the run will say what is wrong with others
        _make_room(file.parent, LIMIT - size)
        write_tensors(file, {NUMBERS: features, DIGEST: _digest(file, features)})
        _make_room(file.parent, LIMIT)  # others may have written meanwhile


def _make_room(folder: Path, limit: int) -> None:
    """Removes the files that were not read for longest, what a killed process left among them, down to these bytes."""
    states = []
    for file in (*folder.glob(FILES), *folder.glob(".features-*.part")):
        with contextlib.suppress(FileNotFoundError):  # another process made room
            state = file.stat()
            states.append((state.st_mtime, state.st_size, file))
    size = sum(bytes_ for _, bytes_, _ in states)
    for _, bytes_, file in sorted(states):
        if size > limit:
            file.unlink(missing_ok=True)
            size -= bytes_


def _digest(file: Path, features: Tensor) -> Tensor:
    """Of the features and the name of their file [32]."""
    return torch.frombuffer(bytearray.fromhex(tensors_sha256({file.name: features})), dtype=torch.uint8)
