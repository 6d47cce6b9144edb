"""A killed run of every method and stage ends as if nothing had happened: `python -m tests.kill`, a few kills each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.kill import compare, main, same, short_run
from utils.registry import METHODS

pytestmark = pytest.mark.kill

# Methods that carry more from batch to batch than weights, optimiser and counters: memory, parts of epochs, statistics.
TWICE = ("er", "derpp", "mepo", "misa_isa", "mepo_meta", "joint", "lmsrr")
# A quarter of the images in batches and between evaluations that are a quarter, too, so that a run has as many moments.
QUARTER = {"128": "32", "500": "125", "50": "12"}


def shorter_run(method: str, folder: Path, few_digits: list[str]) -> list[str]:
    return [*(QUARTER.get(word, word) for word in short_run(method, folder)), *few_digits]


@pytest.mark.parametrize("method", METHODS.files())
def test_killed_run_is_the_unbroken_one(method, few_digits, tmp_path):
    kills = 2 if method in TWICE else 1
    made, runs, identical = compare(shorter_run(method, tmp_path, few_digits), kills, tmp_path, random.Random(method))
    assert made == kills and identical == runs


def test_the_comparison_sees_a_difference(few_digits, tmp_path):
    """A run of another seed is not taken for the same."""
    words = shorter_run("finetune", tmp_path, few_digits)
    for seed in ("1", "2"):
        compare([*words, "--seed", seed], 0, tmp_path / seed, random.Random(0))
    assert not same(tmp_path / "1" / "whole", tmp_path / "2" / "whole")


def test_a_run_that_fails_by_itself_ends_the_program(tmp_path):
    with pytest.raises(SystemExit, match="the unbroken run failed"):
        main(["--model", "er", "--dataset", "seq-digits", "--kills", "1", "--lr", "-1"])
