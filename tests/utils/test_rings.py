"""Rings of samples per task: what is stored where, what is drawn, and what a checkpoint holds."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import assert_same
from utils.rings import TaskRings


def offer(rings: TaskRings, task: int, first: int, count: int) -> int:
    numbers = torch.arange(first, first + count)
    return rings.write(task, numbers[:, None].float().expand(-1, 3), numbers)


def labels(rings: TaskRings, task: int) -> list[int]:
    return rings.columns[1].view(rings.tasks, rings.slots)[task].tolist()


def test_a_write_stops_at_the_end_of_the_ring():
    rings = TaskRings(2, 5, 0)
    assert [offer(rings, 0, 10 * k, 3) for k in range(4)] == [3, 2, 3, 2]
    assert labels(rings, 0) == [20, 21, 22, 30, 31] and not rings.holds(1)
    assert rings.position == 0


def test_a_batch_larger_than_the_ring_leaves_its_first_rows():
    rings = TaskRings(1, 4, 0)
    assert offer(rings, 0, 0, 9) == 4
    assert labels(rings, 0) == [0, 1, 2, 3] and rings.position == 0


@pytest.mark.parametrize("restarted, expected", [(True, [10, 11, 0, 0, 0]), (False, [0, 0, 0, 10, 11])])
def test_the_position_is_kept_at_a_border_unless_it_is_reset(restarted, expected):
    rings = TaskRings(2, 5, 0)
    offer(rings, 0, 1, 3)
    if restarted:
        rings.restart()
    offer(rings, 1, 10, 2)
    assert labels(rings, 1) == expected
    assert rings.places(1, 2).tolist() == [5 + k for k in range(5) if expected[k]]


def test_filling_up_leaves_the_position():
    rings = TaskRings(2, 4, 0)
    rings.fill(1, torch.full((2, 3), 7.0), torch.tensor([7, 8]))
    assert labels(rings, 1) == [7] * 4 and rings.filled.tolist() == [[False] * 4, [True] * 4]
    offer(rings, 1, 20, 2)
    assert labels(rings, 1) == [20, 21, 7, 7]


def test_draws_are_distinct_and_of_filled_places_of_the_tasks_asked_for():
    rings = TaskRings(3, 4, 0)
    offer(rings, 0, 0, 2)
    rings.restart()
    offer(rings, 1, 10, 4)
    offer(rings, 2, 20, 4)
    for _ in range(20):
        assert sorted(rings.draw(2, 6).tolist()) == [0, 1, 4, 5, 6, 7] == sorted(rings.draw(2, 99).tolist())
        assert sorted(rings.draw(2, 8, empty=True).tolist()) == list(range(8))
        drawn = rings.draw(3, 3).tolist()
        assert len(set(drawn)) == 3 and set(drawn) <= {0, 1, *range(4, 12)}
    counts = torch.bincount(torch.cat([rings.draw(2, 3) for _ in range(2000)]), minlength=8)
    assert (counts[[0, 1, 4, 5, 6, 7]] / 1000 - 1).abs().max() < 0.1 and counts[2:4].sum() == 0
    assert torch.bincount(torch.tensor([rings.choose(3) for _ in range(3000)])).min() > 850


def test_rows_come_back_as_they_were_with_whatever_shape_and_dtype():
    rings = TaskRings(2, 3, 0)
    raw = torch.randint(256, (3, 2, 4, 4)).to(torch.uint8)
    rings.write(1, raw, torch.tensor([4, 5, 6]))
    images, slots = rings.at(torch.tensor([5, 3]))
    assert torch.equal(images, raw[[2, 0]]) and images.dtype == torch.uint8 and slots.tolist() == [6, 4]


def test_a_checkpoint_holds_all_that_later_draws_depend_on():
    rings = TaskRings(3, 4, 5)
    offer(rings, 0, 1, 3)
    rings.set_soft(torch.tensor([2, 0]), torch.tensor([[0.3, 0.7], [0.6, 0.4]]))
    rings.restart()
    offer(rings, 2, 10, 2)
    rings.draw(1, 2)
    other = TaskRings(3, 4, 99)
    other.load_state_dict(rings.state_dict(), torch.device("cpu"))
    assert_same(rings.state_dict(), other.state_dict())
    assert_same([*rings.columns, rings.soft], [*other.columns, other.soft])
    assert torch.equal(rings.soft_at(torch.tensor([2, 1])), torch.tensor([[0.3, 0.7], [0.0, 0.0]]))
    for ring in (rings, other):
        offer(ring, 2, 30, 4)
    assert labels(rings, 2) == labels(other, 2) == [10, 11, 30, 31]
    assert torch.equal(rings.draw(3, 5), other.draw(3, 5))


def test_an_empty_memory_can_be_kept():
    rings, other = TaskRings(2, 3, 0), TaskRings(2, 3, 1)
    other.load_state_dict(rings.state_dict(), torch.device("cpu"))
    assert other.columns == [] and len(other.draw(2, 4)) == 0
