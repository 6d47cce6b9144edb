"""Signals that ask a run to stop: noted, and obeyed between two batches."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

REQUEUE = 75  # exit code that lets a scheduler start the run again
CODES = {signal.SIGTERM: REQUEUE, signal.SIGUSR1: REQUEUE, signal.SIGINT: 130}


class Stopped(Exception):
    """A run that was asked to stop, and has saved its state. code: for the exit of the process."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class StopRequest:
    """code: exit code that a signal asked for, None so far."""

    def __init__(self):
        self.code: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Notes SIGTERM, SIGUSR1 and Ctrl-C; a second Ctrl-C stops at once. Signals reach the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if number == signal.SIGINT and self.code == CODES[signal.SIGINT]:
            raise KeyboardInterrupt
        self.code = CODES[signal.Signals(number)]
