"""DER, FDR, LwF, SI and iCaRL: each step against its definition, what memories hold, resumed runs."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F

from models.base import logits_then
from models.icarl import FAR, herd
from tests.tiny import Run, assert_same, assert_same_weights, build, rows_of, weights_of
from utils import plan as plans
from utils.contracts import Batch, Session
from utils.errors import UsageError
from utils.training.loop import Listener

PLAIN = {"lr": 0.1, "train_mask": "none"}


def make(name: str, own: dict | None = None, **run) -> Run:
    """A run on images that no transform changes from draw to draw."""
    made = build(name, own, **{"eval_period": -1, "scenario": "class-il"} | run)
    object.__setattr__(made.info, "augment", made.info.plain)
    return made


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def batch_of(run: Run, labels: list[int], seen: int = 12, seed: int = 0) -> Batch:
    raw = images(len(labels), seed)
    return Batch(run.info.plain(raw), torch.tensor(labels), raw, seen)


def session(index: int, first: int, stop: int, batches: list[Batch] | None = None) -> Session:
    given = batches or []
    return Session(index, [], range(first, stop), sum(len(b.y) for b in given), lambda size: iter(given))


def stepped(run: Run, loss: torch.Tensor, rate: float = 0.1) -> dict[str, torch.Tensor]:
    """The weights after a step of plain SGD on a loss."""
    named = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()))
    return {name: (p - rate * g).detach() for (name, p), g in zip(named.items(), gradients, strict=True)}


def assert_weights(run: Run, expected: dict[str, torch.Tensor]) -> None:
    now = dict(run.model.named_parameters())
    torch.testing.assert_close({name: now[name].detach() for name in expected}, expected, rtol=1e-4, atol=1e-6)


# Which classes compete


@pytest.mark.parametrize("name", ["icarl", "fdr", "lwf", "gem", "finetune", "ewc_posterior"])
def test_classes_of_which_no_batch_holds_an_image_have_no_column(name):
    """Nor are they read again."""
    small = {"backbone": "mlp-4"} if name == "ewc_posterior" else {}
    run = build(name, scenario="class-il", n_iter=1, batch_size=2, eval_period=-1, **small)
    run.trainer.train()
    stream, met = run.trainer.stream, len(run.trainer.seen)
    assert stream.columns(stream.num_tasks - 1).stop == met <= 2 * stream.num_tasks < run.info.num_classes
    measured = run.trainer.history.summary()
    assert measured["task_final"] >= measured["class_final"]


@pytest.mark.parametrize("name", ["er", "derpp", "der", "fdr", "lwf", "si", "icarl", "finetune"])
def test_all_classes_compete_if_none_is_masked(name):
    for mask, moved in (("seen", 4), ("none", 12)):
        run = make(name, {"train_mask": mask, "trainable": "head"} | ({"opt_wd": 0.0} if name == "icarl" else {}))
        run.model.loss(batch_of(run, [0, 2, 3], seen=4)).backward()
        rows = run.model.head.weight.grad.abs().sum(dim=1) > 0
        assert rows.tolist() == [slot < moved for slot in range(12)]


@pytest.mark.parametrize("name", ["gem", "agem"])
def test_classes_of_all_tasks_so_far_compete_in_gem_on_class_il(name):
    plan = plans.make({"model": name, "dataset": "seq-digits", "scenario": "class-il"})
    plan.method.prepare(plan.run, plan.method_args)
    assert plan.method_args.grows
    run = make(name, {"n_memories": 12})
    for scenario, mask, kept in (
        ("class-il", "seen", range(8)),
        ("task-il", "seen", range(4, 8)),
        ("class-il", "none", range(12)),
    ):
        run.model.args.grows, run.model.args.train_mask = scenario == "class-il", mask
        run.model.begin_task(session(0, 0, 4))
        run.model.begin_task(session(1, 4, 8))
        batch = batch_of(run, [4, 7])
        logits = run.model(batch.x)[:, list(kept)]
        torch.testing.assert_close(run.model.loss(batch), F.cross_entropy(logits, batch.y - kept.start))
    plan = plans.make({"model": name, "dataset": "seq-digits", "scenario": "task-il", "train_mask": "none"})
    with pytest.raises(UsageError, match="--train_mask none: has no effect on task-il"):
        plan.method.prepare(plan.run, plan.method_args)


# DER


def test_der_replays_stored_logits_and_no_label():
    run = make("der", PLAIN | {"replay_size": 2, "alpha": 0.3, "optimizer": "plain", "trainable": "all"})
    model, stored, batch = run.model, torch.randn(4, 12), batch_of(run, [2, 3, 3])
    model.buffer.add(images(4, 1), torch.tensor([0, 1, 2, 0]), stored)
    model.buffer.draw_positions = lambda count: torch.tensor([3, 1])
    old = model(run.info.plain(images(4, 1)[[3, 1]]))
    logits = model(batch.x)
    loss = F.cross_entropy(logits, batch.y) + 0.3 * (old - stored[[3, 1]]).square().mean()
    expected = stepped(run, loss)
    torch.testing.assert_close(model.observe(batch), loss.detach())
    assert_weights(run, expected)
    model.end_batch(batch)
    torch.testing.assert_close(model.buffer.columns[2][4:7], logits.detach())


# FDR


def test_fdr_takes_a_second_step_towards_what_was_stored():
    run = make("fdr", PLAIN | {"replay_size": 2, "alpha": 0.7, "optimizer": "plain", "trainable": "all"})
    model, stored, batch = run.model, 3 * torch.randn(2, 12), batch_of(run, [2, 3, 3])
    raw = images(2, 1)
    model.buffer.add(raw, torch.tensor([0, 1]), stored, torch.tensor([0, 0]))
    model.buffer.draw_positions = lambda count: torch.arange(2)
    first = F.cross_entropy(model(batch.x), batch.y)
    between = stepped(run, first)
    twin = make("fdr", PLAIN | {"trainable": "all"})
    twin.model.load_state_dict(model.state_dict() | between)
    p, q = twin.model(run.info.plain(raw)).softmax(1), stored.softmax(1)
    second = 0.7 * sum((p[k] - q[k]).square().sum().sqrt() for k in range(2)) / 2
    expected = stepped(twin, second)
    torch.testing.assert_close(model.observe(batch), (first + second).detach())
    assert_weights(run, expected)
    assert len(model.buffer) == 2  # nothing is stored on the way


def test_fdr_shares_its_memory_among_the_tasks_so_far():
    run = make("fdr", {"memory_size": 7})
    model = run.model
    for index, share in ((0, 7), (1, 3), (2, 2)):
        parts = [batch_of(run, [index] * 5, seed=10 * index + k) for k in range(2)]
        # SIZE images at a time in a run; here a session of one part
        whole = Batch(*(torch.cat([getattr(b, name) for b in parts]) for name in ("x", "y", "raw")), 12)
        before = [column[: len(model.buffer)].clone() for column in model.buffer.columns]
        model.end_updates(session(index, index, index + 1, [whole]))
        raw, y, logits, tasks = (column[: len(model.buffer)] for column in model.buffer.columns)
        assert tasks.tolist() == [task for task in range(index + 1) for _ in range(share)] == y.tolist()
        for task in range(index):  # the first ones of each stay, with what was stored then
            own = before[3] == task
            assert torch.equal(raw[tasks == task], before[0][own][:share])
            assert torch.equal(logits[tasks == task], before[2][own][:share])
        new = raw[tasks == index]
        assert (new[:, None] == whole.raw).flatten(2).all(2).any(1).all() and len(new.unique(dim=0)) == share
        torch.testing.assert_close(logits[tasks == index], model(run.info.plain(new)).detach())
        assert model.training


# LwF


def test_lwf_distils_what_the_network_gave_as_the_task_began():
    run = make("lwf", PLAIN | {"alpha": 0.8, "softmax_temp": 3.0, "optim_wd": 0.01})
    model, batch = run.model, batch_of(run, [4, 5, 7])
    model.begin_task(session(0, 0, 4))
    torch.testing.assert_close(model.loss(batch), F.cross_entropy(model(batch.x), batch.y))
    model.begin_task(session(1, 4, 8))
    then = model(batch.x).detach()[:, :4]
    model.observe(batch)
    now = model(batch.x)
    p, log_q = (then / 3).softmax(1), (now[:, :4] / 3).log_softmax(1)
    loss = F.cross_entropy(now, batch.y) - 0.8 * (p * log_q).sum() / 3
    decay = {name: 0.1 * 0.01 * w.detach() for name, w in model.named_parameters()}
    expected = {name: w - decay[name] for name, w in stepped(run, loss).items()}
    torch.testing.assert_close(model.observe(batch), loss.detach())
    assert_weights(run, expected)


def test_lwf_takes_the_statistics_of_then_where_there_are_any():
    run = make("lwf", PLAIN, backbone="resnet18-4")
    model, batch = run.model, batch_of(run, [4, 5, 7])
    model.train()
    model.begin_task(session(1, 4, 8))
    then = model.eval()(batch.x).detach()
    model.train()
    model.observe(batch)
    counted = model.backbone.state_dict()
    torch.testing.assert_close(logits_then(model, model.old, batch.x), then)
    assert_same_weights(counted, model.backbone.state_dict())
    assert model.backbone.training


# SI


def test_si_adds_up_the_way_of_each_weight_and_holds_it():
    run = make("si", PLAIN | {"c": 0.6, "xi": 0.2})
    model, batch = run.model, batch_of(run, [0, 1, 3])
    weight = model.head.weight
    start, path = weight.detach().clone(), torch.zeros_like(weight)
    place = [p is weight for p in model.trained()].index(True)
    model.begin_task(session(0, 0, 4))
    for _ in range(2):
        (g,) = torch.autograd.grad(model.loss(batch), weight)
        before = weight.detach().clone()
        model.observe(batch)
        torch.testing.assert_close(weight.detach(), before - 0.1 * g.clamp(-1, 1))
        path += g * (before - weight.detach())
    model.end_task(session(0, 0, 4))
    importance = path / ((weight.detach() - start).square() + 0.2)
    torch.testing.assert_close(model.importance[place], importance)
    anchor, other = weight.detach().clone(), batch_of(run, [4, 5], seed=1)

    model.begin_task(session(1, 4, 8))
    model.observe(other)
    (g,) = torch.autograd.grad(model.loss(other), weight)
    before = weight.detach().clone()
    model.observe(other)
    held = (g + 2 * 0.6 * importance * (before - anchor)).clamp(-1, 1)
    torch.testing.assert_close(weight.detach(), before - 0.1 * held)


def test_si_clips_the_gradient_and_not_what_it_adds_up():
    run = make("si", PLAIN)
    model, batch = run.model, batch_of(run, [0, 1, 3])
    loss = model.loss
    model.loss = lambda given: 1000 * loss(given)
    model.begin_task(session(0, 0, 4))
    (g,) = torch.autograd.grad(model.loss(batch), model.head.bias)
    before = model.head.bias.detach().clone()
    model.observe(batch)
    torch.testing.assert_close(before - model.head.bias.detach(), 0.1 * g.clamp(-1, 1))
    place = [p is model.head.bias for p in model.trained()].index(True)
    torch.testing.assert_close(model.path[place], 0.1 * g * g.clamp(-1, 1))
    assert g.abs().max() > 1


# iCaRL


def test_herding_keeps_the_mean_of_the_chosen_near_that_of_all():
    z = torch.tensor([[0.0], [1.0], [2.0], [7.0]])  # mean 2.5
    # 2 is nearest; then (2 + z) / 2: 1, 1.5, 4.5 -> 1; then (3 + z) / 3: 1, 10/3 -> 7
    assert herd(z, 3).tolist() == [2, 1, 3]
    assert herd(z, 9).tolist() == [2, 1, 3, 0]


def test_icarl_learns_labels_and_what_the_network_gave_of_past_classes():
    own = {"lr": 0.1, "replay_size": 2, "opt_wd": 0.01, "optimizer": "plain", "trainable": "all"}
    run = make("icarl", own)
    model, batch, raw = run.model, batch_of(run, [3, 4], seen=5), images(2, 1)
    model.begin_task(session(0, 0, 3))
    model.begin_task(session(1, 3, 6))
    model.buffer.add(raw, torch.tensor([0, 2]))
    model.buffer.draw_positions = lambda count: torch.arange(2)
    x = torch.cat((batch.x, run.info.plain(raw)))
    past = model(x).detach()[:, :3].sigmoid()
    model.observe(batch)  # so that the network is no longer that of then
    p = model(x).sigmoid()[:, :5]
    targets = torch.cat((past, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])), dim=1)
    loss = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    loss = loss + 0.01 * sum(w.square().sum() for w in model.parameters() if w.requires_grad)
    expected = stepped(run, loss)
    torch.testing.assert_close(model.observe(batch), loss.detach())
    assert_weights(run, expected)


def test_icarl_fills_equal_shares_by_herding_and_predicts_the_nearest_mean():
    run = make("icarl", {"memory_size": 13})
    model = run.model
    batch = batch_of(run, [1, 0, 1, 0, 1, 0, 1, 1, 2])
    features = F.normalize(model.fixed_features(batch.x).detach(), dim=1)
    model.begin_task(session(0, 0, 3))
    assert torch.equal(model.eval()(batch.x), model.head(model.fixed_features(batch.x)))  # no memory yet
    model.train()
    model.end_updates(session(0, 0, 3, [batch]))
    expected = [(batch.y == slot).nonzero().flatten() for slot in range(3)]
    expected = [rows[herd(features[rows], 4)] for rows in expected]
    held = len(model.buffer)
    assert model.buffer.slots[:held].tolist() == [0, 0, 0, 1, 1, 1, 1, 2]
    assert torch.equal(model.buffer.images[:held], batch.raw[torch.cat(expected)])

    means = []
    for rows in expected:
        both = torch.cat((batch.raw[rows], batch.raw[rows].flip(3)))
        z = model.fixed_features(run.info.plain(both))
        means.append(F.normalize(F.normalize(z, dim=1).mean(0), dim=0))
    distance = torch.cdist(features, torch.stack(means).detach()).square()
    model.eval()
    torch.testing.assert_close(model(batch.x)[:, :3], -distance, rtol=1e-4, atol=1e-5)
    assert (model(batch.x)[:, 3:] == FAR).all()

    model.train()
    later = batch_of(run, [3, 4, 5, 4, 4], seed=1)
    model.begin_task(session(1, 3, 6))
    model.end_updates(session(1, 3, 6, [later]))
    share = [0, 0, 1, 1, 2, 3, 4, 4, 5]  # 13 // 6 images of a class, the first ones of the old classes
    assert model.buffer.slots[: len(model.buffer)].tolist() == share
    assert torch.equal(model.buffer.images[2:4], batch.raw[expected[1][:2]])


def test_means_follow_the_network():
    run = make("icarl", {"memory_size": 12, "trainable": "all", "lr": 0.01})
    model, batch = run.model, batch_of(run, [0, 1, 0, 1])
    model.begin_task(session(0, 0, 2))
    model.end_updates(session(0, 0, 2, [batch]))
    before = model.means()
    model.observe(batch)
    assert not torch.equal(model.means()[:2], before[:2])


@pytest.mark.parametrize("name, size, what", [("icarl", 11, "12 classes"), ("fdr", 2, "3 tasks")])
def test_a_memory_that_cannot_hold_one_of_each_is_refused(name, size, what):
    with pytest.raises(UsageError, match=f"--memory_size {size}: {name} keeps an image of each of {what}"):
        build(name, {"memory_size": size})


# Runs


class Keeper(Listener):
    """Checkpoints after some batches, and after the first task."""

    def __init__(self, wanted=()):
        self.wanted, self.batches, self.states = wanted, 0, {}

    def keep(self, trainer, place):
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        self.states[place] = file.getvalue()

    def progress(self, trainer):
        self.batches += 1
        if self.batches in self.wanted:
            self.keep(trainer, self.batches)

    def task_ended(self, trainer):
        if trainer.task == 1:
            self.keep(trainer, "task 1")


@pytest.mark.parametrize("name", ["der", "fdr", "lwf", "si", "icarl"])
def test_a_resumed_run_is_the_unbroken_one(name):
    own = {"lr": 0.01, "trainable": "last", "last_blocks": 1}
    own |= {"memory_size": 24, "replay_size": 8} if name in ("der", "fdr", "icarl") else {}

    def start(listener: Keeper) -> Run:
        run = {"scenario": "task-il" if name == "lwf" else "class-il", "n_tasks": 3, "batch_size": 32}
        return build(name, own, listener=listener, eval_period=-1, **run)

    whole = start(keeper := Keeper({4}))
    whole.trainer.train()
    assert keeper.states.keys() == {4, "task 1"}  # after a task, and after the last batch of the next, before its end
    for state in keeper.states.values():
        resumed = start(Keeper())
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))
        assert_same(resumed.model.extra_state(), whole.model.extra_state())
