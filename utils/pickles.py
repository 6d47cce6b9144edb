"""Pickles of arrays, read without the power to run anything: CIFAR's batches are the reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from utils.errors import UsageError, reason


class _Kind:
    """Stands in for numpy.dtype, whose own state a damaged file could set to anything."""

    def __init__(self, code: str, *_):
        self.code = code

    def __setstate__(self, state: tuple):
        self.code = state[1] + self.code  # the order of bytes


class _Array:
    """Stands in for an array, for the same reason."""

    value: np.ndarray

    def __init__(self, *_):
        """The arguments are those of every array; what counts is the state."""

    def __setstate__(self, state: tuple):
        _, shape, kind, in_fortran_order, content = state
        content = content if isinstance(content, bytes) else content.encode("latin-1")
        self.value = np.frombuffer(content, kind.code).reshape(shape, order="F" if in_fortran_order else "C")


# What arrays are made of, in the spelling of Python 2 and numpy 1, and of today.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,  # an argument that is not looked at
    ("numpy", "dtype"): _Kind,
}


class _ArrayUnpickler(pickle._Unpickler):  # the one in Python: the other one fills the memory at a damaged index
    dispatch = {key: load for key, load in pickle._Unpickler.dispatch.items() if key != pickle.BYTEARRAY8[0]}

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
        values = {name: content[name] for name in wanted}
        found = {
            name: value.value if isinstance(value, _Array) else np.asarray(value) for name, value in values.items()
        }
    except Exception as error:  # a damaged pickle raises almost anything
        raise UsageError(f"{file}: cannot be read ({type(error).__name__}: {reason(error)}); fetch it again") from None
    for name, shape in wanted.items():
        array = found[name]
        fits = len(array.shape) == len(shape) and all(b in (a, -1) for a, b in zip(array.shape, shape))
        if array.dtype.kind not in "iu" or not fits:
            raise UsageError(f"{file}: {name} is {array.dtype} {list(array.shape)}, expected integers {list(shape)}")
    return found
