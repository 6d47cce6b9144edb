"""Public archives and weight files: fetched and checked; whole or absent, and once for all processes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.errors import UsageError, reason
from utils.files.archives import Show, ending, unpack
from utils.files.disk import check_space, disk_errors, filled_by_one, no_link, remove
from utils.files.text import open_file

MOST = 40 * 10**9  # bytes, more than any of the data sets
LONGEST_TAG = 200  # characters of what names a state of a file
TIMEOUT = 60  # seconds without an answer or a byte
CHUNK = 1 << 16  # bytes
LOCK = ".lock"  # in every folder that something is fetched or unpacked to
PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal
DRIVE = "https://drive.google.com/"


@dataclass(frozen=True)
class Download:
    """A public file. name: what it is saved as. digest: "md5:..." or "sha256:...". size: in bytes.

    name_inside: the folder of an archive that is wanted; None: all of it. damaged: members known to be, left out. most:
    bytes that are fetched at most where the size is not known.
    """

    url: str
    name: str
    digest: str | None = None
    size: int | None = None
    name_inside: str | None = None
    damaged: tuple[str, ...] = ()
    most: int = MOST


def obtain(downloads: Sequence[Download], folder: Path, ready: Callable[[], bool]) -> None:
    """Fetches all of `downloads` to `folder` and unpacks the archives there, unless `ready()`.

    `images.tar.gz` is unpacked to `folder/images`. An archive whose folder is there is not fetched; archives stay.
    A second process waits for the first one. `ready` has to look for all that is needed.
    Raises UsageError as `fetch` and `unpack` do, and if it is not `ready()` in the end.
    """
    if ready():
        return
    with filled_by_one(folder / LOCK):
        if ready():
            return
        for download in downloads:
            target = folder / download.name.removesuffix(ending(download.name))
            if not ending(download.name):
                _fetch(download, folder)
            elif not target.exists():
                archive = _fetch(download, folder)
                with _progress(f"unpacking {archive.name}") as show:
                    unpack(archive, target, download.name_inside, download.damaged, show)
        if not ready():
            names = ", ".join(download.name.removesuffix(ending(download.name)) for download in downloads)
            raise UsageError(f"{folder}: {names} there is not what was expected; delete it and run again")


def fetch(download: Download, folder: Path) -> Path:
    """The file in `folder`, checked. One that is there already needs no network.

    Raises UsageError if it is not the right one or cannot be got. What came of it is kept in `<name>.part`, and the
    next call goes on from there.
    """
    # A file that is there needs no lock, and so no right to write.
    with contextlib.nullcontext() if (folder / download.name).exists() else filled_by_one(folder / LOCK):
        return _fetch(download, folder)


# Fetching


def _fetch(download: Download, folder: Path) -> Path:
    """As `fetch`, for whoever holds the lock."""
    path, part = folder / download.name, folder / f"{download.name}.part"
    with disk_errors(folder):
        if path.exists():
            if fault := _fault(path, download):
                raise UsageError(f"{path}: {fault}; delete it and run again")
            return path
        with _progress(f"downloading {download.name}") as show:
            (_get_drive if download.url.startswith(DRIVE) else _get_http)(download, part, show)
        if fault := _fault(part, download):
            part.unlink()
            _validator_file(part).unlink(missing_ok=True)
            raise UsageError(_not_the_file(download, fault, folder))
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _validator_file(part).unlink(missing_ok=True)
    return path


def _get_http(download: Download, part: Path, show: Show) -> None:
    """Fetches all of the file to `part`, after the bytes that are there if they are still the file's."""
    for file in (part, _validator_file(part)):  # ours are plain files
        if file.is_symlink() or file.exists() and not file.is_file():
            remove(file)
    start = part.stat().st_size if part.exists() else 0
    validator = _usable(_validator_file(part).read_text("latin-1")) if _validator_file(part).exists() else ""
    # Without either one, nobody would notice that the file changed in between.
    if not (validator or download.digest) or start > (download.size or start):
        start = 0
    with _network_errors(download):
        response = _open(download.url, start, validator)
    with response:
        sent = response.headers.get("Content-Range", "")
        if start and response.status == 416 and sent == f"bytes */{start}":
            return  # there is nothing after what is here
        changed = validator and _validator(response) not in ("", validator)  # a 206 may leave the date out
        follows = sent.startswith(f"bytes {start}-") and not changed
        if start and (response.status == 416 or response.status == 206 and not follows):
            part.unlink()
            return _get_http(download, part, show)
        if response.status != 206:
            start = 0
        if response.headers.get_content_type() == "text/html":
            raise UsageError(_not_the_file(download, "is an HTML page", part.parent))
        total = None if response.length is None else start + response.length
        whole = sent.rpartition("/")[2]
        if response.status == 206 and re.fullmatch("[0-9]{1,18}", whole):
            total = int(whole)  # a server may send less than is left
        if None not in (total, download.size) and total != download.size:
            fault = f"has {total} bytes instead of {download.size}"
            raise UsageError(_not_the_file(download, fault, part.parent))
        if (total or 0) > (download.size or download.most):
            raise UsageError(_not_the_file(download, _too_long(download), part.parent))
        check_space(part.parent, (total or start) - start, download.name)
        done = _write(response, part, start, total, download, show)
    expected = total or download.size
    if expected is not None and done < expected:
        raise _interrupted(download, f"the connection ended after {done} of {expected} bytes")


def _open(url: str, start: int, validator: str) -> http.client.HTTPResponse | urllib.error.HTTPError:
    """The answer to a request for the bytes from `start` on, or for all if the file is not that of `validator`.

    Its status is 200, 206, or, where nothing is left to send, 416.
    """
    headers = {"User-Agent": "dataset-download"}  # some servers turn away the one of urllib
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:
            return error
        raise


def _write(response: Any, part: Path, start: int, total: int | None, download: Download, show: Show) -> int:
    """Writes the body of `response` to `part` from byte `start` on. The size of `part` then."""
    done = start
    with open(part, "ab" if start else "wb", opener=no_link) as file:
        if not start:  # the old bytes are gone by now, so it never stands beside bytes of another file
            with open(_validator_file(part), "w", encoding="latin-1", opener=no_link) as tag:
                tag.write(_validator(response))
        while True:
            with _network_errors(download):
                chunk = response.read1(CHUNK)
            if not chunk:
                return done
            done += len(chunk)
            if done > (download.size or download.most):
                part.unlink()
                raise UsageError(_not_the_file(download, _too_long(download), part.parent))
            file.write(chunk)
            show(done, total)


def _too_long(download: Download) -> str:
    return f"has more than {download.size or download.most} bytes"


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _validator(response: Any) -> str:
    """What names this state of the file, for If-Range: a strong ETag or else the date; "" without either."""
    tag = response.headers.get("ETag", "")
    return _usable(tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", ""))


def _usable(tag: str) -> str:
    """A tag as it can be sent back, else ""."""
    return tag if len(tag) <= LONGEST_TAG and re.fullmatch("[!-~ ]*", tag) else ""


def _get_drive(download: Download, part: Path, show: Show) -> None:
    """Fetches all of a file on Google Drive to `part`. gdown keeps unfinished ones in `<part>????????.part`."""
    import gdown  # heavy, and few need it

    for old in [part, *part.parent.glob(f"{part.name}*.part")]:
        # Without a digest nobody would notice that the file changed in between.
        if not download.digest or old.is_symlink() or not old.is_file():
            remove(old)

    def limited(done: int, total: int | None) -> None:
        if done > (download.size or download.most):
            raise UsageError(_not_the_file(download, _too_long(download), part.parent))
        show(done, total)

    try:
        gdown.download(
            download.url, str(part), quiet=True, use_cookies=False, resume=True, timeout=TIMEOUT, progress=limited
        )
    except UsageError:
        for old in part.parent.glob(f"{part.name}*"):
            remove(old)
        raise
    except Exception as error:  # its own types, those of requests and of the disk; only the last have a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise _interrupted(download, f"{reason(error)}; to start anew delete {part}*") from None


def _fault(path: Path, download: Download) -> str | None:
    """What is wrong with a file that is complete."""
    with open_file(path) as file:
        if file.read(CHUNK).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            return "is an HTML page"
        size = path.stat().st_size
        if download.size is not None and size != download.size:
            return f"has {size} bytes instead of {download.size}"
        if download.digest:
            algorithm, _, expected = download.digest.partition(":")
            found = hashlib.new(algorithm, usedforsecurity=False)
            file.seek(0)
            while chunk := file.read(CHUNK):
                found.update(chunk)
            if found.hexdigest() != expected.lower():
                return f"has {algorithm} {found.hexdigest()} instead of {expected}"
    return None


def _not_the_file(download: Download, fault: str, folder: Path) -> str:
    return (
        f"{download.url}: what came {fault}, so it was not kept; "
        f"run again later, or save the file as {folder / download.name} by hand"
    )


# Errors and progress


@contextlib.contextmanager
def _network_errors(download: Download) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of addresses, headers and bodies that make no sense urllib raises almost anything
        plain = error.reason if type(error) is urllib.error.URLError else error  # it wraps the reason in brackets
        raise _interrupted(download, reason(plain)) from None


def _interrupted(download: Download, why: str) -> UsageError:
    return UsageError(f"{download.url}: {why}; run again to go on where it stopped")


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Show]:
    """Gives a function that shows progress: a bar on a terminal, elsewhere a line now and then."""
    bar = tqdm(desc=title, unit="B", unit_scale=True, dynamic_ncols=True) if sys.stderr.isatty() else None
    last = time.monotonic()
    if bar is None:
        print(title, file=sys.stderr, flush=True)

    def show(done: int, total: int | None) -> None:
        nonlocal last
        if bar is not None:
            bar.total = total
            bar.update(done - bar.n)
        elif time.monotonic() - last > PLAIN_EVERY:
            last = time.monotonic()
            of_all = f" of {total / 1e6:.0f}" if total else ""
            print(f"{title}: {done / 1e6:.0f}{of_all} MB", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
