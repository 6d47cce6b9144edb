"""Struct arrays of .mat files, read by scipy in a process of its own.

Its reader is C code: a file that is made to do so ends the process or fills the memory, and then it is that process.
Imports little, as the other process does the same.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from utils.files.text import open_file

MOST = 2**28  # bytes that reading may take; 16,185 annotations are a tenth of that


def read_structs(file: Path, name: str, fields: list[str]) -> list[list[str | float]]:
    """Per field its values in the struct array `name`: texts or numbers.

    Raises ValueError if the reader does not survive the file, and otherwise whatever the reader does.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_limit) as pool:
        try:
            return pool.submit(_read, file, name, fields).result()
        except BrokenProcessPool:
            raise ValueError("its reader did not survive it") from None


def _limit() -> None:
    import scipy.io  # noqa: F401  (before the limit, as its size differs between machines)

    with contextlib.suppress(ImportError, OSError, ValueError):  # where there is none, or nobody tells what is used
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST, resource.RLIM_INFINITY))


def _read(file: Path, name: str, fields: list[str]) -> list[list[str | float]]:
    from scipy.io import loadmat

    with open_file(file) as content:
        rows = loadmat(content, squeeze_me=True)[name]
    return [rows[field].tolist() for field in fields]
