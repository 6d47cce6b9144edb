"""BCL and its baselines beyond the recorded cases: limits, switches, checkpoints, what adaptation leaves."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import models.gem
from models.gem import RIDGE, weights_of_tasks
from tests.tiny import Run, assert_same, assert_same_weights, build, rows_of, weights_of
from utils import plan as plans
from utils.contracts import Batch, Session
from utils.errors import UsageError
from utils.training.loop import Listener

SMALL = {"n_memories": 12, "replay_batch_size": 8, "memory_strength": 1.0}
TOLD = {
    "bcl": SMALL,
    "er_ring": {"n_memories": 12, "replay_batch_size": 8},
    "gem": {"n_memories": 12},
    "agem": {"n_memories": 12},
    "ewc": {},
    "ftml": {"n_memories": 12},
}


def make(name: str, own: dict | None = None, **run) -> Run:
    return build(name, TOLD.get(name, {}) | (own or {}), **{"eval_period": -1} | run)


def begin(run: Run, task: int = 0) -> None:
    stream = run.trainer.stream
    run.model.begin_task(Session(task, stream.task_classes(task), stream.columns(task), 0, lambda size: iter(())))


def batch_of(run: Run, labels: list[int], seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    raw = torch.randint(256, (len(labels), 3, 32, 32), generator=draw).to(torch.uint8)
    return Batch(run.info.plain(raw), torch.tensor(labels), raw, 12)


def arrive(run: Run, batch: Batch) -> torch.Tensor:
    loss = run.model.observe(batch)
    run.model.end_batch(batch)
    return loss


class Keeper(Listener):
    """A checkpoint after some batches, and predictions for every task on the way."""

    def __init__(self, wanted=(), ask: bool = False):
        self.wanted, self.ask, self.batches, self.states, self.logits = wanted, ask, 0, {}, []

    def progress(self, trainer):
        self.batches += 1
        if self.ask:
            trainer.model.eval()
            with torch.no_grad():
                x = torch.ones(2, 3, 32, 32)
                self.logits.append(torch.stack([trainer.model.given(x, t) for t in range(trainer.stream.num_tasks)]))
            trainer.model.train()
        if self.batches in self.wanted:
            file = io.BytesIO()
            torch.save(trainer.state_dict(), file)
            self.states[self.batches] = file.getvalue()


@pytest.mark.parametrize(
    "name, own, run",
    [
        ("bcl", {"form": "single", "inner_steps": 2}, {}),
        ("bcl", {"clear_grad": True, "released_exclusion": False}, {"online_iter": 2}),
        ("bcl", {"adapt": True}, {}),
        ("ftml", {"adapt": True, "inner_steps": 2}, {}),
        ("er_ring", {"inner_steps": 2}, {"batch_size": 5}),
        ("gem", {}, {"batch_size": 5}),
        ("ewc", {"n_memories": 20}, {"online_iter": 2}),
        ("finetune", {"optimizer": "sgd", "lr": 0.01}, {"scenario": "task-il"}),
    ],
)
def test_a_resumed_run_is_the_unbroken_one(name, own, run):
    def start(listener: Keeper) -> Run:
        made = make(name, own, **run)
        made.trainer.listeners = [listener]
        if name == "finetune":
            made.model.args.told = True
        return made

    whole = start(keeper := Keeper({2, 7, 11}, ask=bool(own.get("adapt"))))
    whole.trainer.train()
    assert keeper.states.keys() == {2, 7, 11}
    for done, state in keeper.states.items():
        resumed = start(again := Keeper(ask=bool(own.get("adapt"))))
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))
        assert_same(resumed.model.extra_state(), whole.model.extra_state())
        assert_same(again.logits, keeper.logits[done:])


# The two forms of BCL


@pytest.mark.parametrize("memories, ratio", [(9, 0.2), (256, 0.0), (1, 0.9)])
def test_a_validation_memory_of_fewer_than_two_is_refused(memories, ratio):
    given = {"model": "bcl", "dataset": "seq-digits", "n_memories": memories, "val_ratio": ratio}
    plan = plans.make(given)
    with pytest.raises(UsageError, match="the validation memory would hold . samples per task, and needs 2"):
        plan.method.prepare(plan.run, plan.method_args)
    with pytest.raises(UsageError, match="--n_memories"):
        build("bcl", {"n_memories": memories, "val_ratio": ratio})
    plan = plans.make(given | {"form": "single"})
    assert plan.method.prepare(plan.run, plan.method_args) == []


def test_a_minibatch_goes_to_both_memories():
    """The first sample validates, what it displaces is trained on, and the rest fills the ring."""
    run = make("bcl", {"n_memories": 10})  # 2 + 8
    begin(run)
    model, trained = run.model, []
    inner = model.loss
    model.loss = lambda batch: (trained.append(batch.y.tolist()), inner(batch))[1]
    for first in (0, 1, 2):
        arrive(run, batch_of(run, [first, 3, 3], seed=first))
    validating, kept = (rings.columns[1].view(3, -1)[0].tolist() for rings in (model.validation, model.memory))
    assert validating == [2, 1]  # filled by the first, whose place is the first to be taken next but one
    assert kept == [3, 3, 3, 3, 0, 3, 3, 0]
    assert [trained[k] for k in (0, 2, 4)] == [[3, 3], [3, 3, 0], [3, 3, 0]]


def test_a_minibatch_of_one_sample_is_trained_on_and_validates_nothing():
    run = make("bcl")
    begin(run)
    before = weights_of(run.model)
    lone = batch_of(run, [2])
    loss = arrive(run, lone)
    assert loss.isfinite() and not run.model.validation.holds(0) and run.model.memory.filled[0].all()
    assert not torch.equal(before["head.weight"], run.model.head.weight)
    arrive(run, batch_of(run, [0, 1, 2], seed=1))
    held = run.model.validation.columns[1].clone()
    arrive(run, lone)
    assert torch.equal(run.model.validation.columns[1], held)
    assert make("bcl", batch_size=1, n_tasks=2).trainer.train() is not None


def test_the_textbook_form_differs_from_the_released_one():
    released, textbook, single = (make("bcl", own) for own in ({}, {"clear_grad": True}, {"form": "single"}))
    for run in (released, textbook, single):
        run.trainer.train()
    ends = [run.model.head.weight for run in (released, textbook, single)]
    assert not torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
    assert not single.model.validation.columns and single.model.memory.slots == 12


def test_gradients_add_up_until_the_weights_are_kept():
    """One inner and one outer step of rate r and beta 1: theta - r g_in - r (g_in + g_out), released."""
    own = {"n_meta": 1, "beta": 1.0, "lr": 0.01}
    for clear, times in ((False, 2), (True, 1)):
        run = make("bcl", own | {"clear_grad": clear})
        begin(run)
        model, batch = run.model, batch_of(run, [0, 1, 2, 3])
        head, gradients = model.head.weight.detach().clone(), []
        loss, outer = model.loss, model.outer_loss

        def noted(value, model=model, gradients=gradients):
            gradients.append(torch.autograd.grad(value, model.head.weight, retain_graph=True)[0])
            return value

        model.loss, model.outer_loss = lambda b, f=loss: noted(f(b)), lambda f=outer: noted(f())
        arrive(run, batch)
        expected = head - 0.01 * (times * gradients[0] + gradients[1])
        torch.testing.assert_close(model.head.weight.detach(), expected)


def test_an_emptied_replay_draw_skips_the_replay_terms():
    run = make("bcl")
    begin(run)
    arrive(run, batch_of(run, [0, 1, 2, 3]))
    begin(run, 1)
    model, batch = run.model, batch_of(run, [4, 5, 6, 7])
    model.memory.draw = lambda tasks, count: torch.tensor([0, 1])
    model.last_val = torch.tensor([1, 0, 5])
    torch.testing.assert_close(model.loss(batch), model.own_loss(batch.x, batch.y))
    model.last_val = torch.tensor([1, 5])
    again, divergence = model.replay_losses(torch.tensor([0]))
    torch.testing.assert_close(model.loss(batch), model.own_loss(batch.x, batch.y) + again + 1.0 * divergence)


def test_losses_are_over_the_columns_of_each_samples_own_task():
    run = make("bcl", n_tasks=5)  # tasks of 3, 3, 2, 2, 2 classes
    for task in range(3):
        begin(run, task)
    x, y = torch.randn(3, 3, 32, 32), torch.tensor([1, 4, 7])
    logits = run.model(x)
    parts = [logits[:1, 0:3], logits[1:2, 3:6], logits[2:, 6:8]]
    expected = torch.stack([F.cross_entropy(part, torch.tensor([1])) for part in parts]).mean()
    torch.testing.assert_close(run.model.own_loss(x, y), expected)
    # The divergence is a mean over samples and their own columns.
    raw = torch.randint(256, (3, 3, 32, 32)).to(torch.uint8)
    object.__setattr__(run.info, "augment", run.info.plain)
    for task in range(3):
        run.model.memory.restart()
        run.model.memory.write(task, raw[task : task + 1], y[task : task + 1])
    index = run.model.memory.places(0, 3)
    q = run.model.own(torch.randn(3, 12), y).softmax(dim=1)
    run.model.memory.set_soft(index, q)
    logits = run.model(run.info.plain(raw)) / 5
    total = sum(
        (q[k, own] * (q[k, own].log() - logits[k, own].log_softmax(0))).sum()
        for k, own in enumerate((slice(0, 3), slice(3, 6), slice(6, 8)))
    )
    torch.testing.assert_close(run.model.replay_losses(index)[1], total / 8)


# Adaptation


@pytest.mark.parametrize("name", ["bcl", "ftml"])
def test_adapted_copies_change_no_training_and_are_in_no_checkpoint(name):
    quiet, asked = make(name, {"adapt": True}), make(name, {"adapt": True})
    quiet.trainer.evaluator, asked.trainer.listeners = None, [Keeper(ask=True)]
    for run in (quiet, asked):
        run.trainer.train()
    assert_same_weights(weights_of(quiet.model), weights_of(asked.model))
    assert_same(quiet.trainer._learned(), asked.trainer._learned())
    assert asked.model._copies and not quiet.model._copies


def test_a_told_task_is_predicted_by_its_own_copy():
    run = make("bcl", {"adapt": True, "adapt_lr": 0.05, "inner_steps": 2})
    begin(run)
    arrive(run, batch_of(run, [0, 1, 2, 3]))
    model, x = run.model.eval(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        first = model.given(x, 0)
        assert torch.equal(model.given(x, 0), first) and not torch.equal(model(x), first)
        assert torch.equal(model.given(x, 1), model(x))  # not met yet
        assert model.is_told and not make("bcl").model.is_told
    arrive(run, batch_of(run, [3, 2, 1, 0], seed=1))
    with torch.no_grad():
        assert not torch.equal(model.given(x, 0), first)  # made anew after an update


# Baselines


def least(gram: np.ndarray, products: np.ndarray, margin: float) -> np.ndarray:
    """The programme by projected gradients, slowly."""
    P = gram + RIDGE * np.eye(len(gram))
    v, rate = np.full(len(P), margin), 1 / np.linalg.eigvalsh(P).max()
    for _ in range(200_000):
        v = np.maximum(margin, v - rate * (P @ v + products))
    return v


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_programme_of_gem(margin):
    draw = np.random.default_rng(0)
    for tasks in (1, 2, 5):
        rows, g = draw.normal(size=(tasks, 7)), draw.normal(size=7)
        v = weights_of_tasks(rows @ rows.T, rows @ g, margin)
        np.testing.assert_allclose(v, least(rows @ rows.T, rows @ g, margin), atol=1e-6)
        if margin == 0 and tasks < 5:
            assert (rows @ (rows.T @ v + g) > -1e-2).all()


@pytest.mark.parametrize("gram", [np.full((2, 2), np.nan), np.full((2, 2), np.inf), -np.eye(2)])
def test_a_programme_without_a_solution_has_none(gram):
    assert weights_of_tasks(gram, np.array([-1.0, 1.0]), 0.5) is None


def test_a_gradient_that_cannot_be_projected_stays_and_is_counted(monkeypatch):
    def no_end(*given):
        raise RuntimeError("too many iterations")

    monkeypatch.setattr(models.gem, "nnls", no_end)
    run = make("gem")
    begin(run)
    arrive(run, batch_of(run, [0, 1, 2, 3]))
    begin(run, 1)
    model, batch = run.model, batch_of(run, [4, 5, 6, 7])
    before = [p.detach().clone() for p in model.parameters()]
    gradients = torch.autograd.grad(model.loss(batch), list(model.parameters()))
    model.memory_gradient = lambda index: -torch.cat([gradient.flatten() for gradient in gradients])
    arrive(run, batch)
    assert model.measures() == {"unprojected": 1} and model.extra_state()["unprojected"] == 1
    for p, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * gradient)


def test_agem_takes_away_what_would_raise_the_memorys_loss():
    run = make("agem")
    begin(run)
    arrive(run, batch_of(run, [0, 1, 2, 3]))
    begin(run, 1)
    model, batch = run.model, batch_of(run, [4, 5, 6, 7])
    g = torch.cat([part.flatten() for part in torch.autograd.grad(model.loss(batch), list(model.parameters()))])
    other = torch.randn(len(g), generator=torch.Generator().manual_seed(0))
    for r in (other - 2 * g, other + 2 * g):
        model.optimizer.zero_grad()
        model.loss(batch).backward()
        model.turn([r])
        turned = torch.cat([p.grad.flatten() for p in model.parameters()])
        expected = g - min(0, (g.double() @ r.double()).item()) / (r.double() @ r.double()).item() * r
        torch.testing.assert_close(turned, expected)
        assert (turned.double() @ r.double()) > -1e-3
    assert model.measures() == {}


def test_ewc_holds_weights_that_mattered():
    run = make("ewc", {"memory_strength": 2.0, "n_memories": 5})
    begin(run)
    for seed in (0, 1):
        arrive(run, batch_of(run, [0, 1, 2], seed))
    model = run.model
    assert [len(rows) for rows in model.kept] == [5, 5] and model.kept[1].tolist() == [0, 1, 2, 0, 1]
    raw, y = model.kept
    loss = F.cross_entropy(model(run.info.plain(raw))[:, :4], y)
    fisher = [gradient.square() for gradient in torch.autograd.grad(loss, list(model.parameters()))]
    begin(run, 1)
    torch.testing.assert_close(model.past[0][0], fisher)
    batch = batch_of(run, [4, 5, 6])
    torch.testing.assert_close(model.loss(batch), model.own_loss(batch.x, batch.y))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1
    penalty = 2.0 * sum(part.sum() for part in fisher) * 0.01
    torch.testing.assert_close(model.loss(batch) - model.own_loss(batch.x, batch.y), penalty, rtol=1e-3, atol=1e-5)


def test_plain_sgd_is_told_only_where_tasks_are():
    def told(**given) -> bool:
        plan = plans.make({"model": "finetune", "dataset": "seq-digits", "optimizer": "sgd"} | given)
        plan.method.prepare(plan.run, plan.method_args)
        run = build("finetune", {"optimizer": given.get("optimizer", "sgd")})
        run.model.args.told = plan.method_args.told
        return run.model.needs_task_boundaries

    assert told(scenario="task-il") and not told(scenario="task-il", optimizer="adam")
    assert not told() and not told(scenario="class-il")
    run = build("finetune", {"optimizer": "sgd", "lr": 0.05}, scenario="task-il")
    run.model.args.told = True
    assert type(run.model.optimizer) is torch.optim.SGD
    begin(run)
    begin(run, 1)
    batch = batch_of(run, [5, 4, 7])
    expected = F.cross_entropy(run.model(batch.x)[:, 4:8], batch.y - 4)
    torch.testing.assert_close(run.model.loss(batch), expected)
    assert not build("er", {"optimizer": "sgd"}, scenario="task-il").model.needs_task_boundaries


@pytest.mark.parametrize("name", TOLD)
def test_domains_share_the_columns(name):
    run = make(name, n_tasks=2)
    for task in range(2):
        run.model.begin_task(Session(task, list(range(12)), range(12), 0, lambda size: iter(())))
        arrive(run, batch_of(run, [0, 5, 11, 3], seed=task))
    batch = batch_of(run, [1, 11])
    torch.testing.assert_close(run.model.own_loss(batch.x, batch.y), F.cross_entropy(run.model(batch.x), batch.y))
