"""Pickles of arrays, read without the power to run anything: CIFAR's batches are the reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from utils.errors import UsageError

# What arrays are made of, in the spelling of Python 2 and numpy 1, and of today.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no array") from None


def read_arrays(file: Path, wanted: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Integer arrays of a pickled dictionary. wanted: name -> shape, -1 for any length.

    Raises UsageError for a file that is missing, damaged, holds anything but arrays and plain values, or other shapes.
    """
    try:
        with open(file, "rb") as stream:
            content = _ArrayUnpickler(stream, encoding="latin1").load()
        found = {name: np.asarray(content[name]) for name in wanted}
    except Exception as error:  # a damaged pickle raises almost anything
        raise UsageError(f"{file}: cannot be read ({type(error).__name__}: {error}); fetch it again") from None
    for name, shape in wanted.items():
        array = found[name]
        fits = len(array.shape) == len(shape) and all(b in (a, -1) for a, b in zip(array.shape, shape))
        if array.dtype.kind not in "iu" or not fits:
            raise UsageError(f"{file}: {name} is {array.dtype} {list(array.shape)}, expected integers {list(shape)}")
    return found
