"""Downloads: the right bytes or one line that says what to do, whatever the server, the archive or a kill does."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import types
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import gdown
import pytest

from tests.miniatures import CONTENT, TREE, names_in, nobody, packed, refused, tree
from tests.tiny import ROOT
from utils.data import download as downloads
from utils.data.download import Download, fetch, obtain
from utils.files.archives import unpack
from utils.files.disk import filled_by_one

SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


# A server


class Server(ThreadingHTTPServer):
    """Answers every GET with `content`, as its attributes say, and keeps the headers of the requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.kind, self.etag = CONTENT, 200, "application/octet-stream", '"first"'
        self.ranges = self.honours_if_range = self.sends_length = True
        self.cut: int | None = None  # bytes of the body after which the connection ends
        self.most: int | None = None  # bytes that a range has at most
        self.hold: threading.Event | None = None  # waits for it halfway
        self.redirect: str | None = None
        self.extra: dict[str, str] = {}  # further headers
        self.requests: list = []

    def download(self, **changes) -> Download:
        url = f"http://127.0.0.1:{self.server_address[1]}/data.bin"
        return replace(Download(url, "data.bin", SHA256, len(CONTENT)), **changes)

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, headers = self.server, self.headers
        server.requests.append(headers)
        body, status, sent = server.content, server.status, None
        same = headers.get("If-Range") in (None, server.etag) or not server.honours_if_range
        if status == 200 and server.ranges and "Range" in headers and same:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                status, sent, body = 416, f"bytes */{len(body)}", b""
            else:
                end = min(len(body), start + (server.most or len(body)))
                status, sent, body = 206, f"bytes {start}-{end - 1}/{len(body)}", body[start:end]
        if server.redirect:
            status = 302
        self.send_response(status)
        self.send_header("Content-Type", server.kind)
        if server.redirect:
            self.send_header("Location", server.redirect)
        for name, value in server.extra.items():
            self.send_header(name, value)
        if server.etag:
            self.send_header("ETag", server.etag)
        if sent and "Content-Range" not in server.extra:
            self.send_header("Content-Range", sent)
        if server.sends_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        body = body[: server.cut]
        if server.hold:
            self.wfile.write(body[: len(body) // 2])
            server.hold.wait(20)
            body = body[len(body) // 2 :]
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        if server.hold:
            server.hold.set()
        server.shutdown()


def cut_download(server: Server, folder: Path, cut: int = 100_000, **changes) -> Download:
    """Leaves `cut` bytes of the file in `folder`; the server is well again afterwards."""
    download = server.download(**changes)
    server.cut = cut
    with refused(download.url, cut, "run again"):
        fetch(download, folder)
    server.cut = None
    assert (folder / "data.bin.part").read_bytes() == server.content[:cut]
    assert not (folder / "data.bin").exists()
    return download


# Fetching


@pytest.mark.parametrize("digest", [SHA256, MD5, MD5[:4] + MD5[4:].upper()])
def test_fetches_the_file_whole(server, tmp_path, digest):
    path = fetch(server.download(digest=digest), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == ["data.bin"]
    assert "Range" not in server.requests[0]


def test_fetches_a_file_of_which_nothing_is_known(server, tmp_path):
    server.etag, server.sends_length = None, False
    assert fetch(server.download(digest=None, size=None), tmp_path).read_bytes() == CONTENT


def test_a_good_file_needs_no_server(tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT)
    for known in ({"digest": SHA256}, {"digest": MD5}, {"size": len(CONTENT)}, {}):
        assert fetch(Download("http://127.0.0.1:9/data.bin", "data.bin", **known), tmp_path) == tmp_path / "data.bin"
    assert sorted(os.listdir(tmp_path)) == ["data.bin"]  # not even a lock: the folder may be read-only


def test_a_wrong_file_that_is_there_is_refused_and_kept(server, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT[::-1])
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with refused(path, SHA256.removeprefix("sha256:"), found, "delete it"):
        fetch(server.download(), tmp_path)
    with refused(path, len(CONTENT), len(CONTENT) + 1, "delete it"):
        fetch(server.download(digest=None, size=len(CONTENT) + 1), tmp_path)
    assert path.read_bytes() == CONTENT[::-1]
    assert server.requests == []


def test_a_cut_download_is_resumed(server, tmp_path):
    download = cut_download(server, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=100000-"
    assert server.requests[1]["If-Range"] == '"first"'
    assert names_in(tmp_path) == ["data.bin"]


def test_a_download_that_is_cut_again_and_again_arrives(server, tmp_path):
    for _ in range(2):
        server.cut = 100_000
        with refused("run again"):
            fetch(server.download(), tmp_path)
    server.cut = None
    assert fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert [headers["Range"] for headers in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    download = cut_download(server, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("honours", [True, False])
@pytest.mark.parametrize("longer", [True, False])
def test_a_file_that_changed_in_between_is_fetched_anew(server, tmp_path, honours, longer):
    download = cut_download(server, tmp_path, digest=None, size=None)
    server.content = bytes(reversed(CONTENT)) * 2 if longer else b"short"
    server.etag, server.honours_if_range = '"second"', honours
    assert fetch(download, tmp_path).read_bytes() == server.content


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_nothing_is_resumed_where_a_change_could_not_be_noticed(server, tmp_path, etag):
    server.etag = etag
    download = cut_download(server, tmp_path, digest=None)
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert "Range" not in server.requests[1]


def test_a_digest_is_enough_to_resume(server, tmp_path):
    server.etag = None
    download = cut_download(server, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert (server.requests[1]["Range"], server.requests[1]["If-Range"]) == ("bytes=100000-", None)


def test_a_complete_part_is_used(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert [headers["Range"] for headers in server.requests] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_part_that_is_too_long_is_dropped(server, tmp_path, size):
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server.download(size=size), tmp_path).read_bytes() == CONTENT


def test_a_range_that_stops_early_is_not_taken_for_the_end(server, tmp_path):
    download = cut_download(server, tmp_path, digest=None, size=None)
    server.most = 50_000
    with refused(150_000, len(CONTENT), "run again"):
        fetch(download, tmp_path)
    server.most = None
    assert fetch(download, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("cut", [0, 100_000])
def test_wrong_content_is_removed(server, tmp_path, cut):
    if cut:
        cut_download(server, tmp_path, cut)
    server.content = bytes(reversed(CONTENT))
    wrong = hashlib.sha256(CONTENT[:cut] + server.content[cut:]).hexdigest()
    with refused(server.download().url, SHA256.removeprefix("sha256:"), wrong):
        fetch(server.download(), tmp_path)
    assert names_in(tmp_path) == []


def test_a_file_of_another_size_is_not_fetched(server, tmp_path):
    server.content = CONTENT + b"more"
    with refused(server.download().url, len(CONTENT), len(CONTENT) + 4):
        fetch(server.download(), tmp_path)
    assert names_in(tmp_path) == []


def test_too_short_without_a_length_counts_as_cut(server, tmp_path):
    server.sends_length = False
    download = cut_download(server, tmp_path)
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("status, reason", [(404, "Not Found"), (503, "Service Unavailable")])
def test_an_answer_that_is_an_error_keeps_the_part(server, tmp_path, status, reason):
    download = cut_download(server, tmp_path)
    server.status = status
    with refused(download.url, status, reason, "run again"):
        fetch(download, tmp_path)
    server.status = 200
    assert fetch(download, tmp_path).read_bytes() == CONTENT
    assert server.requests[2]["Range"] == "bytes=100000-"


def test_no_server_and_a_silent_one(server, tmp_path, monkeypatch):
    download = server.download()
    with refused("http://127.0.0.1:9/data.bin", "refused", "run again"):
        fetch(replace(download, url="http://127.0.0.1:9/data.bin"), tmp_path)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    server.hold = threading.Event()
    with refused(download.url, "timed out", "run again"):
        fetch(download, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[: len(CONTENT) // 2]


PAGE = b"\n <!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("digest", [None, SHA256])
def test_an_html_page_is_no_file(server, tmp_path, kind, digest):
    server.content, server.kind = PAGE, kind
    with refused(server.download().url, "HTML page", tmp_path / "data.bin"):
        fetch(server.download(digest=digest, size=None), tmp_path)
    assert names_in(tmp_path) == []


def test_an_html_page_does_not_cost_the_part(server, tmp_path):
    download = cut_download(server, tmp_path)
    server.content, server.kind, server.ranges = PAGE, "text/html", False
    with refused(download.url, "HTML page"):
        fetch(download, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:100_000]


def test_a_full_disk_and_too_little_space(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk is full") as info:
        patch.setattr(downloads, "no_link", lambda name, flags: os.open("/dev/full", os.O_WRONLY))
        fetch(server.download(), tmp_path)
    assert info.value.filename == str(tmp_path)  # as main says it, with exit code 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=len(CONTENT) - 1))
    with refused(tmp_path, "data.bin needs 0.00 GB", "are free"):
        fetch(server.download(), tmp_path)
    assert not (tmp_path / "data.bin").exists()


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file" / "folder", "Not a directory"):
        fetch(server.download(), tmp_path / "file" / "folder")


def test_a_folder_without_the_right_to_write(server):
    with nobody() as place:
        folder = place / "closed"
        folder.mkdir(0o555)
        with refused(folder, "Permission denied"):
            fetch(server.download(), folder)
        with refused(folder, "Permission denied"):
            unpack(folder / "data.zip", folder / "data")


# Servers and proxies that make no sense


def test_a_redirect_to_nowhere_is_one_line(server, tmp_path, monkeypatch):
    for place in ("http://[::1", "http:///x", "http://a b/", "http://.example/", f"http://{'x' * 70}.example/", "ftp://",
                  "http://\xe9.invalid:99999/", "file:///etc/passwd", "http://127.0.0.1:port/"):  # fmt: skip
        server.redirect = place
        with refused(server.download().url):
            fetch(server.download(), tmp_path)


@pytest.mark.parametrize("proxy", ["http:/host", "http://[", "://", "http://host:port", "nonsense://x y"])
def test_a_proxy_that_is_none_is_one_line(server, tmp_path, monkeypatch, proxy):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it knows the proxies of the first request
    with refused(server.download().url):
        fetch(server.download(), tmp_path)


@pytest.mark.parametrize("digits", [19, 5000])
def test_numbers_of_any_length(server, tmp_path, digits):
    """In Content-Range, and in Content-Length: where no file can have so many bytes, or no integer so many digits."""
    cut_download(server, tmp_path)
    server.extra = {"Content-Range": f"bytes 100000-{len(CONTENT) - 1}/{'9' * digits}"}
    fetch(server.download(), tmp_path)
    (tmp_path / "data.bin").unlink()
    server.extra, server.sends_length = {"Content-Length": "9" * digits}, False
    if digits > 4300:  # passed over
        fetch(server.download(size=None), tmp_path)
    else:
        with refused(server.download().url, "has more than"):
            fetch(server.download(size=None), tmp_path)


@pytest.mark.parametrize("size, most", [(1000, 10**9), (None, 1000)])
def test_a_body_without_end_is_cut_off(server, tmp_path, size, most):
    server.content, server.sends_length = CONTENT * 300, False
    with refused(server.download().url, "has more than 1000 bytes"):
        fetch(server.download(size=size, most=most), tmp_path)
    assert not (tmp_path / "data.bin.part").exists()


def test_a_tag_that_cannot_be_sent_back_is_not_kept(server, tmp_path):
    for tag in ('"' + "x" * 60_000 + '"', '"\xff"'):
        server.etag = tag
        cut_download(server, tmp_path)
        assert (tmp_path / "data.bin.part.tag").read_text() == ""
        fetch(server.download(), tmp_path).unlink()


# What lies in the place of a partial file


@pytest.mark.parametrize("name", ["data.bin.part", "data.bin.part.tag"])
@pytest.mark.parametrize("what", ["link", "dangling link", "pipe"])
def test_what_is_no_plain_file_is_not_written_to(server, tmp_path, name, what):
    (tmp_path / "theirs").write_bytes(CONTENT[:1000])
    if what == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(tmp_path / ("theirs" if what == "link" else "nowhere"))
    assert fetch(server.download(), tmp_path).read_bytes() == CONTENT
    assert (tmp_path / "theirs").read_bytes() == CONTENT[:1000] and not (tmp_path / "nowhere").exists()
    assert names_in(tmp_path) == ["data.bin", "theirs"]


def test_a_pipe_in_place_of_the_file_is_not_waited_for(server, tmp_path):
    os.mkfifo(tmp_path / "data.bin")
    with refused(tmp_path / "data.bin", "a pipe or a device"):
        fetch(server.download(), tmp_path)


def test_a_link_in_place_of_what_is_being_unpacked_is_not_followed(server, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").touch()
    archive = archive_on(server, tmp_path)
    fetch(archive, tmp_path)
    (tmp_path / ".images.unpacking").symlink_to(tmp_path / "theirs")
    unpack(tmp_path / archive.name, tmp_path / "images")
    assert names_in(tmp_path / "theirs") == ["kept"] and not (tmp_path / "images").is_symlink()


# Google Drive


def drive(monkeypatch, content: bytes, error: Exception | None = None) -> mock.Mock:
    """Puts in place of gdown what writes `content`, or leaves it unfinished and raises `error`."""

    def download(url, output, progress, **arguments):
        progress(len(content), None)
        Path(f"{output}12345678.part" if error else output).write_bytes(content)
        if error:
            raise error

    stand_in = mock.create_autospec(gdown.download, side_effect=download)
    monkeypatch.setattr(gdown, "download", stand_in)
    return stand_in


DRIVE = Download("https://drive.google.com/uc?id=abc", "data.bin", SHA256)


def test_google_drive_goes_through_gdown(tmp_path, monkeypatch):
    stand_in = drive(monkeypatch, CONTENT)
    assert fetch(DRIVE, tmp_path).read_bytes() == CONTENT
    assert stand_in.call_args.args[0] == DRIVE.url
    assert stand_in.call_args.kwargs["timeout"] == 60
    assert names_in(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("content, fault", [(PAGE, "HTML page"), (b"something else", "sha256")])
def test_what_gdown_brings_is_checked(tmp_path, monkeypatch, content, fault):
    drive(monkeypatch, content)
    with refused(DRIVE.url, fault):
        fetch(DRIVE, tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("too many\n\n\tusers"), OSError("too many users")])
def test_an_error_of_gdown_is_one_line_and_keeps_what_came(tmp_path, monkeypatch, error):
    drive(monkeypatch, CONTENT[:1000], error)
    with refused(DRIVE.url, "too many users", "run again", tmp_path / "data.bin.part*"):
        fetch(DRIVE, tmp_path)
    assert names_in(tmp_path) == ["data.bin.part12345678.part"]
    monkeypatch.undo()
    drive(monkeypatch, CONTENT)
    fetch(replace(DRIVE, digest=None), tmp_path)  # without a digest nothing old is built upon
    assert names_in(tmp_path) == ["data.bin"]


def test_gdown_itself_resumes(server, tmp_path, monkeypatch):
    server.content = CONTENT * 5  # it writes 512 KiB at a time
    digest = "sha256:" + hashlib.sha256(server.content).hexdigest()
    download = server.download(digest=digest, size=None)
    monkeypatch.setattr(downloads, "DRIVE", download.url)
    server.cut = 1_200_000
    with refused(download.url, "run again", tmp_path / "data.bin.part*"):
        fetch(download, tmp_path)
    server.cut = None
    assert fetch(download, tmp_path).read_bytes() == server.content
    assert server.requests[-1]["Range"] == f"bytes={2**20}-"
    assert names_in(tmp_path) == ["data.bin"]
    (tmp_path / "data.bin").unlink()
    server.status = 404
    with refused(download.url, "404"):
        fetch(download, tmp_path)


# What is shown


def test_progress_is_lines_or_a_bar(server, tmp_path, monkeypatch, capsys):
    fetch(server.download(), tmp_path)
    assert capsys.readouterr().err == "downloading data.bin\n"
    monkeypatch.setattr(downloads, "PLAIN_EVERY", -1.0)
    fetch(server.download(name="second"), tmp_path)
    assert capsys.readouterr().err.endswith("downloading second: 0 of 0 MB\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch(server.download(name="third"), tmp_path)
    assert "downloading third: 100%" in capsys.readouterr().err


# All at once


def archive_on(server: Server, tmp_path: Path) -> Download:
    server.content = packed(tmp_path / "packed.tar", TREE).read_bytes()
    digest = "sha256:" + hashlib.sha256(server.content).hexdigest()
    return server.download(name="images.tar", digest=digest, size=len(server.content), name_inside="top")


def test_obtain_fetches_and_unpacks_what_is_missing(server, tmp_path):
    folder, archive = tmp_path / "data", archive_on(server, tmp_path)
    plain = replace(archive, name="weights.bin", name_inside=None)
    looks = []

    def ready() -> bool:
        looks.append((folder / "images" / "a.txt").exists() and (folder / "weights.bin").exists())
        return looks[-1]

    obtain([archive, plain], folder, ready)
    assert tree(folder / "images") == {"a.txt": b"alpha", "deep/b.bin": CONTENT}
    assert (folder / "weights.bin").read_bytes() == server.content
    assert names_in(folder) == ["images", "images.tar", "weights.bin"]
    obtain([archive, plain], folder, ready)
    (folder / "images.tar").unlink()
    (folder / "weights.bin").unlink()
    obtain([archive, plain], folder, ready)  # the archive is not needed again
    assert names_in(folder) == ["images", "weights.bin"]
    assert len(server.requests) == 3
    assert looks == [False, False, True, True, False, False, True]


def test_obtain_says_so_if_that_was_not_enough(server, tmp_path):
    archive = archive_on(server, tmp_path)
    with refused(f"{tmp_path / 'data'}: images, weights.bin there", "delete"):
        obtain([archive, replace(archive, name="weights.bin")], tmp_path / "data", lambda: False)


# Several processes

RUN = """
import sys
from pathlib import Path
from utils.data.download import Download, obtain
folder = Path(sys.argv[1])
obtain([Download(*sys.argv[2:5], int(sys.argv[5]), "top")], folder, (folder / "images" / "a.txt").exists)
print((folder / "images" / "a.txt").read_text())
"""

HOLD = """
import sys, time
from pathlib import Path
from utils.files.disk import filled_by_one
with filled_by_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start():
    """Starts Python processes, and ends those that are left."""
    running = []

    def start(code: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def arguments_of(download: Download) -> tuple:
    return download.url, download.name, download.digest, download.size


def wait_for(happened) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_download_once(server, tmp_path, start):
    folder, archive = tmp_path / "data", archive_on(server, tmp_path)
    server.hold = threading.Event()
    first = start(RUN, folder, *arguments_of(archive))
    wait_for(lambda: server.requests)
    second = start(RUN, folder, *arguments_of(archive))
    assert second.stderr.readline() == f"waits for another process that fills {folder}\n"
    server.hold.set()
    for process in (first, second):
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "alpha\n")
    assert len(server.requests) == 1
    assert names_in(folder) == ["images", "images.tar"]


def test_a_killed_download_is_resumed_by_the_next_run(server, tmp_path, start):
    folder, archive = tmp_path / "data", archive_on(server, tmp_path)
    part = folder / "images.tar.part"
    server.hold = threading.Event()
    process = start(RUN, folder, *arguments_of(archive))
    wait_for(lambda: part.exists() and part.stat().st_size)
    process.kill()
    assert process.wait(20) == -9
    server.hold.set()
    server.hold = None
    written = part.stat().st_size
    assert 0 < written <= archive.size // 2
    obtain([archive], folder, (folder / "images" / "a.txt").exists)
    assert tree(folder / "images") == {"a.txt": b"alpha", "deep/b.bin": CONTENT}
    assert [headers["Range"] for headers in server.requests] == [None, f"bytes={written}-"]
    assert names_in(folder) == ["images", "images.tar"]


def test_a_killed_holder_frees_the_lock(tmp_path, start):
    path = tmp_path / "new" / ".lock"
    first = start(HOLD, path)
    assert first.stdout.readline() == "held\n"
    second = start(HOLD, path)
    assert second.stderr.readline().startswith("waits for another process")
    first.kill()
    assert second.stdout.readline() == "held\n"
    second.kill()
    with filled_by_one(path):
        pass
