"""The stream of meta steps: what each of them holds, in which order, and what is refused."""

from __future__ import annotations

import pytest
import torch

from utils.errors import UsageError
from utils.streams.trajectories import Trajectories

LABELS = torch.arange(10).repeat_interleave(20)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]


def stream(**given) -> Trajectories:
    usual = {"steps": 5, "tasks": 3, "update_step": 4, "query": "split", "meta_batch": 15} | {
        "held_out": 5,
        "batch_size": 1,
        "seed": 1,
    }
    return Trajectories(LABELS, 10, **usual | given)


def parts(made: Trajectories, number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the trajectory and of the query of a meta step, no sample of which occurs twice."""
    draw = made.meta_step(number)
    assert len(draw.indices.unique()) == len(draw.indices) and not draw.augment
    labels = LABELS[draw.indices]
    return labels.split([made.tasks * made.in_trajectory, len(labels) - made.tasks * made.in_trajectory])


def test_split():
    """Trajectories are of the second half; the query has 15 images of the first one, then 5 of each class."""
    for number in range(5):
        trajectory, query = parts(stream(), number)
        classes = trajectory[::4]
        assert len(classes.unique()) == 3 and classes.min() >= 5 and len(query) == 30
        assert trajectory.tolist() == classes.repeat_interleave(4).tolist()
        assert query[:15].max() < 5 and query[15:].tolist() == classes.repeat_interleave(5).tolist()


@pytest.mark.parametrize("query, size, asked", [("paper", 1, 4), ("paper", 2, 8), ("minibatch", 3, 3)])
def test_queries_of_the_trajectorys_own_classes(query, size, asked):
    met = set()
    for number in range(5):
        trajectory, rest = parts(stream(query=query, batch_size=size), number)
        classes = trajectory[:: 4 * size]
        assert trajectory.tolist() == classes.repeat_interleave(4 * size).tolist()
        assert rest.tolist() == classes.repeat_interleave(asked).tolist()
        met |= {*classes.tolist()}
    assert min(met) < 5 <= max(met)


def test_a_meta_step_is_a_function_of_seed_and_number(monkeypatch):
    monkeypatch.setattr(Trajectories, "PER_TASK", 2)
    made = stream()
    drawn = [draw.indices for task in range(made.num_tasks) for draw in made.batches(task, 0)]
    assert [len(made.batches(task, 0)) for task in range(made.num_tasks)] == [2, 2, 1]
    assert len(drawn) == made.num_batches() and sum(map(len, drawn)) == made.num_images()
    assert all(torch.equal(made.meta_step(k).indices, each) for k, each in reversed([*enumerate(drawn)]))
    assert len({tuple(each.tolist()) for each in drawn}) == 5
    assert not torch.equal(stream(seed=2).meta_step(0).indices, drawn[0])


@pytest.mark.parametrize(
    "given, reason",
    [
        (
            {"update_step": 16},
            "--update_step 16: a trajectory takes 16 samples of a class and the query 5 more",
        ),
        ({"update_step": 11, "query": "paper"}, "--update_step 11: .* the smallest class has 20"),
        ({"update_step": 10, "query": "minibatch", "batch_size": 2}, "--update_step 10: .* 20 samples .* 2 more"),
        ({"tasks": 6}, "--tasks 6: trajectories can have 5 classes, the second half of 10"),
        ({"tasks": 11, "query": "paper"}, "--tasks 11: trajectories can have 10 classes; "),
        ({"meta_batch": 101}, "--meta_batch 101: the first half of the classes, .* has 100 images"),
        ({"held_out": 0, "meta_batch": 0}, "--meta_batch 0: nothing is left"),
    ],
)
def test_what_has_no_stream(given, reason):
    with pytest.raises(UsageError, match=reason):
        stream(**given)
    stream(update_step=15)  # the most that leaves a query
