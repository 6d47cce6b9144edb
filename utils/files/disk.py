"""The disk: what only one process at a time may do with it, whether it has room, and what may be written or removed.

A lock is `flock` where it works, which the system itself lets go of. Elsewhere the holder makes a second file,
`<lock>.held`, that names it, and touches it now and then; a second process takes over what was not touched for `STALE`
seconds, or at once what a dead process of its own machine left. A process that was suspended for so long loses such a
lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import stat
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT)  # what says: no room for more
POLL = 0.2  # seconds between two looks at a lock that somebody else holds
HEARTBEAT = 20.0  # seconds between two touches
STALE = 300.0  # seconds without a touch, by the clock of the file system, after which the holder is taken for dead
LACKING = (errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # what says: no flock here

_warned = threading.Event()


class Lock:
    """A lock that this process has, until `release` or its end."""

    def __init__(self, handle: int, held: Path | None = None, name: bytes = b""):
        self._handle, self._held, self._name, self._over = handle, held, name, threading.Event()
        if held is not None:
            threading.Thread(target=self._touch, args=(held,), daemon=True).start()

    def release(self) -> None:
        """Lets another process have it. A second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        with contextlib.suppress(OSError):  # whoever took it over has a file of that name
            if self._held is not None and self._held.read_bytes() == self._name:
                self._held.unlink()
        os.close(self._handle)

    def _touch(self, held: Path) -> None:
        while not self._over.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(held, follow_symlinks=False)


@contextlib.contextmanager
def waiting(path: Path, what: str, keep: bool = True) -> Iterator[None]:
    """One process at a time passes; the others say once that they wait for another process "that `what`".

    The file `path` and its folder are made; keep: and stay. Raises OSError as `claim` does.
    """
    lock = claim(path)
    if lock is None:
        print(f"waits for another process that {what}", file=sys.stderr, flush=True)
    while lock is None:
        time.sleep(POLL)
        lock = claim(path)
    try:
        yield
    finally:
        if not keep:
            with contextlib.suppress(OSError):  # Windows removes no open file
                path.unlink()
        lock.release()


def claim(path: Path) -> Lock | None:
    """The lock of the file `path`, which is made and stays; None if somebody has it.

    Raises OSError if there is a link, a pipe or a device in its place, or if the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _open(path)
    lock = None
    try:
        lock = _flock(handle) or _hold(handle, path)
        if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):  # its last holder removed it
            lock.release()
            return None
    except BlockingIOError:
        return None
    finally:
        if lock is None:
            os.close(handle)
    return lock


def _open(path: Path) -> int:
    """A handle of a plain file. Without waiting for who reads a pipe, and without following a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():  # said here, as ELOOP speaks of too many levels, and Windows has no O_NOFOLLOW
        raise OSError(errno.ELOOP, "is a link, no lock is taken through it; remove it", str(path))
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "a pipe or a device, not a lock; remove it", str(path))
    return handle


def _flock(handle: int) -> Lock | None:
    """None where there is no flock. Raises BlockingIOError if somebody has it."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in LACKING:
            raise
        return None
    return Lock(handle)


def _hold(handle: int, path: Path) -> Lock:
    """A lock without flock. Raises BlockingIOError if somebody has it."""
    if not _warned.is_set():
        _warned.set()
        print(f"warning: no flock for {path}; goes on with files named *.held in its place", file=sys.stderr)
    held = path.with_name(f"{path.name}.held")
    _remove_stale(held, path, handle)
    name = f"{os.getpid()} {uuid.uuid4().hex} {_machine()}".encode()
    try:
        mine = os.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # nothing that is there is opened
    except FileExistsError:
        raise BlockingIOError from None
    with open(mine, "wb") as file:
        file.write(name)
    return Lock(handle, held, name)


def _remove_stale(held: Path, path: Path, handle: int) -> None:
    """Removes what a dead holder left."""
    try:
        state = os.lstat(held)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "a link or a pipe, not a lock; remove it", str(held))
        name = held.read_bytes()
        os.utime(handle if os.utime in os.supports_fd else path)  # asks for the time that it is there
        if os.fstat(handle).st_mtime - state.st_mtime < STALE and not _left_by_dead(name):
            return
        # Two may find the same file stale, and one of them has made its own since: only what was judged is removed.
        aside = held.with_name(f"{held.name}.{uuid.uuid4().hex}")
        os.rename(held, aside)
        if aside.read_bytes() != name and not held.exists():
            os.rename(aside, held)
        aside.unlink(missing_ok=True)
    except FileNotFoundError:
        return


def _left_by_dead(name: bytes) -> bool:
    """Whether the process that such a file names was one of this machine and is no more."""
    pid, _, machine = name.decode(errors="replace").partition(" ")
    if machine.partition(" ")[2] != _machine() or not pid.isdecimal() or os.name == "nt":  # os.kill would end it there
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, and so alive
        pass
    return False


def _machine() -> str:
    """What tells apart where process numbers count: the host, and the namespace of a container."""
    name = platform.node()
    with contextlib.suppress(OSError):
        name += " " + os.readlink("/proc/self/ns/pid")
    return name


# Folders


def writable_folder(path: Path, option: str) -> Path:
    """`path` as an existing folder that files can be written to; asked before the work whose product goes there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be made ({error.strerror}: {error.filename})") from None
    check_writable(path, option)
    return path


def check_writable(path: Path, option: str) -> Path:
    """The folder at or above `path` that is there. Makes nothing; raises UsageError if `path` could not be made."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not os.path.isdir(there):
        raise UsageError(f"{option} {path}: cannot be made ({there} is no folder)")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UsageError(f"{option} {path}: no permission to write in {there}")
    return there


def remove(path: Path) -> None:
    """Takes away the file, the folder or the link of this name, and not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unlisted(folder: Path) -> list[str]:
    """A line for each folder at or below this one that cannot be listed."""
    lines: list[str] = []
    for _ in os.walk(folder, onerror=lambda error: lines.append(f"{error.filename}: {error.strerror}")):
        pass
    return lines


def no_link(name: str, flags: int) -> int:
    """How `open` opens a file so that it follows no link (`opener`)."""
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


# Room, and what goes wrong


def free_space(folder: Path) -> int:
    """Bytes that are left where a folder lies."""
    return shutil.disk_usage(folder).free


def check_space(folder: Path, size: int, name: str, advice: str = "free some space and run again") -> None:
    """Raises UsageError if there is no room for `size` bytes of `name`."""
    if size > (free := free_space(folder)):
        raise UsageError(f"{folder}: {name} needs {size / 1e9:.2f} GB there, {free / 1e9:.2f} GB are free; {advice}")


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Says of a folder what went wrong in it: UsageError, but for a full disk the OSError that it is."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, "the disk is full; free some space and run again", str(folder)) from None
        where = f": {error.filename!r:.200}" if error.filename else ""
        raise UsageError(
            f"{folder}: cannot be used ({error.strerror}{where}); repair that or choose another folder"
        ) from None


@contextlib.contextmanager
def filled_by_one(path: Path, keep: bool = True) -> Iterator[None]:
    """One process at a time fills the folder of the lock `path`; the others say that they wait.

    keep: the file of the lock stays. Raises as `disk_errors` does.
    """
    with contextlib.ExitStack() as stack:
        with disk_errors(path.parent):
            stack.enter_context(waiting(path, f"fills {path.parent}", keep))
        yield
