"""Pickles, read without the power to run anything: those of arrays here (CIFAR's batches), others by torch."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.errors import UsageError, reason
from utils.files import open_file

MOST_TUPLES = 50_000  # a chain of 200,000, each in the next, needs more stack than there is where it is a key


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
    # BYTEARRAY8 makes room for as many bytes as it says will come.
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
        with open_file(file) as stream:
            check_tuples(stream)
            stream.seek(0)
            content = _ArrayUnpickler(stream, encoding="latin1").load()
        found = {name: _as_array(content[name]) for name in wanted}
    except Exception as error:  # a damaged pickle raises almost anything
        raise UsageError(f"{file}: cannot be read ({type(error).__name__}: {reason(error)}); fetch it again") from None
    for name, shape in wanted.items():
        array = found[name]
        fits = len(array.shape) == len(shape) and all(b in (a, -1) for a, b in zip(array.shape, shape))
        if array.dtype.kind not in "iu" or not fits:
            raise UsageError(f"{file}: {name} is {array.dtype} {list(array.shape)}, expected integers {list(shape)}")
    return found


def _as_array(value: object) -> np.ndarray:
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise TypeError("neither an array nor a list of integers")  # lists of one list are small only in a pickle
    return np.array(value, np.int64)


def check_tuples(stream: BinaryIO) -> None:
    """Reads one pickle without carrying it out. UnpicklingError for more tuples than arrays ever need."""
    count = 0
    try:
        for opcode, _, _ in pickletools.genops(stream):
            count += opcode.name.startswith("TUPLE")
            if count > MOST_TUPLES:
                raise pickle.UnpicklingError(f"it makes more than {MOST_TUPLES} tuples")
    except ValueError:
        raise pickle.UnpicklingError("it is damaged or of another format") from None
