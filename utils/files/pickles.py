"""Pickles, read without the power to run anything: those of arrays here (CIFAR's batches), others by torch."""

from __future__ import annotations

import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from utils.errors import UsageError, reason
from utils.files.text import open_file

MOST_STEPS = 500_000  # CIFAR-100's names and labels need 200,000, the tensors of a large network some 40 each
MOST_WORK = 20_000_000  # things that are put into others, each with all that it stands for
TEXT = 64  # characters that count as one thing


class _Kind:
    """Stands in for numpy.dtype, whose own state a damaged file could set to anything."""

    def __init__(self, code: str, *_: object):
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.code = state[1] + self.code  # the order of bytes


class _Array:
    """Stands in for an array, for the same reason."""

    value: np.ndarray

    def __init__(self, *_: object):
        """The arguments are those of every array; what counts is the state."""

    def __setstate__(self, state: tuple) -> None:
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

    def find_class(self, module: str, name: str) -> Any:
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
            check_pickle(stream)
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


# Opcode -> (things that it takes from the stack, whether it takes all that lie above the last mark before).
_BEFORE = {
    opcode.name: (names.index("mark") if "mark" in names else len(names), "mark" in names)
    for opcode in pickletools.opcodes
    for names in [[thing.name for thing in opcode.stack_before]]
}
_PUT, _GET = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
_FILL = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # change the first thing that they take
_CALL = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ")


class _Thing:
    """What a pickle would make. size: how many things it stands for, each counted as often as it stands in it.

    value: of a number or text, the name of a class or function, those of the first things of a tuple. held: it stands
    in another thing.
    """

    __slots__ = ("size", "value", "held")

    def __init__(self, size: int, value: Any = None):
        self.size, self.value, self.held = size, value, False


def check_pickle(stream: BinaryIO) -> tuple[set[str], int]:
    """Goes through one pickle without carrying it out: the names that it calls, and the numbers of all its storages.

    UnpicklingError for more steps than real files take, and for few steps that stand for much: things that hold each
    other many times over, as arguments and keys too, are counted as often as a reader could meet them.
    """
    stack: list[Any] = []  # of things, and None for a mark
    memo: dict[int, _Thing] = {}
    calls: set[str] = set()
    storages: dict[str, int] = {}
    work = 0
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            kind, argument = opcode.name, cast(Any, argument)
            if kind in _PUT:
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif kind in _GET:
                stack.append(memo[argument])
            elif kind == "MARK":
                stack.append(None)
            elif kind == "DUP":
                stack.append(stack[-1])
            elif _BEFORE[kind] == (0, False):
                if opcode.stack_after:
                    stack.append(_made(kind, argument, [], 0))
            else:
                taken = _take(stack, *_BEFORE[kind])
                filled = taken.pop(0) if kind in _FILL else None
                size = sum(thing.size for thing in taken)
                work += size
                if filled is not None:
                    if filled.held and taken:  # its holder was counted without what comes now
                        raise pickle.UnpicklingError("it fills what stands in something else already")
                    filled.size += size
                    stack.append(filled)
                elif opcode.stack_after:
                    stack.append(_made(kind, argument, taken, size))
                for thing in taken:
                    thing.held = True
                if kind in _CALL:
                    calls |= _called(argument, taken)
                elif kind == "BINPERSID":
                    _, _, key, _, length = taken[0].value[:5]
                    storages[str(key)] = max(length, 0)
            if step > MOST_STEPS or work > MOST_WORK:
                raise pickle.UnpicklingError("it builds more than tensors or arrays need")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise pickle.UnpicklingError("it is damaged or of another format") from None
    return calls, sum(storages.values())


def _take(stack: list[Any], count: int, to_mark: bool) -> list[_Thing]:
    """The things that an opcode takes, the lowest first."""
    taken = []
    while to_mark and (thing := stack.pop()) is not None:
        taken.append(thing)
    return [*reversed([stack.pop() for _ in range(count)]), *reversed(taken)]


def _made(kind: str, argument: object, taken: list[_Thing], size: int) -> _Thing:
    """What an opcode puts on the stack."""
    value = argument
    if kind == "STACK_GLOBAL":
        value = f"{taken[0].value} {taken[1].value}"
    elif kind.startswith("TUPLE"):
        value = tuple(None if isinstance(thing.value, tuple) else thing.value for thing in taken[:8])
    return _Thing(1 + size + (len(argument) // TEXT if isinstance(argument, str | bytes | bytearray) else 0), value)


def _called(argument: object, taken: list[_Thing]) -> set[str]:
    """Names that a call leads to, as module.name. argument: the name where the opcode itself has it."""
    names = [argument or taken[0].value]
    given = taken[1].value if len(taken) > 1 and isinstance(taken[1].value, tuple) else ()
    if names == ["torch._tensor _rebuild_from_type_v2"]:
        names += given[:1]  # which it calls in turn
    if names == ["_codecs encode"] and given[1:] not in (("latin1",), ("latin-1",)):
        raise pickle.UnpicklingError("it writes text in a code that could take for ever")
    return {re.sub(r"^(__builtin__|builtins)\.", "", str(name).replace(" ", ".")) for name in names}
