"""Slots of classes in order of appearance, and the masks made from them."""

from __future__ import annotations

import pytest
import torch

from utils.classes import SeenClasses, TaskColumns, mask_absent, mask_unseen

INF = torch.inf


def test_slots_follow_the_order_of_the_first_row():
    seen = SeenClasses(6)
    seen.add(torch.tensor([4, 1, 4, 1]))
    assert seen.labels == [4, 1] and len(seen) == 2
    seen.add(torch.tensor([1, 5, 4, 0]))
    assert seen.labels == [4, 1, 5, 0]
    assert seen.slots(torch.tensor([0, 1, 2, 3, 4, 5])).tolist() == [3, 1, -1, -1, 0, 2]


def test_known_classes_keep_their_label_as_slot():
    seen = SeenClasses(5, known=3)
    seen.add(torch.tensor([4, 2]))
    assert seen.labels == [0, 1, 2, 4]
    assert seen.slots(torch.arange(5)).tolist() == [0, 1, 2, -1, 3]


def test_no_image_brings_no_class():
    seen = SeenClasses(3)
    seen.add(torch.empty(0, dtype=torch.int64))
    assert len(seen) == 0


def test_state_comes_back_over_what_was_there():
    first, second = SeenClasses(5), SeenClasses(5, known=5)
    first.add(torch.tensor([3, 0]))
    second.load_state_dict(first.state_dict())
    first.add(torch.tensor([1]))  # the state is no view of the object
    assert second.labels == [3, 0]
    second.add(torch.tensor([2]))
    assert second.slots(torch.arange(5)).tolist() == [1, -1, 2, 0, -1]


def test_seen_mask():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert mask_unseen(logits, 2).tolist() == [[1, 2, -INF], [4, 5, -INF]]
    assert mask_unseen(logits, 0).tolist() == [[-INF] * 3] * 2
    assert torch.equal(mask_unseen(logits, 3), logits)
    assert logits.isfinite().all()  # the input stays


def test_batch_mask():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert mask_absent(logits, torch.tensor([2, 0])).tolist() == [[1, -INF, 3], [4, -INF, 6]]
    assert mask_absent(logits, torch.tensor([1, 1])).tolist() == [[-INF, 2, -INF], [-INF, 5, -INF]]


def test_masked_classes_get_no_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    torch.nn.functional.cross_entropy(mask_absent(logits, torch.tensor([0, 2])), torch.tensor([2])).backward()
    assert logits.grad.tolist() == [[0.5, 0, -0.5]]


def test_columns_of_other_tasks_are_masked():
    own = TaskColumns(5)
    own.begin(0, range(0, 2))
    own.begin(1, range(2, 4))
    logits = torch.arange(10.0).view(2, 5)
    assert own(logits, torch.tensor([1, 2])).tolist() == [[0, 1, -INF, -INF, -INF], [-INF, -INF, 7, 8, -INF]]
    assert own.state_dict() == {}  # the loop asks the method for it


@pytest.mark.parametrize("columns", [range(5), None])
def test_shared_columns_are_not_masked(columns):
    own, logits = TaskColumns(5), torch.randn(2, 5)
    for task in range(2):
        own.begin(task, columns)
        assert torch.equal(own(logits, torch.tensor([1, 4])), logits)
