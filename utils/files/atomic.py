"""Files that are whole or absent: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from utils.errors import reason


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a new file of a temporary name beside `path`; on leaving without an exception it takes the place of `path`.

    Raises OSError, with its number and with `path` where a library says neither.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made here under a name that nobody foresees, so that it is no link to, and no pipe of, somebody else.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # Some writers make files that only their owner may read; these are to be like any other file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # numpy's, of a write that was cut short
            raise _cause(temporary, error, path) from None
        if error.filename in (None, str(temporary)):  # a full disk does not say where it is full
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _cause(temporary: Path, error: OSError, path: Path) -> OSError:
    """What an error without a number comes from: the next write to the file tells."""
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    except OSError as cause:
        return OSError(cause.errno, cause.strerror, str(path))
    return OSError(errno.EIO, reason(error), str(path))
