"""Tables and comparison of the benchmark, by numbers one can check by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from utils.report import speed
from utils.report.speed import BATCH, CHECKPOINT, DECODE, FIRST, FORWARD, LATER, QUERY, Case, Repeat, Result


def repeat(slower: float, rate: float = 2e9) -> Repeat:
    """A second of work per image, on a machine of so many FLOP/s."""
    seconds = {DECODE: 0.5, QUERY: 0.25, FORWARD: 0.75, BATCH: 1.0, FIRST: 0.5, LATER: 0.25, CHECKPOINT: 2.0}
    limit = {"32": {"square": rate, "network": rate / 2}, "bf16": {"square": rate, "network": 2 * rate}}
    return Repeat(limit, {phase: slower * value for phase, value in seconds.items()}, 100.0 * slower)


def case(*slower: float, **settings: object) -> Case:
    flops = {QUERY: 0.25e9, FORWARD: 0.75e9, BATCH: 1e9, FIRST: 0.5e9, LATER: 0.25e9}
    repeats = [repeat(one) for one in slower]
    whole = Case("l2p", "vit", 32, "32", "cpu", 64, 3, flops, {"train": 4e9, "test": 1e9}, repeats)
    return replace(whole, **settings)


def result(*cases: Case) -> Result:
    return Result({"cpu": "a | b", "cores": 2, "gpu": None, "torch": "2.0"}, {"batch_size": 64}, list(cases))


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in cells}


def test_numbers_of_a_case():
    one = case(1.0, 2.0)
    assert one.of_limit(BATCH) == [0.5, 0.25]  # of the faster product at its precision
    assert replace(one, precision="bf16").of_limit(BATCH) == [0.25, 0.125]
    assert one.units(BATCH) == [0.5, 1.0] and one.units(LATER) == [0.5, 1.0]  # always in float32
    assert replace(one, precision="bf16").units(BATCH) == [0.5, 1.0]
    assert replace(one, as_written=None).units(BATCH) == []
    assert one.shares(QUERY) == [0.25, 0.25] and one.shares(LATER) == []
    assert one.of_limit(DECODE) == [] and one.seconds("backward") == []


def test_tables():
    told = rows(speed.phases(case(1.0, 2.0, 4.0)))
    assert told["training batch"] == ["2,000.000 (1,000.000 to 4,000.000)", "0", "100.0 %", "1.000", "25.0 %"]
    assert told["query"][1:] == ["2", "25.0 %", "0.250", "25.0 %"]
    assert told["checkpoint, each"][1:] == ["–", "–", "–", "–"] and "backward" not in told
    told = rows(speed.summary(result(case(1.0))))
    assert told["l2p"][3:6] == ["1", "0.50", "50.0 %"] and told["l2p"][-2:] == ["100", "1"]
    lines = speed.heading(result(case(1.0), case(1.0, precision="bf16")))
    assert lines[0] == "cpu a | b, cores 2, torch 2.0"
    assert lines[1] == "matrix products in 32, GFLOP/s: square 2 (2 to 2), network 1 (1 to 1)"


def test_comparison():
    now, before = result(case(0.5, 1.0), case(1.0, method="coda")), result(case(1.0, 2.0))
    text = speed.comparison(now, before)
    assert rows(text)["query"][2] == "0.50 (0.25 to 1.00)"
    assert rows(text)["limit in 32, GFLOP/s"] == ["2 (2 to 2)", "2 (2 to 2)", "1.00 (1.00 to 1.00)"]
    assert text.endswith("coda on vit, 32 px, 32, cpu, batches of 64, 3 updates each: not in the other file")


def test_a_file_is_read_as_it_was_written(tmp_path):
    whole = result(case(1.0, 2.0), case(1.0, as_written=None, precision="bf16"))
    speed.write(tmp_path / "a.json", whole)
    assert speed.read(tmp_path / "a.json") == whole


@pytest.mark.parametrize("change", [{"repeats": []}, {"size": 32.5}, {"flops": {BATCH: -1.0}}, {"as_written": {}}])
def test_what_is_no_case(tmp_path, change):
    speed.write(tmp_path / "a.json", result(case(1.0, **change)))
    with pytest.raises(speed.UsageError, match="a.json: is damaged"):
        speed.read(tmp_path / "a.json")
