"""Files that are whole or absent: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UsageError, reason

MANIFEST = "manifest.json"
# An archive that unpacks to more than both of these is a bomb. Images and weights hardly shrink, text to a tenth.
MAX_GROWTH = 100  # times the size of the archive
ALWAYS_FINE = 64 * 2**20  # bytes


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


def writable_folder(path: Path, option: str) -> Path:
    """`path` as an existing folder that files can be written to; asked before the work whose product goes there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be made ({error.strerror}: {error.filename})") from None
    check_writable(path, option)
    return path


def remove(path: Path) -> None:
    """Takes away the file, the folder or the link of this name, and not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def no_link(name: str, flags: int) -> int:
    """How `open` opens a file so that it follows no link (`opener`)."""
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def refuse_pipe(path: Path) -> None:
    """Raises OSError for a pipe or a device, which might never answer or end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def open_file(path: Path) -> BinaryIO:
    """A file to be read as bytes. Raises OSError, as `refuse_pipe` does too."""
    refuse_pipe(path)
    return open(path, "rb")


def read_text(path: Path, most: int | None = None) -> str:
    """Text of a file, its line ends as they are, a byte order mark dropped. Raises OSError, or ValueError for no UTF-8.

    most: bytes of a longer file that is not read, a ValueError too.
    """
    with open_file(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8-sig")


def growth_limit(archive: Path) -> int:
    """Bytes that an archive of this size may unpack to."""
    return max(ALWAYS_FINE, MAX_GROWTH * archive.stat().st_size)


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values. Raises ValueError for whatever is wrong with it."""
    import yaml

    class Plain(yaml.SafeLoader):
        """Without aliases, by which a few lines can stand for gigabytes, and without numbers that take minutes."""

        def construct_yaml_int(self, node):
            if len(node.value) > 100:
                raise yaml.YAMLError("it holds a number of more than 100 digits")
            return super().construct_yaml_int(node)

        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it holds an alias")
            return super().compose_node(parent, index)

    Plain.add_constructor("tag:yaml.org,2002:int", Plain.construct_yaml_int)
    try:
        return Plain(text).get_single_data()
    except Exception as error:  # of odd numbers, dates and depths it makes errors of all kinds
        raise ValueError(reason(error)) from None


def write_manifest(folder: Path) -> None:
    """`manifest.json` with the SHA-256 of every other file of a folder, hidden ones left out."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", MANIFEST)))
    with written_whole(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps({path.name: sha256(path) for path in files}, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of a folder's manifest; empty if there is none. Raises UsageError if it is damaged."""
    try:
        return {str(name): str(digest) for name, digest in parse_json(read_text(folder / MANIFEST)).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / MANIFEST}: is damaged ({error}); remove it") from None


def changed_files(folder: Path, digests: dict[str, str]) -> list[str]:
    """Names in `digests` whose file is not there, cannot be read, or is not what it was."""
    return [name for name in digests if not _is(folder / Path(name).name, digests[name])]


def _is(file: Path, digest: str) -> bool:
    try:
        return file.is_file() and sha256(file) == digest
    except OSError:  # not readable
        return False


def unlisted(folder: Path) -> list[str]:
    """A line for each folder at or below this one that cannot be listed."""
    lines: list[str] = []
    for _ in os.walk(folder, onerror=lambda error: lines.append(f"{error.filename}: {error.strerror}")):
        pass
    return lines


def check_writable(path: Path, option: str) -> Path:
    """The folder at or above `path` that is there. Makes nothing; raises UsageError if `path` could not be made."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if os.path.lexists(folder))
    if not os.path.isdir(there):
        raise UsageError(f"{option} {path}: cannot be made ({there} is no folder)")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UsageError(f"{option} {path}: no permission to write in {there}")
    return there


def sha256(path: Path) -> str:
    """Digest of a file of any size. Raises OSError as `open_file` does."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
