"""Signals that ask a run to stop: obeyed at once, but in training between two batches, when the state is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

REQUEUE = 75  # exit code that lets a scheduler start the run again
INTERRUPTED = 130
# Those that the platform has. SIGXCPU: the processor time of `ulimit -t` or of a scheduler is used up.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)
CODES = dict.fromkeys(STOPPING, REQUEUE) | {signal.SIGINT: INTERRUPTED}


class Stopped(BaseException):
    """A run was asked to stop. No Exception, so that nobody takes it for a fault.

    code: for the exit of the process. kept: the newest checkpoint of the run, if there is one.
    """

    def __init__(self, code: int, kept: Path | None = None):
        super().__init__(code)
        self.code, self.kept = code, kept


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], Any], numbers: Iterable[int]) -> Iterator[None]:
    """Lets `handler` answer these signals, but for a SIGHUP that is ignored, as nohup has it.

    They reach the main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers if not _ignored(number)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ignored(number: int) -> bool:
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN


_asked: int | None = None  # exit code that a signal asked for


@contextlib.contextmanager
def obeyed() -> Iterator[None]:
    """They end the work at once, by `Stopped` or KeyboardInterrupt, so that it leaves nothing half done.

    An exception that meets a finaliser goes no further; then the next `StopRequest` or the end of the work stops.
    """
    global _asked
    _asked = None
    with handled(_stop, CODES):
        yield
        if _asked is not None:
            raise Stopped(_asked)


def _stop(number: int, frame: object) -> None:
    global _asked
    _asked = CODES[signal.Signals(number)]
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(_asked)


def quit_at_once(number: int, frame: object) -> None:
    """A handler that ends the process before its work began: an exception would end in the import that it meets."""
    word = b"interrupted" if number == signal.SIGINT else b"stopped"
    with contextlib.suppress(OSError):
        os.write(2, word + b" before it began\n")
    os._exit(CODES[signal.Signals(number)])


def last_words(stop: BaseException) -> str:
    """What is said when `Stopped` or KeyboardInterrupt ends a command."""
    word = (
        "interrupted"
        if isinstance(stop, KeyboardInterrupt) or getattr(stop, "code", None) == INTERRUPTED
        else "stopped"
    )
    kept = getattr(stop, "kept", None)
    if kept is None:
        return f"{word}; start the same command again"
    return f"{word}; the same command with --resume auto goes on from {kept}"


class StopRequest:
    """code: exit code that a signal asked for, None so far."""

    def __init__(self) -> None:
        self.code = _asked

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Notes the signals of `CODES`; a second Ctrl-C stops at once."""
        return handled(self._note, CODES)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.code == CODES[signal.SIGINT]:
            raise KeyboardInterrupt
        self.code = CODES[signal.Signals(number)]
