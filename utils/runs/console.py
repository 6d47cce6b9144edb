"""Standard output and error that outlive whoever reads them: what cannot be written there is lost, and nothing else."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Outliving(io.RawIOBase):
    """The raw stream `raw`, whose writing never fails: a full disk, a closed pipe and a lost terminal swallow it."""

    def __init__(self, raw: Any):
        self._raw = raw

    def write(self, data: Any) -> int:
        try:
            written = self._raw.write(data)
            if written is None:  # another program that shares it made it return at once
                os.set_blocking(self.fileno(), True)
                written = self._raw.write(data)
            return written
        except (OSError, ValueError):
            return len(data)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()


def outlive() -> None:
    """Makes them so, for this process. Characters that the console does not know are escaped."""
    for number in range(3):  # else the next file that is opened takes the number, and what C code says goes there
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _outliving(sys.stdout, 1), _outliving(sys.stderr, 2)


def _outliving(stream: Any, number: int) -> Any:
    if stream is None:  # closed when Python started
        raw = io.FileIO(number, "w", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(_Outliving(raw)), encoding="utf-8", errors="backslashreplace")
    if not isinstance(stream, io.TextIOWrapper):  # a notebook's own
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Outliving(getattr(stream.buffer, "raw", stream.buffer))),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
