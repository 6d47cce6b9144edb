"""Looks after a run while it happens: a bar or plain lines on the screen, its files, checkpoints, and stop signals."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from utils import checkpoint
from utils.history import History
from utils.results import RunFolder
from utils.signals import Stopped, StopRequest
from utils.training import Listener, Trainer


class Progress(Listener):
    """Keeps the run's files and the screen up to date. total: images of the run, every pass counted.

    A checkpoint is written every `save_every` seconds, at task ends, and when `request` asks to stop. saving: seconds
    that this took so far, of this process alone.
    """

    PLAIN_EVERY = 30.0  # seconds between plain lines when there is nothing to evaluate
    LONG = 500  # rows of a history that is not written at every evaluation

    def __init__(
        self, folder: RunFolder, title: str, total: int, loggers: list, save_every: float, request: StopRequest
    ):
        self.folder, self.title, self.loggers = folder, title, loggers
        self.save_every, self.request, self._saved, self.saving = save_every, request, time.monotonic(), 0.0
        self._kept_at = -1  # images met at the last checkpoint
        self._write_from, self._late = 0.0, False  # time of the next history to be written, whether one waits for it
        self.total, self._met, self._last_line = total, 0, time.monotonic()
        self.bar = (
            tqdm(total=total, desc=title, unit="img", smoothing=0.1, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def progress(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.update(trainer.images_met - self._met)
        elif time.monotonic() - self._last_line > self.PLAIN_EVERY:
            self._line(trainer)
        self._met = trainer.images_met
        if self.request.code is not None or time.monotonic() - self._saved > self.save_every:
            self.save(trainer)

    def task_ended(self, trainer: Trainer) -> None:
        if trainer.images_met > self._kept_at or self.request.code is not None:  # a task may have no image
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint; one that cannot be written costs a warning. Raises Stopped if the run is to stop.

        Raises FloatingPointError instead of keeping a state whose loss or weights are not finite.
        """
        began = time.monotonic()
        trainer.check()
        if self._late:
            self._write(trainer.history)
        try:
            checkpoint.save(self.folder.checkpoints, trainer.state_dict())
        except OSError as error:
            print(f"warning: no checkpoint written ({error.strerror or error}); the run goes on", file=sys.stderr)
        self._saved, self._kept_at = time.monotonic(), trainer.images_met
        self.saving += self._saved - began
        if self.request.code is not None:
            raise Stopped(self.request.code)

    def evaluated(self, trainer: Trainer) -> None:
        self._late = time.monotonic() < self._write_from
        if not self._late:
            self._write(trainer.history)
        row = trainer.history.rows[-1]
        for logger in self.loggers:
            logger(row)
        if self.bar is not None:
            self.bar.set_postfix_str(self._state(trainer))
        else:
            self._line(trainer)

    def _write(self, history: History) -> None:
        """Writes the history. If it is long, the next one waits, so that this takes a fifth of the time at most."""
        began = time.monotonic()
        try:
            self.folder.write_history(history)
        except OSError as error:  # checkpoints hold the history too, and the end of the run writes it again
            print(f"warning: metrics.csv not written ({error.strerror or error}); the run goes on", file=sys.stderr)
        ended, self._late = time.monotonic(), False
        self._write_from = ended + (4 * (ended - began) if len(history.rows) > self.LONG else 0)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self, trainer: Trainer) -> None:
        rate = trainer.images_met / max(trainer.seconds, 1e-9)
        left = (self.total - trainer.images_met) / max(rate, 1e-9)
        self._last_line = time.monotonic()
        print(
            f"{self.title}: {trainer.images_met}/{self.total} images, {self._state(trainer)}, "
            f"{rate:.0f} images/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def _state(self, trainer: Trainer) -> str:
        last = trainer.history.rows[-1]["accuracy"] if trainer.history.rows else None
        accuracy = "" if last is None else f", accuracy {100 * last:.1f} %"
        skipped = f", {trainer.skipped} updates skipped" if trainer.skipped else ""
        return f"task {trainer.task + 1}/{trainer.stream.num_tasks}{accuracy}{skipped}"
