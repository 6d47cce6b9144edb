"""What a run writes while it happens: its history, its checkpoints, and both when it is asked to stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from utils.runs import checkpoint
from utils.runs.folder import RunFolder
from utils.runs.signals import Stopped, StopRequest
from utils.training.history import History
from utils.training.loop import Listener, Trainer

LONG = 10  # evaluations, and tasks, up to which every one is written at once
SHARE = 19  # later on a history, and a checkpoint, takes one part of the time to so many others


class Saving(Listener):
    """Keeps the files of a run up to date, in one process of those that run it.

    A checkpoint is written every `save_every` seconds, at task ends, and when `request` asks to stop; at the end of a
    task behind the first LONG only where that does not slow the run, whose tasks may be shorter than this takes.
    loggers: told of every row of the history. seconds: what checkpoints took so far, in this part of the run.
    """

    def __init__(
        self, folder: RunFolder, save_every: float, request: StopRequest, loggers: list[Callable[[dict], None]]
    ):
        self.folder, self.save_every, self.request, self.loggers = folder, save_every, request, loggers
        self.seconds, self._saved = 0.0, time.monotonic()
        self._kept_at = -1  # images met at the last checkpoint
        self._save_from = 0.0  # time of the next one at the end of a task, of many
        self._write_from, self._late = 0.0, False  # time of the next history to be written, whether one waits for it

    def progress(self, trainer: Trainer) -> None:
        if self.request.code is not None or time.monotonic() - self._saved > self.save_every:
            self.save(trainer)

    def task_ended(self, trainer: Trainer) -> None:
        due = trainer.task <= LONG or time.monotonic() >= self._save_from
        if due and trainer.images_met > self._kept_at or self.request.code is not None:  # a task may have no image
            self.save(trainer)

    def evaluated(self, trainer: Trainer) -> None:
        self._late = time.monotonic() < self._write_from
        if not self._late:
            self._write(trainer.history)
        for logger in self.loggers:
            logger(trainer.history.rows[-1])

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
        self._save_from = self._saved + SHARE * (self._saved - began)
        self.seconds += self._saved - began
        if self.request.code is not None:
            raise Stopped(self.request.code)

    def _write(self, history: History) -> None:
        """Writes the history. If it is long, the next one waits."""
        began = time.monotonic()
        try:
            self.folder.write_history(history)
        except OSError as error:  # checkpoints hold the history too, and the end of the run writes it again
            print(f"warning: metrics.csv not written ({error.strerror or error}); the run goes on", file=sys.stderr)
        ended, self._late = time.monotonic(), False
        self._write_from = ended + (SHARE * (ended - began) if len(history.rows) > LONG else 0)
