"""Reservoir memory: which images it keeps and which it replays."""

from __future__ import annotations

import pytest
import torch

from utils.buffer import ReservoirBuffer


def offer(buffer: ReservoirBuffer, start: int, count: int) -> None:
    """Images `start` ... `start + count - 1`; the slot is the number of the image, and so is its first pixel."""
    slots = torch.arange(start, start + count)
    buffer.add((slots % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2), slots)


def filled(size: int, total: int, batch: int, seed: int = 0, exact: bool = False) -> ReservoirBuffer:
    buffer = ReservoirBuffer(size, seed, exact)
    for start in range(0, total, batch):
        offer(buffer, start, min(batch, total - start))
    return buffer


def kept(buffer: ReservoirBuffer) -> list[int]:
    return buffer.slots[: len(buffer)].tolist()


@pytest.mark.parametrize("exact, batch", [(True, 7), (False, 5)])
def test_memory_is_a_uniform_sample(exact, batch):
    """Each of 30 images is kept with probability 1/3, wherever it stood; in the release as long as no batch is cut."""
    runs, size, total = 1000, 10, 30
    count = torch.zeros(total)
    for seed in range(runs):
        count[kept(filled(size, total, batch, seed, exact))] += 1
    expected = runs * size / total
    statistic = ((count - expected) ** 2).sum() / (expected * (1 - size / total))
    assert statistic < 29 + 4 * (2 * 29) ** 0.5  # chi-square of about 29 degrees of freedom, four deviations


def test_released_rule_is_not_uniform_where_the_memory_fills_up_inside_a_batch():
    count = torch.zeros(8)
    for seed in range(500):
        count[kept(filled(5, 8, batch=4, seed=seed))] += 1
    assert count.tolist() == [500] * 4 + [0, 0, 0, 500]


def test_rows_left_over_by_a_filling_memory_each_replace_the_last_slot():
    buffer = filled(5, 8, batch=4)
    assert kept(buffer) == [0, 1, 2, 3, 7]
    assert buffer.images[4, 0, 0, 0] == 7 and buffer.seen == 8


def test_of_two_rows_for_one_place_the_later_stays(monkeypatch):
    buffer = filled(4, 4, batch=4)
    monkeypatch.setattr(buffer, "draw_targets", lambda count: torch.tensor([2, 2, 4, 0]))
    offer(buffer, 10, 4)
    assert kept(buffer) == [13, 1, 11, 3]


def test_draws_for_a_full_memory_cover_every_image_seen():
    buffer = filled(4, 4, batch=4)
    buffer.seen = 9
    draws = torch.stack([buffer.draw_targets(3) for _ in range(2000)])
    assert [sorted(set(column.tolist())) for column in draws.T] == [list(range(n)) for n in (10, 11, 12)]


def test_image_and_slot_stay_together():
    buffer = filled(20, 200, batch=16, exact=True)
    images, slots = buffer.sample(20)
    assert (images[:, 0, 0, 0] == slots).all()
    assert images.dtype == torch.uint8 and images.shape == (20, 3, 2, 2)


def test_replay_repeats_only_when_the_memory_is_smaller_than_the_batch():
    for size in (32, 33, 100):
        buffer = filled(size, size, batch=10)
        for _ in range(20):
            assert len(set(buffer.sample(32)[1].tolist())) == 32
    small = filled(5, 5, batch=5)
    for _ in range(20):
        counts = torch.bincount(small.sample(12)[1], minlength=5)
        assert counts.sum() == 12 and counts.min() >= 1


def test_replay_draws_every_image_sooner_or_later():
    buffer = filled(50, 50, batch=10)
    drawn = torch.cat([buffer.sample(10)[1] for _ in range(100)])
    assert torch.bincount(drawn).min() > 5


def test_replay_knows_what_was_added_since():
    buffer = filled(10, 2, batch=2)
    buffer.sample(3)  # leaves a drawn position over
    offer(buffer, 2, 8)
    assert sorted(buffer.sample(10)[1].tolist()) == list(range(10))


def test_memory_of_no_size_stores_nothing():
    buffer = filled(0, 40, batch=8)
    assert len(buffer) == 0 and not buffer.columns and buffer.seen == 40


def test_half_full_memory_holds_everything():
    buffer = filled(50, 30, batch=8)
    assert len(buffer) == 30 and kept(buffer) == list(range(30))


def test_state_gives_the_same_future():
    for total in (3, 20, 60):  # nearly empty, filling, full
        first = filled(24, total, batch=5)
        first.sample(10)
        state = first.state_dict()
        second = ReservoirBuffer(24, seed=99)
        offer(second, 500, 30)  # what it held before is gone
        later = []
        second.load_state_dict(state)
        for buffer in (first, second):
            draws = [buffer.sample(10)[1].tolist()]
            offer(buffer, 100, 7)
            draws += [buffer.sample(10)[1].tolist(), kept(buffer), buffer.seen]
            later.append(draws)
        assert later[0] == later[1]


def test_state_of_an_empty_memory():
    second = filled(4, 10, batch=5)
    second.load_state_dict(ReservoirBuffer(4, seed=0).state_dict())
    assert len(second) == 0 and not second.columns
    offer(second, 0, 3)
    assert kept(second) == [0, 1, 2]


def test_what_is_stored_beside_an_image_stays_with_it():
    buffer = ReservoirBuffer(20, seed=1)
    for start in range(0, 100, 10):
        slots = torch.arange(start, start + 10)
        buffer.add(slots.to(torch.uint8)[:, None, None, None], slots, 0.5 * slots[:, None].float())
    again = ReservoirBuffer(20, seed=2)
    again.load_state_dict(buffer.state_dict())
    for memory in (buffer, again):
        images, slots, halves = memory.sample(30)
        assert torch.equal(images.flatten(), slots.to(torch.uint8)) and torch.equal(halves[:, 0], 0.5 * slots)
