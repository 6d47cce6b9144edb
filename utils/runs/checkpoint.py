"""Checkpoints of a run: whole or absent, hashed, and read without running what is in them.

A checkpoint is a folder `<run>/checkpoints/<number>/` of state.safetensors (every tensor), state.json (everything
else, and where the tensors belong) and, written last, manifest.json with the SHA-256 of both and the format. It is made
under another name and renamed when it is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from utils.errors import UsageError, reason
from utils.files.atomic import written_whole
from utils.files.disk import remove as clear
from utils.files.manifest import MANIFEST, sha256
from utils.files.tensors import save_whole
from utils.files.text import parse_json, read_text, refuse_pipe

TENSORS, TREE = "state.safetensors", "state.json"
FORMAT = 1  # of what a checkpoint holds; raised by a change after which older ones cannot be read
KEPT = 2  # checkpoints of a run
MOST_TREE, MOST_MANIFEST = 2**29, 2**16  # bytes of a file up to which it is read


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Writes a checkpoint below `folder` and removes all but the newest.

    state: dicts, lists and tuples of tensors, numbers, strings and None. Raises OSError, after which `folder` holds
    what it held before.
    """
    folder.mkdir(exist_ok=True)
    if folder.is_symlink():  # what is old is removed, and that could be somebody else's
        raise OSError(errno.ELOOP, "is a link, no checkpoint is written to another place", str(folder))
    number = 1 + max((int(path.name) for path in found(folder)), default=0)
    final, work = folder / f"{number:06}", folder / f".{number:06}.part"
    clear(work)
    try:
        work.mkdir()
        tensors: dict[tuple, tuple[str, Tensor]] = {}
        tree = _pack(state, tensors)
        save_whole(dict(tensors.values()), work / TENSORS)
        (work / TREE).write_text(json.dumps(tree), encoding="utf-8")
        with ThreadPoolExecutor() as pool:  # digests while the disk is at work
            digests = pool.map(lambda part: (part, sha256(work / part)), (TENSORS, TREE))
            for part in (TENSORS, TREE):
                _sync(work / part)
            manifest = {"format": FORMAT} | dict(digests)
        (work / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for part in (MANIFEST, "."):
            _sync(work / part)
        os.rename(work, final)
        _sync(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in found(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """State of the newest checkpoint below `folder` that is whole; None if there is none. Says which are not.

    Tensors that lay on a GPU come to `device`, the others to the CPU.
    """
    for path in found(folder):
        fault = verify(path)
        if fault is None:
            try:
                tree = parse_json(read_text(path / TREE, MOST_TREE))
                state = _unpack(tree, load_file(path / TENSORS), device)
                if isinstance(state, dict):
                    return state
                raise ValueError("it holds no state")
            except Exception as error:  # somebody else's writing, with a digest; the readers raise many types
                fault = f"cannot be read ({reason(error)})"
        print(f"warning: {path} {fault}; not used", file=sys.stderr)
    return None


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """A state as files of a run folder, each whole; whoever writes them keeps their digests. state: as in `save`."""
    tensors: dict[tuple, tuple[str, Tensor]] = {}
    tree = _pack(state, tensors)
    with written_whole(folder / TENSORS) as temporary:
        save_whole(dict(tensors.values()), temporary)
    with written_whole(folder / TREE) as temporary:
        temporary.write_text(json.dumps(tree), encoding="utf-8")


def read_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """What `write_state` left, its tensors where `load` puts them. Raises UsageError for what is no state."""
    try:
        tree = parse_json(read_text(folder / TREE, MOST_TREE))
        refuse_pipe(folder / TENSORS)
        state = _unpack(tree, load_file(folder / TENSORS), device)
        if not isinstance(state, dict):
            raise ValueError("it holds no state")
    except Exception as error:  # somebody else's writing; the readers raise many types
        raise UsageError(f"{folder / TREE} and {TENSORS}: cannot be read as a state ({reason(error)})") from None
    return state


def verify(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is what was written."""
    try:
        manifest = parse_json(read_text(path / MANIFEST, MOST_MANIFEST))
        if manifest["format"] != FORMAT:
            return f"has format {manifest['format']!r:.20}, this version reads {FORMAT}"
        for part in (TENSORS, TREE):
            if sha256(path / part) != manifest[part]:
                return f"is damaged ({part} is not what was written)"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"is damaged ({reason(error)})"
    return None


def remove(folder: Path) -> None:
    """Takes away the checkpoints of a run that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """Checkpoints below `folder`, newest first, whether they are whole or not."""
    with contextlib.suppress(OSError):
        return sorted((path for path in folder.iterdir() if path.name.isdecimal()), reverse=True)
    return []


def _pack(value: Any, tensors: dict[tuple, tuple[str, Tensor]]) -> Any:
    """`value` as JSON. tensors: place in memory -> (name, copy on the CPU); one that stands twice is written once."""
    if isinstance(value, Tensor):
        # An empty tensor has no place, but an identity, as all of the state is alive.
        place = (value.data_ptr() or id(value), value.dtype, tuple(value.shape), value.stride(), value.device)
        if place not in tensors:
            tensors[place] = (str(len(tensors)), value.detach().to("cpu", copy=True).contiguous())
        return {"tensor": [tensors[place][0], value.device.type != "cpu"]}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, tensors), _pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_pack(entry, tensors) for entry in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a state cannot hold {type(value).__name__}")


def _unpack(tree: Any, tensors: dict[str, Tensor], device: torch.device) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        name, on_device = content
        return tensors[name].to(device) if on_device else tensors[name]
    if kind == "dict":
        return {_unpack(key, tensors, device): _unpack(entry, tensors, device) for key, entry in content}
    return {"list": list, "tuple": tuple}[kind](_unpack(entry, tensors, device) for entry in content)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # opens no folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
