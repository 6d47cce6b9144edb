"""Archives of others: unpacked whole or not at all, and only what is a plain file or folder inside of its place."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from utils.errors import UsageError, reason
from utils.files.disk import check_space, disk_errors, remove

Show = Callable[[int, int | None], None]  # of bytes done and bytes in all

# An archive that unpacks to more than both of these is a bomb. Images and weights hardly shrink, text to a tenth.
MAX_GROWTH = 100  # times the size of the archive
ALWAYS_FINE = 64 * 2**20  # bytes
ENDINGS: dict[str, Callable[..., Any]] = {
    ".zip": open,
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
}
CHUNK = 1 << 16  # bytes read at a time
BLOCK = 4096  # bytes of the disk that an entry takes beside its content, at most


def growth_limit(archive: Path) -> int:
    """Bytes that an archive of this size may unpack to."""
    return max(ALWAYS_FINE, MAX_GROWTH * archive.stat().st_size)


def ending(name: str) -> str:
    """The ending that makes a file of this name an archive, or ""."""
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def unpack(
    archive: Path,
    target: Path,
    name_inside: str | None = None,
    damaged: Sequence[str] = (),
    show: Show = lambda done, total: None,
) -> None:
    """Makes `target` of the content of an archive, or of `name_inside` in it. A `target` that is there is left alone.

    damaged: members known to be, left out. show: told of the bytes done and in all. Of several processes one at a time
    may do it. Raises UsageError if the archive is damaged, needs more space than there is, is a bomb, or has a member
    that is neither a file nor a folder or that would land outside of `target`. Then `target` is absent.
    """
    if target.exists():
        return
    if not ending(archive.name):
        raise UsageError(f"{archive}: no archive that can be unpacked; these are: {', '.join(ENDINGS)}")
    extract = _extract_zip if ending(archive.name) == ".zip" else _extract_tar
    work = target.with_name(f".{target.name}.unpacking")
    with disk_errors(target.parent):
        remove(work)  # of a process that was killed
        try:
            work.mkdir(parents=True)
            with _damage(archive):
                extract(archive, work, show, damaged)
            whole = work / (name_inside or "")
            if not whole.exists():
                raise UsageError(f"{archive}: holds no {name_inside}; delete it and run again")
            os.rename(whole, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _extract_zip(archive: Path, folder: Path, show: Show, damaged: Sequence[str]) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if member.filename not in damaged]
        names: set[str] = set()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was made without Unix
            _check_member(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), names)
        total = sum(member.file_size + BLOCK for member in members)
        if total > growth_limit(archive):
            raise _bomb(archive)
        check_space(folder, total, archive.name)
        done = 0
        for member in members:
            file.extract(member, folder)  # reads no more than file_size, and compares the checksum
            done += member.file_size + BLOCK
            show(done, total)


def _extract_tar(archive: Path, folder: Path, show: Show, damaged: Sequence[str]) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UsageError(f"{archive}: this Python cannot unpack it safely; use 3.10.12, 3.11.4 or any newer one")
    check_space(folder, archive.stat().st_size, archive.name)  # the least it can be; only reading all tells the rest
    done = 0
    names: set[str] = set()
    with _Unpacked(archive) as content, tarfile.TarFile(fileobj=cast(Any, content)) as file:
        for member in file:
            # No links at all: data sets have none, and they are how the filter of tarfile has been got round.
            _check_member(archive, member.name, member.isfile() or member.isdir(), names)
            if member.size < 0:
                raise tarfile.ReadError("a size below zero")
            done += member.size + BLOCK
            if done > content.most:  # once it is unpacked
                raise _bomb(archive)
            check_space(folder, member.size + BLOCK, archive.name)
            if member.name not in damaged:
                file.extract(member, folder, filter="data")
            show(done, None)
        # tarfile takes a damaged header for the end. The true end is a block of zeros.
        content.seek(file.offset)
        if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")
        while content.read(CHUNK):  # the compression has its checksum at the end
            pass


class _Unpacked:
    """What is in a tar archive, its compression undone, for tarfile: read a little at a time, and not without end.

    tarfile reads a header whole, whatever size it says it has.
    """

    def __init__(self, archive: Path):
        self.archive, self.most, self.size = archive, growth_limit(archive), 0  # size: bytes read so far
        self.file = ENDINGS[ending(archive.name)](archive, "rb")
        self.seek, self.tell = self.file.seek, self.file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= CHUNK:
            raise tarfile.ReadError(f"a header of more than {CHUNK} bytes")
        self.size += size
        if self.size > self.most:
            raise _bomb(self.archive)
        return self.file.read(size)

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def _check_member(archive: Path, name: str, plain: bool, names: set[str]) -> None:
    """names: those of the members before, to which it is added."""
    outside = name.startswith("/") or ".." in name.split("/") or "\\" in name or re.match("[A-Za-z]:", name)
    if outside or not plain:
        why = "would land outside of its folder" if outside else "is neither a file nor a folder"
        raise UsageError(f"{archive}: {name!r} in it {why}; delete it and get it from a source that you trust")
    if name in names and not name.endswith("/"):
        raise UsageError(f"{archive}: {name!r} is in it twice; delete it and get it from a source that you trust")
    names.add(name)


def _bomb(archive: Path) -> UsageError:
    return UsageError(
        f"{archive}: unpacks to more than {MAX_GROWTH} times its size, as no data set does; "
        "delete it and get it from a source that you trust"
    )


@contextlib.contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Says of what the readers of archives raise that the archive is damaged."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # they raise many types; errors of the disk are those with a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise UsageError(f"{archive}: truncated or damaged ({reason(error)}); delete it and run again") from None
