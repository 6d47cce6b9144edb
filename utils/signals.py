"""Signals that ask a run to stop: obeyed at once, but in training between two batches, when the state is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

REQUEUE = 75  # exit code that lets a scheduler start the run again
CODES = {signal.SIGTERM: REQUEUE, signal.SIGUSR1: REQUEUE, signal.SIGINT: 130}


class Stopped(BaseException):
    """A run was asked to stop. No Exception, so that nobody takes it for a fault. code: for the exit of the process."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None], numbers: Iterable[int]) -> Iterator[None]:
    """Lets `handler` answer these signals. They reach the main thread only; elsewhere this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def stop(number: int, frame: object) -> None:
    """A handler that stops at once, as Python does by itself for Ctrl-C."""
    raise Stopped(CODES[signal.Signals(number)])


class StopRequest:
    """code: exit code that a signal asked for, None so far."""

    def __init__(self):
        self.code: int | None = None

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Notes SIGTERM, SIGUSR1 and Ctrl-C; a second Ctrl-C stops at once."""
        return handled(self._note, CODES)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.code == CODES[signal.SIGINT]:
            raise KeyboardInterrupt
        self.code = CODES[signal.Signals(number)]
