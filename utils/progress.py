"""Shows a run while it happens: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from utils.results import RunFolder
from utils.training import Listener, Trainer


class Progress(Listener):
    """Keeps the run's files and the screen up to date. total: images of the run, every pass counted."""

    PLAIN_EVERY = 30.0  # seconds between plain lines when there is nothing to evaluate

    def __init__(self, folder: RunFolder, title: str, total: int, loggers: list):
        self.folder, self.title, self.loggers = folder, title, loggers
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

    def evaluated(self, trainer: Trainer) -> None:
        self.folder.write_history(trainer.history)
        row = trainer.history.rows[-1]
        for logger in self.loggers:
            logger(row)
        if self.bar is not None:
            self.bar.set_postfix_str(self._state(trainer))
        else:
            self._line(trainer)

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
        accuracies = [row["accuracy"] for row in trainer.history.rows if row["accuracy"] is not None]
        accuracy = f", accuracy {100 * accuracies[-1]:.1f} %" if accuracies else ""
        return f"task {trainer.task + 1}/{trainer.stream.num_tasks}{accuracy}"
