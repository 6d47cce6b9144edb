"""CODA-Prompt: which components learn when, and Gram-Schmidt."""

from __future__ import annotations

import pytest
import torch

from models.coda import gram_schmidt
from tests.tiny import build, weights_of
from utils.errors import UsageError


def parts_that_move(name: str, own: dict, products: dict) -> list[set[str]]:
    """Per task, which kinds of tensors training moved: p, k, a, head."""
    run = build(name, own | products, n_tasks=3, eval_period=-1)
    coda = run.model.host if name == "mepo" else run.model
    begin, moved = run.model.begin_task, []

    def begun(session):
        begin(session)
        moved.append(weights_of(coda))

    end = run.model.end_task

    def ended(session):
        before, after = moved[-1], weights_of(coda)
        names = [key for key in after if not key.startswith("backbone") and not torch.equal(after[key], before[key])]
        moved[-1] = {key.split("_")[1] if key.startswith("e_") else key.split(".")[0] for key in names}
        end(session)

    run.model.begin_task, run.model.end_task = begun, ended
    run.trainer.train()
    return moved


@pytest.mark.parametrize("name", ["coda", "mepo"])
def test_released_prompts_learn_in_the_first_task_only(name, products):
    given = products | {"host": "coda"} if name == "mepo" else {}
    everything = {"p", "k", "a", "head"}
    assert parts_that_move(name, {}, given) == [everything, {"head"}, {"head"}]
    assert parts_that_move(name, {"rebuild_optimiser": True}, given) == [everything] * 3


def test_rebuilt_optimiser_forgets_its_moments(products):
    for name, own in (("coda", {}), ("mepo", products | {"host": "coda"})):
        run = build(name, own | {"rebuild_optimiser": True}, n_tasks=3, eval_period=-1)
        end, steps = run.model.end_task, []

        def ended(session, model=run.model, end=end, steps=steps):
            end(session)
            steps.append(len(model.optimizer.state))

        run.model.end_task = ended
        run.trainer.train()
        assert steps[:2] == [0, 0] and steps[2] > 0  # after the last task nothing is opened


def test_rows_of_a_new_task_are_orthonormal_and_later_ones_empty():
    torch.manual_seed(0)
    rows = torch.randn(6, 20)
    rows[:2] = 3 * torch.linalg.qr(torch.randn(20, 2))[0].T  # orthogonal, or classical Gram-Schmidt is inexact
    trained = rows[:2].clone()
    gram_schmidt(rows, 2, 4)
    assert torch.equal(rows[:2], trained) and rows[4:].abs().sum() == 0
    torch.testing.assert_close(rows[:4] @ rows[:4].T, torch.diag(torch.tensor([9.0, 9, 1, 1])), atol=1e-4, rtol=0)


def test_vanishing_row_is_passed_over():
    rows = torch.zeros(4, 8)
    gram_schmidt(rows, 1, 3)  # row 0 has no direction
    torch.testing.assert_close(rows[1:3] @ rows[1:3].T, torch.eye(2), atol=1e-5, rtol=0)


def test_pool_that_cannot_be_shared_out_is_refused():
    with pytest.raises(UsageError, match="--e_pool 2: a stream of 3 tasks"):
        build("coda", {"e_pool": 2}, n_tasks=3)
