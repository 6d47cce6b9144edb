"""How far a run is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from utils.training.loop import Listener, Trainer

PLAIN_EVERY = 30.0  # seconds between plain lines when there is nothing to evaluate


class Progress(Listener):
    """Shows a run called `title` on standard error. total: images of the run, every pass counted."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self._met, self._last_line = title, total, 0, time.monotonic()
        self.bar = (
            tqdm(total=total, desc=title, unit="img", smoothing=0.1, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def progress(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.update(trainer.images_met - self._met)
        elif time.monotonic() - self._last_line > PLAIN_EVERY:
            self._line(trainer)
        self._met = trainer.images_met

    def evaluated(self, trainer: Trainer) -> None:
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
        measured = trainer.history.last_measured()
        accuracy = f", {measured}" if measured else ""
        skipped = f", {trainer.skipped} updates skipped" if trainer.skipped else ""
        return f"task {trainer.task + 1}/{trainer.stream.num_tasks}{accuracy}{skipped}"
