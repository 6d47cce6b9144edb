"""The stopwatch of phases, by a clock that a test moves, and by torch's counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.machine import describe, matmul_rate
from utils.phases import OTHER, Clock, Phases, flops_of, seconds_of, spent


def test_every_moment_belongs_to_one_phase():
    time, phases = [0.0], Phases()
    clock = Clock(lambda: time[0], lambda one, other: other - one)

    def work(seconds: float) -> float:
        time[0] += seconds
        return seconds

    outer = phases.around("outer", lambda: (work(1), inner(), work(2)), then="after")
    inner = phases.around("inner", lambda: work(4))
    phases.enter("nothing")  # before it begins
    work(100)
    phases.begin(clock)
    work(8)
    assert outer() == (1, 4, 2)
    work(16)
    phases.enter(OTHER)
    work(32)
    assert phases.end() == {OTHER: 40, "outer": 3, "inner": 4, "after": 16}
    outer()
    phases.begin(clock)
    assert phases.end() == {OTHER: 0}


def test_a_phase_ends_with_an_error():
    phases = Phases()

    def fail() -> None:
        raise ValueError

    phases.begin(seconds_of(torch.device("cpu")))
    with pytest.raises(ValueError):
        phases.around("work", fail)()
    assert phases.now == OTHER and phases.end().keys() == {OTHER, "work"}


def test_flops_of_a_product():
    with FlopCounterMode(display=False) as counter:
        assert spent(flops_of(counter), lambda: torch.ones(2, 3) @ torch.ones(3, 5)) == 2 * 2 * 3 * 5
        assert spent(flops_of(counter), lambda: None) == 0


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_rate_of_products(monkeypatch, precision):
    """A clock that says two seconds whatever happens: so many FLOP, half of it per second."""
    monkeypatch.setattr("utils.machine.seconds_of", lambda device: Clock(lambda: None, lambda one, other: 2.0))
    rate = matmul_rate([(2, 3, 5), (7, 2, 2)], precision, torch.device("cpu"))
    assert rate == (2 * 30 + 2 * 28) / 2


def test_the_machine_has_a_name():
    told = describe(torch.device("cpu"))
    assert told["cpu"] and told["cores"] >= 1 and told["threads"] == torch.get_num_threads() and told["gpu"] is None
