"""One process at a time, with flock and without it, and no lock through a link or a pipe."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.files import disk


def without_flock(number: int | None, monkeypatch) -> None:
    """As on a file system that answers flock with an error of this number; None: as on a platform without fcntl."""

    class Lacking:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(handle, operation):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "fcntl", None if number is None else Lacking)
    monkeypatch.setattr(disk, "_warned", threading.Event())


@pytest.fixture(params=["flock", "ENOSYS", "ENOLCK", "EINVAL", "ENOTSUP", "no fcntl"])
def kind(request, monkeypatch):
    if request.param != "flock":
        without_flock(getattr(errno, request.param, None), monkeypatch)
    return request.param


def test_one_at_a_time(kind, tmp_path, capsys):
    path = tmp_path / "new" / ".lock"
    first = disk.claim(path)
    assert first is not None and disk.claim(path) is None
    first.release()
    first.release()
    second = disk.claim(path)
    assert second is not None and disk.claim(path) is None
    second.release()
    assert [file.name for file in path.parent.iterdir()] == [".lock"]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == (kind != "flock")
    assert all(line.startswith(f"warning: no flock for {path}; ") for line in warnings)


def test_others_wait_and_say_once_for_what(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "POLL", 0.001)
    said = io.StringIO()  # capsys loses what another thread says while it is read
    monkeypatch.setattr(sys, "stderr", said)
    path, order, inside = tmp_path / ".lock", [], threading.Event()

    def second():
        with disk.waiting(path, "makes soup"):
            order.append("second")

    with disk.waiting(path, "makes soup"):
        thread = threading.Thread(target=second)
        thread.start()
        end = time.monotonic() + 20
        while "waits for another process that makes soup\n" not in said.getvalue():
            assert time.monotonic() < end
        inside.wait(0.02)  # some looks at the lock
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert said.getvalue().count("waits") == 1


def test_another_error_of_flock_is_no_lack_of_it(tmp_path, monkeypatch):
    without_flock(errno.EIO, monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        disk.claim(tmp_path / ".lock")


# What stays of a holder that died, where there is no flock


@pytest.fixture
def left(tmp_path, monkeypatch):
    """left(name, age) makes the file that such a holder leaves, and gives the path of its lock."""
    without_flock(errno.ENOSYS, monkeypatch)

    def leave(name: str, age: float) -> Path:
        held = tmp_path / ".lock.held"
        held.write_text(name)
        os.utime(held, times=(time.time() - age,) * 2)
        return tmp_path / ".lock"

    return leave


def dead() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_dead_process_of_this_machine_holds_nothing(left):
    lock = disk.claim(left(f"{dead()} token {disk._machine()}", 0))
    assert lock is not None
    lock.release()


@pytest.mark.parametrize(
    "name",
    [f"{os.getpid()} token {disk._machine()}", "1 token another host", "", "\xff \0 x"],
    ids=["this process", "another host", "nothing", "no name"],
)
def test_a_holder_that_may_live_counts_until_it_is_silent_for_long(name, left):
    assert disk.claim(left(name, disk.STALE / 2)) is None
    lock = disk.claim(left(name, 2 * disk.STALE))
    assert lock is not None
    lock.release()
    assert sorted(file.name for file in lock._held.parent.iterdir()) == [".lock"]


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    without_flock(errno.ENOSYS, monkeypatch)
    monkeypatch.setattr(disk, "HEARTBEAT", 0.001)
    lock, held = disk.claim(tmp_path / ".lock"), tmp_path / ".lock.held"
    os.utime(held, times=(0, 0))
    end = time.monotonic() + 20
    while held.stat().st_mtime == 0:
        assert time.monotonic() < end
    lock.release()


def test_a_lock_that_was_taken_over_is_not_released(tmp_path, monkeypatch):
    without_flock(errno.ENOSYS, monkeypatch)
    first = disk.claim(tmp_path / ".lock")
    os.utime(tmp_path / ".lock.held", times=(0, 0))
    second = disk.claim(tmp_path / ".lock")
    first.release()
    assert second is not None and disk.claim(tmp_path / ".lock") is None
    second.release()


# What is no lock


@pytest.mark.parametrize("where", [".lock", ".lock.held"])
@pytest.mark.parametrize("what", ["link", "dangling link", "pipe", "folder"])
def test_no_lock_goes_through_a_link_or_waits_for_a_pipe(where, what, tmp_path, monkeypatch):
    without_flock(errno.ENOSYS, monkeypatch)
    (tmp_path / "theirs").write_text("theirs")
    place, target = tmp_path / where, tmp_path / ("theirs" if what == "link" else "nowhere")
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to(target)
    with pytest.raises(OSError) as refusal:
        disk.claim(tmp_path / ".lock")
    assert refusal.value.filename == str(place)
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "nowhere").exists()
    assert place.is_symlink() or not place.is_file()
