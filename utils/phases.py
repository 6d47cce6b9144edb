"""What a piece of work takes, shared out to its phases: seconds, or floating-point operations by torch's counter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

OTHER = "other"  # what belongs to no phase that was entered


@dataclass(frozen=True)
class Clock:
    """stamp: what is noted at a mark. between: how much lies between two of those. settle: waits until it is known."""

    stamp: Callable[[], Any]
    between: Callable[[Any, Any], float]
    settle: Callable[[], None] = lambda: None


def seconds_of(device: torch.device) -> Clock:
    """Seconds on a device. On a GPU marks stand in its queue, so that nothing waits for it between them."""
    if device.type != "cuda":
        return Clock(time.perf_counter, lambda one, other: other - one)

    def stamp() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return Clock(stamp, lambda one, other: one.elapsed_time(other) / 1000, lambda: torch.cuda.synchronize(device))


def flops_of(counter: FlopCounterMode) -> Clock:
    """Floating-point operations that the counter, which is at work, has met."""
    return Clock(counter.get_total_flops, lambda one, other: other - one)


class Phases:
    """A stopwatch for the parts of a piece of work: whatever happens belongs to the phase that was entered last.

    It starts with `begin` and counts until `end`; before and after that, `enter` does nothing.
    """

    def __init__(self) -> None:
        self.now = OTHER
        self._clock: Clock | None = None
        self._marks: list[tuple[str, Any]] = []

    def begin(self, clock: Clock) -> None:
        clock.settle()
        self.now, self._clock = OTHER, clock
        self._marks = [(OTHER, clock.stamp())]

    def enter(self, phase: str) -> None:
        self.now = phase
        if self._clock is not None:
            self._marks.append((phase, self._clock.stamp()))

    def end(self) -> dict[str, float]:
        """What was spent on each phase that was entered."""
        clock, self._clock = self._clock, None
        assert clock is not None
        marks = [*self._marks, (OTHER, clock.stamp())]
        clock.settle()
        spent: dict[str, float] = {}
        for (phase, start), (_, stop) in zip(marks, marks[1:]):
            spent[phase] = spent.get(phase, 0.0) + clock.between(start, stop)
        return spent

    def around(self, phase: str, work: Callable[..., Any], then: str | None = None) -> Callable[..., Any]:
        """`work` as a phase. then: the phase after it; None: the one before it."""

        def timed(*args: Any, **settings: Any) -> Any:
            before = self.now
            self.enter(phase)
            try:
                return work(*args, **settings)
            finally:
                self.enter(then or before)

        return timed


def spent(clock: Clock, work: Callable[[], object]) -> float:
    """What a piece of work takes as a whole."""
    phases = Phases()
    phases.begin(clock)
    work()
    return sum(phases.end().values())
