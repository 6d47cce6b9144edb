"""The cores that a process computes on: those that are free when it starts, shared with the runs that start with it.

A thread that waits for a core which another program holds keeps all others of its run waiting, so that a run with more
threads than free cores is many times slower than one with fewer. Each process that computes has a file in the temporary
folder, which it holds locked: the number of its threads, or nothing before it has chosen.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.files import disk

if TYPE_CHECKING:  # its import takes seconds, for which the cores are watched
    import torch

PROC, QUOTA = Path("/proc"), Path("/sys/fs/cgroup/cpu.max")
MOMENT = 0.2  # seconds for which the cores are watched at least


class Cores:
    """Those of this process, as a context that gives them back at its end; the system does where a process is killed.

    early: runs that start at the same time are to know of it, and leave it its share.
    """

    def __init__(self, early: bool = True):
        self._began = time.monotonic()
        self._before: Use | None = None
        self._threads: int | None = None
        self._lock: disk.Lock | None = None
        self.usual = 0  # threads that torch has by itself
        if disk.fcntl is None or not hasattr(os, "sched_getaffinity"):  # not Linux
            return
        self._file = Path(tempfile.gettempdir(), f"cores-of-runs-{os.getuid()}", f"{os.getpid()}-{uuid.uuid4().hex}")
        self._before = _use(pid for pid, _ in self._others())
        if early:
            self._tell("")

    def take(self, device: torch.device) -> int | None:
        """Gives torch its threads; their number. Chooses it and says so once. None on a GPU, which needs no cores."""
        import torch

        if device.type != "cpu":
            self._leave()
            return None
        if self._threads is None:
            self.usual = torch.get_num_threads()
            self._threads, why = self._choice()
            print(f"threads: {self._threads} ({why})", file=sys.stderr)
        self.keep_to(self._threads)
        return self._threads

    def keep_to(self, threads: int) -> None:
        """Gives torch this number of threads until the next `take`."""
        import torch

        torch.set_num_threads(threads)
        self._tell(str(threads))

    def _choice(self) -> tuple[int, str]:
        """How many threads, and why."""
        if os.environ.get("OMP_NUM_THREADS"):
            return self.usual, "OMP_NUM_THREADS"
        if self._before is None:
            return self.usual, "all cores; this system does not say which are free"
        time.sleep(max(0.0, self._began + MOMENT - time.monotonic()))
        others = list(self._others())
        limit, elsewhere = _limit(), self._before.elsewhere(_use(pid for pid, _ in others))
        taken, starting = sum(threads for _, threads in others), sum(not threads for _, threads in others)
        free = min(limit, len(_own()) - round(elsewhere)) - taken
        why = f"of {limit} cores other programs use {elsewhere:.1f}, other runs {taken}"
        why += f"; {starting} more start now" if starting else ""
        return max(1, min(self.usual, free // (1 + starting))), why

    def _others(self) -> Iterator[tuple[int, int]]:
        """Process and number of threads, 0 before it has chosen, of those that compute on the same cores."""
        with contextlib.suppress(OSError):
            for file in self._file.parent.iterdir():
                with contextlib.suppress(OSError, ValueError):
                    pid = int(file.name.partition("-")[0])
                    if file != self._file and not _is_left(file) and _own() & _allowed(pid):
                        yield pid, int(file.read_text() or 0)

    def _tell(self, text: str) -> None:
        """Writes the file of this process. Where that is not possible others see the cores in use, and no more."""
        if self._before is None:
            return
        with contextlib.suppress(OSError):
            while self._lock is None:  # another process may just look whether somebody has it
                self._lock = disk.claim(self._file)
            self._file.write_text(text)

    def _leave(self) -> None:
        """Takes no cores any more."""
        if self._lock is not None:
            self._file.unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Cores:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._threads is not None:
            import torch

            torch.set_num_threads(self.usual)
        self._leave()


def _is_left(file: Path) -> bool:
    """Whether the process of a file is gone. Then removes it."""
    if (lock := disk.claim(file)) is None:
        return False
    file.unlink(missing_ok=True)
    lock.release()
    return True


def _own() -> set[int]:
    """The cores that this process may use."""
    return os.sched_getaffinity(0)


def _allowed(pid: int) -> set[int]:
    """The cores of another process; as ours, if that is not known."""
    try:
        return os.sched_getaffinity(pid)
    except OSError:
        return _own()


def _limit() -> int:
    """How many cores this process may use at a time."""
    with contextlib.suppress(OSError, ValueError):  # no cgroup of version 2, or no quota in it
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(len(_own()), quota // period))
    return len(_own())


@dataclass(frozen=True)
class Use:
    """Of our cores, in ticks of the clock since the system started: busy, all, and spent by processes of runs."""

    busy: int
    total: int
    runs: dict[int, int]

    def elsewhere(self, now: Use | None) -> float:
        """How many cores were busy since, but for what runs did."""
        if now is None or now.total <= self.total:
            return 0.0
        runs = sum(ticks - self.runs.get(pid, 0) for pid, ticks in now.runs.items())
        return max(0, now.busy - self.busy - runs) * len(_own()) / (now.total - self.total)


def _use(pids: Iterable[int]) -> Use | None:
    """pids: of other runs. None where the system does not say."""
    busy = total = 0
    runs = {}
    try:
        for line in (PROC / "stat").read_text().splitlines():
            name, *columns = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in _own():
                user, nice, system, idle, disk_wait, *others = map(int, columns[:8])  # what follows is part of user
                busy += user + nice + system + sum(others)
                total += user + nice + system + sum(others) + idle + disk_wait
    except (OSError, ValueError):
        return None
    for pid in {os.getpid(), *pids}:
        with contextlib.suppress(OSError, ValueError, IndexError):
            columns = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            runs[pid] = int(columns[11]) + int(columns[12])  # in user and in system mode
    return Use(busy, total, runs)
