"""Tensor files: written whole, and read from any origin without running what is in them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from utils.errors import UsageError
from utils.files.archives import MAX_GROWTH, growth_limit
from utils.files.atomic import written_whole
from utils.files.pickles import check_pickle

LEGACY_PICKLES = 5  # in a row, before the numbers: magic number, protocol, system, content, names of the storages


class _Inert:
    """Takes the place of what training scripts pickle beside their tensors. Keeps nothing and does nothing."""

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# The arguments of a training run, and the numpy scalars in its optimiser (full iBOT checkpoints). A name stands for
# the class above while a file is read; the real class or function is never called.
_INERT: list[Any] = [
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
    )
]
# What tensors and the objects beside them are made by. Others that torch would call make as much as a number says.
_MAKERS = {
    *(name for _, name in _INERT),
    *("collections.OrderedDict", "collections.Counter", "set", "complex"),
    *("_codecs.encode", "torch.Size", "torch.device", "torch.serialization._get_layout"),
    *("torch.nn.parameter.Parameter", "torch.nn.Parameter", "torch._tensor._rebuild_from_type_v2"),
    *(
        f"torch._utils._rebuild_{kind}"
        for kind in ("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "qtensor")
    ),
    *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_meta_tensor_no_storage"),
}


def read_tensors(path: Path) -> Any:
    """Content of a .safetensors or .npz file, else of what torch.save wrote. Nothing in the file can run code.

    Raises UsageError if the file is missing or cannot be read in that way.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        _check_growth(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            return _read_npz(path)
        # torch warns about pickles that it then refuses.
        with warnings.catch_warnings(), torch.serialization.safe_globals(_INERT):
            warnings.simplefilter("ignore")
            _check_pickles(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many types; whichever it is, the file is unusable
        needed = _code_needed(str(error))
        if needed:
            raise UsageError(
                f"{path}: cannot be read as tensors, it holds more than these ({needed}); "
                f"if you trust it, and its classes can be imported here, convert it: {_conversion(path)}"
            ) from None
        # One sentence: what torch adds to it is advice to load the file in an unsafe way.
        why = next(iter(str(error).strip().splitlines()), "").split(". ")[0]
        if isinstance(error, (LookupError, EOFError)) or not why:  # the unpickler stumbled
            why = "it is damaged or of another format"
        raise UsageError(f"{path}: cannot be read as tensors ({why})") from None


def _check_growth(path: Path) -> None:
    """Refuses an archive of arrays or of a pickle that unpacks to far more than it is."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > growth_limit(path):
            raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size")


def _check_pickles(path: Path) -> None:
    """Refuses what torch.save wrote, or seems to have written, if reading it would end the process or never end."""
    with open(path, "rb") as file:
        if file.read(4) == b"PK\3\4":  # by which torch tells its two formats apart
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                names = [member.filename.lower() for member in members]  # torch finds them in any case
                if len(set(names)) < len(names):
                    raise ValueError("two of its members have one name")
                held = sum(member.file_size for member in members)
                found = [
                    check_pickle(io.BytesIO(archive.read(member)))
                    for member, name in zip(members, names)
                    if name.endswith("data.pkl")
                ]
        else:
            file.seek(0)
            held = path.stat().st_size
            found = [check_pickle(file) for _ in range(LEGACY_PICKLES)]
    if foreign := sorted(set().union(*(calls for calls, _ in found)) - _MAKERS):
        raise ValueError(f"Unsupported GLOBAL {foreign[0]}")  # as torch says it
    if sum(numbers for _, numbers in found) > held:
        raise ValueError("it names more numbers than it holds")


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _code_needed(message: str) -> str | None:
    """What a file of Python objects would call, from the message of the reader that refused it."""
    if message.startswith("Object arrays"):
        return "Python objects"
    found = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", message)
    return found and found[1]


def _conversion(path: Path) -> str:
    """A command that keeps the tensors of such a file. It runs code in the file, so it is for the user to decide."""
    if path.suffix == ".npz":
        code = (
            f"a = np.load(i, allow_pickle={True}); "
            "np.savez(o, **{k: a[k] for k in a.files if a[k].dtype.kind in 'biuf'})"
        )
        code, suffix = f"import sys, numpy as np; i, o = sys.argv[1:]; {code}", "npz"
    else:
        code = (
            f"c = torch.load(i, map_location='cpu', weights_only={False}); "
            "d = lambda c: c.state_dict() if hasattr(c, 'state_dict') else c; "
            "f = lambda c: {k: f(d(v)) for k, v in c.items() if isinstance(d(v), (dict, torch.Tensor))} "
            "if isinstance(c, dict) else c; torch.save(f(d(c)), o)"
        )
        code, suffix = f"import sys, torch; i, o = sys.argv[1:]; {code}", "pth"
    converted = path.with_name(f"{path.stem}-tensors.{suffix}")
    return f'python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(converted))}'


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A .safetensors file of a flat state dict, from any device; equal states give equal files.

    A tensor that has two names, as in a backbone that a wrapper and its host hold, is written under the first;
    `safetensors.torch.load_model` fills both.
    """
    seen: set[tuple] = set()
    unique = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.device)
        if tensor.numel() == 0 or place not in seen:
            unique[name] = tensor.detach().to("cpu", copy=True).contiguous()
            seen.add(place)
    with written_whole(path) as temporary:
        save_whole(unique, temporary)


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """safetensors' `save_file`, whose own error for a full disk becomes the OSError that it comes from."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Digest of names, shapes and numbers."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_pth(content: Any, path: Path) -> None:
    """`torch.save`, whole or absent. Equal contents give equal files."""
    # By way of memory: straight to a path it would write the temporary name into the file, and to a full disk it
    # answers with an error that does not say so.
    file = io.BytesIO()
    torch.save(content, file)
    with written_whole(path) as temporary:
        temporary.write_bytes(file.getbuffer())


def export_pth(state: dict[str, Tensor], path: Path) -> None:
    """A .pth file for the scripts of the MePo authors: the flat state dict in float32, from any device.

    Equal states give equal files.
    """
    # Copies, since torch.save writes the whole storage that a view looks into.
    plain = {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in state.items()}
    write_pth(plain, path)
