"""SLCA: what its two rates act on, and what the alignment of its classifier sees and leaves alone."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from models import slca
from models.slca import DRAWS, RIDGE, WEIGHT_DECAY, ClassStatistics, factor, shifted_means
from tests.tiny import WIDTH, Patches, assert_same_weights, build, rows_of, weights_of
from utils.contracts import Batch
from utils.streams.base import TaskList
from utils.streams.class_il import ClassIncremental
from utils.training.loop import Listener

ALIGNED = {"ca_epochs": 2, "lr": 0.005, "lr_head": 0.1}


def run_of(own=ALIGNED, **run):
    return build("slca", own, **run)


class AfterBatches(Listener):
    """Calls `then(trainer)` after every batch."""

    def __init__(self, then):
        self.progress = then


def evaluate(run):
    return run.trainer.evaluator(run.model, run.trainer.seen)


# The slow learner


def test_backbone_is_slow_and_head_is_fast():
    model = run_of({"lr": 0.25, "lr_head": 0.5}).model
    slow, fast = model.optimizer.param_groups
    assert set(slow["params"]) == set(model.backbone.parameters()) and slow["lr"] == 0.25
    assert set(fast["params"]) == set(model.head.parameters()) and fast["lr"] == 0.5


def test_steps_have_no_momentum():
    model = run_of({"lr": 0.01, "lr_head": 0.1}, eval_period=-1).model
    rates = {p: group["lr"] for group in model.optimizer.param_groups for p in group["params"]}
    for _ in range(2):
        before = {p: p.detach().clone() for p in rates}
        sum((p**2).sum() + p.sum() for p in rates).backward()
        model.optimizer.step()
        for p, lr in rates.items():
            torch.testing.assert_close(p.detach(), before[p] - lr * (p.grad + WEIGHT_DECAY * before[p]))
        model.optimizer.zero_grad()


@pytest.mark.parametrize("mask, competing", [("batch", [0, 2]), ("seen", [0, 1, 2])])
def test_classes_that_compete_in_training(mask, competing):
    model = run_of({"train_mask": mask}).model
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 2, 0])
    logits = model(x)[:, competing]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([competing.index(slot) for slot in y.tolist()]))
    torch.testing.assert_close(model.loss(Batch(x, y, x, seen=3)), expected)


# Statistics


def test_running_statistics_are_those_of_all_rows():
    torch.manual_seed(0)
    statistics, rows = ClassStatistics(3, 4), torch.randn(60, 4) * torch.tensor([1.0, 2.0, 3.0, 0.1]) + 5
    slots = torch.randint(3, (60,))
    for part, part_slots in zip(rows.split(7), slots.split(7), strict=True):
        statistics.add(part, part_slots)
    for slot in range(3):
        own = rows[slots == slot]
        assert statistics.count[slot] == len(own)
        torch.testing.assert_close(statistics.mean[slot], own.mean(dim=0))
        torch.testing.assert_close(statistics.covariance(slot), torch.cov(own.T) + RIDGE * torch.eye(4))


@pytest.mark.parametrize("images", [1, 2, 5, 8])
def test_covariance_of_few_images_has_a_factor(images):
    torch.manual_seed(0)
    width, rows = 8, 1000 * torch.randn(images, 8)  # the ridge alone is lost in variances of this size
    statistics = ClassStatistics(1, width)
    statistics.add(rows, torch.zeros(images, dtype=torch.int64))
    given = statistics.covariance(0)
    lower = factor(given)
    torch.testing.assert_close(lower @ lower.T, given)
    if images > 1:
        sample = torch.cov(rows.T)
        torch.testing.assert_close(given.diagonal(), sample.diagonal())
        torch.testing.assert_close(given[0, 1], sample[0, 1] * (images - 1) / width)
    else:
        torch.testing.assert_close(given, RIDGE * torch.eye(width))


def test_means_shrink_with_the_age_of_the_class():
    shifted = shifted_means(torch.ones(3, 2), torch.tensor([0, 0, 1]), task=1)
    torch.testing.assert_close(shifted, torch.tensor([[0.95, 0.95], [0.95, 0.95], [1.0, 1.0]]))


def test_statistics_take_every_plain_image_once_in_evaluation_mode():
    run, sums, modes = run_of(online_iter=2, eval_period=-1), [], []
    model, features, end_batch = run.model, run.model.features, run.model.end_batch

    def ended(batch):
        with torch.no_grad():
            sums.append(features(run.info.plain(batch.raw)).sum(dim=0))
        model.features = lambda x: (modes.append(model.training), features(x))[1]
        end_batch(batch)
        model.features = features
        assert model.training

    model.end_batch = ended
    run.trainer.train()
    statistics = model.statistics
    assert statistics.count.sum() == run.info.num_images
    torch.testing.assert_close(statistics.count @ statistics.mean, sum(sums), rtol=1e-4, atol=1e-3)
    assert not any(modes) and len(modes) == run.trainer.stream.num_batches()


# Alignment


def test_only_the_alignment_wants_to_know_sessions():
    assert run_of().model.needs_task_boundaries
    model = run_of({}).model
    assert not model.needs_task_boundaries
    assert not [name for name in model.state_dict() if "statistics" in name]


def test_alignment_serves_evaluation_only():
    """The trained classifier stays; evaluation uses another one, but not in the first session."""
    run, compared = run_of(), []

    def after(trainer):
        model, x = trainer.model, torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        before, random = weights_of(model), torch.get_rng_state()
        with torch.no_grad():
            evaluate(run)
            model.eval()
            logits, plain = model(x), model.head(model.features(x))
            model.train()
            assert torch.equal(model(x), plain)
        assert_same_weights(weights_of(model), before)
        assert torch.equal(torch.get_rng_state(), random)
        assert all(p.requires_grad for p in model.head.parameters())
        same = (logits == plain).all(dim=0)
        compared.append(trainer.task)
        met = len(trainer.seen)
        assert same[met:].all()  # nothing is known of classes to come
        assert same[:met].all() if trainer.task == 0 else not same[:met].any()

    run.trainer.listeners = [AfterBatches(after)]
    run.trainer.train()
    assert set(compared) == {0, 1, 2}


def test_what_the_alignment_draws(monkeypatch):
    """Blocks are the classes first met in each session; draws lie around the shifted means."""
    calls, met, align = [], [], slca.align_classifier

    def spy(weight, bias, epochs, sizes, *numbers):
        epochs = list(epochs)
        calls.append((epochs, sizes))
        assert numbers == (2, 0.03, 0.2)
        return align(weight, bias, epochs, sizes, *numbers)

    monkeypatch.setattr(slca, "align_classifier", spy)
    run = run_of(ALIGNED | {"ca_lr": 0.03, "logit_norm": 0.2}, eval_period=-1)
    run.trainer.listeners = [AfterBatches(lambda trainer: met.append((trainer.task, len(trainer.seen))))]
    run.trainer.train()
    ends = list(dict(met).values())
    first_met = [stop - start for start, stop in zip([0, *ends], ends, strict=False)]
    assert [sizes for _, sizes in calls] == [first_met[:2], first_met]  # one alignment per evaluation, but the first
    (first, second), _ = calls[-1]
    assert not torch.equal(first[0][0], second[0][0])  # every epoch draws anew
    x, y = (torch.cat(parts) for parts in zip(*first, *second, strict=True))
    assert torch.equal(torch.bincount(y), torch.full((12,), 2 * DRAWS))
    assert [len(slots) for _, slots in first] == [DRAWS] * 12 and len(first[0][1].unique()) == 12
    task_of_class = torch.arange(3).repeat_interleave(torch.tensor(first_met))
    statistics = run.model.statistics
    for slot in range(12):
        centre = shifted_means(statistics.mean, task_of_class, 2)[slot]
        deviation = statistics.covariance(slot).diagonal().sqrt()
        error = (x[y == slot].mean(dim=0) - centre) / (deviation / (2 * DRAWS) ** 0.5)
        assert error.abs().max() < 5


def test_session_without_images_is_a_session_without_logits(monkeypatch):
    calls, align = [], slca.align_classifier

    def spy(weight, bias, epochs, sizes, *numbers):
        calls.append(sizes)
        return align(weight, bias, epochs, sizes, *numbers)

    monkeypatch.setattr(slca, "align_classifier", spy)
    stream = ClassIncremental(torch.from_numpy(Patches().load(None, train=True)[1]), 12, 3, 1, 16, 1)
    stream.tasks.insert(2, torch.empty(0, dtype=torch.int64))
    stream.classes.insert(2, [])
    run = run_of(eval_period=-1, stream=TaskList(stream.tasks, stream.classes, 12, 16))
    run.trainer.train()
    assert calls == [[4, 4], [4, 4, 0], [4, 4, 0, 4]]
    assert run.model.aligned_head()[0].isfinite().all()


def test_draws_depend_on_the_seed_of_the_method():
    run = run_of(eval_period=-1)
    run.trainer.train()
    model = run.model
    first = model.aligned_head()[0]
    model.load_extra_state(model.extra_state())  # forgets the alignment
    assert torch.equal(model.aligned_head()[0], first)
    model.load_extra_state(model.extra_state())
    model.info = dataclasses.replace(model.info, seed=model.info.seed + 1)
    assert not torch.equal(model.aligned_head()[0], first)


def test_alignment_is_made_once_per_state_of_training(monkeypatch):
    calls, align = [], slca.align_classifier
    monkeypatch.setattr(slca, "align_classifier", lambda *given: (calls.append(given), align(*given))[1])
    run, batches = run_of(eval_period=-1), []

    def after(trainer):
        if trainer.task > 0:
            batches.append(trainer.images_met)
            evaluate(run), evaluate(run)
            assert len(calls) == len(batches)

    run.trainer.listeners = [AfterBatches(after)]
    run.trainer.train()
    assert len(calls) == len(batches)  # evaluations at task ends found it made


def test_evaluations_do_not_change_training():
    often, never = run_of(eval_period=16), run_of(eval_period=-1)
    for run in (often, never):
        run.trainer.train()
    assert_same_weights(weights_of(often.model), weights_of(never.model))


def test_stopped_run_with_alignment_goes_on_as_if_it_had_not_stopped():
    whole, states = run_of(eval_period=32), []

    def keep(trainer):
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        states.append(file.getvalue())

    whole.trainer.listeners = [AfterBatches(keep)]
    whole.trainer.train()
    for state in states[2::4]:
        resumed = run_of(eval_period=32)
        torch.manual_seed(99)
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))


def test_alignment_in_half_precision_and_without_norm():
    run = run_of(ALIGNED | {"logit_norm": 0.0})
    run.model.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    run.trainer.train()
    weight, bias = run.model.aligned_head()
    assert weight.shape == (12, WIDTH) and weight.isfinite().all() and bias.isfinite().all()
    run.model.load_extra_state(run.model.extra_state())
    torch.testing.assert_close(run.model.aligned_head(), (weight, bias), rtol=0, atol=0)  # itself in full precision


def test_task_without_classes_changes_no_norm():
    ends = []
    for sizes in ([1, 2], [1, 0, 2]):
        torch.manual_seed(0)
        head = torch.randn(3, 4), torch.randn(3)
        slca.align_classifier(*head, [[(torch.randn(9, 4), torch.arange(9) % 3)]], sizes, 1, 0.1, 0.1)
        ends.append(head)
    torch.testing.assert_close(*ends)
