"""Tensor files: written whole, and read from any origin without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from utils.errors import UsageError
from utils.files import written_whole


def read_tensors(path: Path) -> Any:
    """Content of a .safetensors file, or of a .pth or .pt file of plain tensors. Nothing in the file can run code.

    Raises UsageError if the file is missing or cannot be read in that way.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many types; whichever it is, the file is unusable
        # One sentence: what torch adds to it is advice to load the file in an unsafe way.
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).split(". ")[0]
        raise UsageError(f"{path}: cannot be read as tensors ({reason})") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A .safetensors file of a flat state dict, from any device."""
    with written_whole(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
