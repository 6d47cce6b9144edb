"""Numbers that are not finite: what `--on_nan skip` puts back, what enters no sum and no memory, what is no logit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from backbone.heads import RandomRidge
from models.flyprompt import FlyPrompt
from models.mepo import Alignment, MepoArgs, align, factor
from models.slca import ClassStatistics
from tests.tiny import EVERY_METHOD, Patches, assert_same, assert_same_weights, build, rows_of, weights_of
from utils.finite import FiniteRows
from utils.training.evaluation import Evaluator


def held(trainer) -> dict:
    """All that the method holds, its own draws among it."""
    return copy.deepcopy(trainer._learned())


def spoil(trainer, updates: set[int], how: str) -> list[tuple[dict, dict]]:
    """Spoils these updates; the list fills up with what the method held before and after each."""
    model, seen, number = trainer.model, [], [0]
    inner, observe, update = getattr(model, "host", model), model.observe, trainer._update

    def bad(batch):
        number[0] += 1
        if number[0] - 1 not in updates:
            return observe(batch)
        loss = inner.loss
        inner.loss = lambda given: loss(given) * (math.nan if how == "loss" else 1)
        if how == "gradient":
            inner.loss = lambda given: _Slope.apply(loss(given))
        try:
            return observe(batch)
        finally:
            inner.loss = loss

    def updated(batch):
        before, skipped = held(trainer), trainer.skipped
        loss = update(batch)
        if trainer.skipped > skipped:
            seen.append((before, held(trainer)))
        return loss

    model.observe, trainer._update = bad, updated
    return seen


class _Slope(torch.autograd.Function):
    """A number whose gradient is not finite."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


@EVERY_METHOD
def test_a_left_out_update_leaves_everything_as_it_was(case, start):  # noqa: F811
    run = start(on_nan="skip", online_iter=1, eval_period=-1, batch_size=48)
    if run.model.optimizer is None:
        pytest.skip("nothing is trained")
    seen = spoil(run.trainer, {1, 3}, "loss" if case[0] != "joint" else "gradient")
    run.trainer.train()
    assert len(seen) == run.trainer.skipped >= 1
    for before, after in seen:
        assert_same(after, before)
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_statistics_logits_and_schedules_are_put_back(products):
    for name, own, how in (
        ("mepo", products | {"align_stats": "running"}, "gradient"),
        ("derpp", {}, "loss"),
        ("flyprompt", {"rp_dim": 64}, "gradient"),
        ("supervised", {}, "loss"),
        ("misa", {"train_mask": "session"}, "gradient"),
        ("bcl", {"n_memories": 12, "memory_strength": 1.0}, "loss"),
        ("gem", {"n_memories": 12}, "loss"),
    ):
        run = build(name, own, on_nan="skip", online_iter=3, n_tasks=1, batch_size=64, eval_period=-1)
        seen = spoil(run.trainer, {0, 4, 5}, how)
        run.trainer.train()
        assert len(seen) == run.trainer.skipped == 3, name
        for before, after in seen:
            assert_same(after, before)


def test_skipping_alone_changes_nothing():
    for name in ("derpp", "flyprompt", "dualprompt"):
        own = {"rp_dim": 64} if name == "flyprompt" else {}
        runs = [build(name, own, on_nan=how, batch_size=48) for how in ("stop", "skip")]
        for run in runs:
            torch.manual_seed(1)
            run.trainer.train()
        assert rows_of(runs[0].trainer) == rows_of(runs[1].trainer)
        assert_same_weights(weights_of(runs[0].model), weights_of(runs[1].model))


def test_derpp_stores_the_logits_of_the_last_good_update_or_nothing():
    run = build("derpp", on_nan="skip", online_iter=2, n_tasks=1, eval_period=-1)
    model, given = run.model, []
    observe, end = model.observe, model.end_batch

    def observed(batch):
        loss = observe(batch)
        given.append(model.latest.clone())
        return loss

    def ended(batch):
        before = model.buffer.seen
        end(batch)
        kept.append((len(given), model.buffer.seen - before))

    kept = []
    model.observe, model.end_batch = observed, ended
    spoil(run.trainer, {1, 2, 3}, "loss")  # the second update of batch 0, both of batch 1
    run.trainer.train()
    assert [count for _, count in kept[:3]] == [16, 0, 16]
    torch.testing.assert_close(model.buffer.columns[2][:16], given[0])
    assert all(column.isfinite().all() for column in model.buffer.columns)


def test_a_pair_whose_update_was_left_out_does_not_shift_the_next():
    own = {"num_sessions": 3, "updates": 2, "samples": 4}
    run = build("misa_isa", own, on_nan="skip")
    sessions, observe = [], run.model.observe

    def observed(batch):
        sessions.append(run.model.session_batch is None)
        return observe(batch)

    run.model.observe = observed
    spoil(run.trainer, {1, 5}, "loss")
    run.trainer.train()
    assert run.trainer.skipped == 2
    assert sessions == [True, False] * (len(sessions) // 2)


def test_skipped_updates_are_counted_over_a_resume():
    first = build("er", on_nan="skip", n_tasks=1)
    spoil(first.trainer, {1, 2}, "loss")
    states = {}

    class Keeper:
        def progress(self, trainer):
            states[trainer.batch] = copy.deepcopy(trainer.state_dict())

        task_ended = evaluated = lambda self, trainer: None

    first.trainer.listeners = [Keeper()]
    first.trainer.train()
    second = build("er", on_nan="skip", n_tasks=1)
    second.trainer.load_state_dict(states[4])
    assert second.trainer.skipped == 2
    spoil(second.trainer, {1}, "loss")
    second.trainer.train()
    assert second.trainer.skipped == 3


# What is kept for good


def bad_rows(count: int = 6, width: int = 4) -> torch.Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    rows[1, 2], rows[3, 0], rows[4, 1] = math.nan, -math.inf, 1e30  # whose square no float32 holds
    return rows


def ridge():
    torch.manual_seed(0)
    return RandomRidge(4, 8, 3, 1.0, search=True)


@pytest.mark.parametrize("make", [ridge, lambda: ClassStatistics(3, 4)], ids=["ridge", "class statistics"])
def test_sums_leave_out_rows_that_are_not_finite(make):
    rows, targets = bad_rows(), torch.tensor([0, 1, 2, 0, 1, 2])
    one, other = make(), make()
    one.finite.leave_out = True
    one.add(rows, targets)
    other.add(rows[[0, 2, 5]], targets[[0, 2, 5]])
    assert one.finite.lost == 3 and other.finite.lost == 0
    state = lambda part: dict(part.named_buffers()) | {"finite.lost": None}  # noqa: E731
    for (name, kept), expected in zip(state(one).items(), state(other).values(), strict=True):
        assert kept is None or torch.equal(kept, expected), name


FEATURES = {"flyprompt": ({"rp_dim": 64}, "fixed_features"), "ranpac": ({"rp_dim": 64}, "fixed_features")}
FEATURES["slca"] = ({"ca_epochs": 1}, "features")


def spoil_features(run, name: str, batch: int) -> None:
    """From one batch on its way into the sums a row of features is not a number."""
    own, model, count = FEATURES[name][1], run.model, [0]
    real, end = getattr(model, own), model.end_batch

    def features(x, *rest):
        out = real(x, *rest).clone()
        out[0] = math.nan
        return out

    def ended(given):
        count[0] += 1
        if count[0] - 1 == batch:
            object.__setattr__(model, own, features)
        end(given)
        object.__setattr__(model, own, real)

    model.end_batch = ended


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_that_is_no_number_stops_the_run_or_stays_out_of_the_sums(name):
    run = build(name, FEATURES[name][0], n_tasks=1)
    spoil_features(run, name, 2)
    with pytest.raises(FloatingPointError, match="keeps of images is not finite: task 0, pass 0, batch 2, images"):
        run.trainer.train()
    run = build(name, FEATURES[name][0], n_tasks=1, on_nan="skip")
    spoil_features(run, name, 2)
    run.trainer.train()
    assert run.trainer.left_out == 1 and run.trainer.skipped == 0
    assert all(buffer.isfinite().all() for buffer in run.model.buffers())
    assert run.trainer.state_dict()["left_out"] == 1


def test_the_meta_covariance_leaves_out_an_image_that_is_no_number(monkeypatch):
    for how, left_out in (("stop", None), ("skip", 1)):
        run = build("mepo_cov", {"samples": 8}, on_nan=how)
        spoiled, update = [0], run.trainer._update

        def once(batch, spoiled=spoiled, update=update):
            spoiled[0] += 1
            if spoiled[0] == 2:
                batch.x[3] = math.nan
            return update(batch)

        run.trainer._update = once
        if how == "stop":
            with pytest.raises(FloatingPointError, match="pass 0, batch 1, images"):
                run.trainer.train()
        else:
            run.trainer.train()
            assert run.trainer.left_out == left_out and run.model.covariance().isfinite().all()
            assert run.model.sums.count.sum() == 8 * Patches.num_classes - 1


def test_rows_all_pass_unless_they_are_to_be_left_out():
    gate, rows = FiniteRows(), bad_rows()
    assert rows[gate(rows)].shape == rows.shape and gate.lost == 3
    gate.leave_out = True
    assert rows[gate(rows)].shape == (3, 4) and gate.lost == 6


# Logits


@pytest.mark.parametrize(
    "mask, seen, column, value, wrong",
    [
        ("seen", 4, 1, math.inf, True),
        ("seen", 4, 1, -math.inf, True),
        ("seen", 4, 1, math.nan, True),
        ("seen", 4, 7, math.inf, False),  # does not compete
        ("none", 4, 7, -math.inf, False),  # a method's own mask
        ("none", 4, 7, math.inf, True),
        ("none", 4, 7, math.nan, True),
    ],
)
def test_logits_that_give_no_prediction(mask, seen, column, value, wrong):
    evaluator = Evaluator(None, None, 8, mask)
    logits = torch.zeros(5, 12)
    logits[2, column] = value
    assert evaluator._undefined(logits, seen).tolist() == [False, False, wrong, False, False]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinite_logits_end_a_run(value):
    run = build("er")
    real = run.model.forward

    def infinite(x, fixed=None):
        logits = real(x, fixed)
        return logits if run.model.training else logits.index_fill(1, torch.tensor([0]), value)

    run.model.forward = infinite
    with pytest.raises(FloatingPointError, match="of .* test images are not finite numbers"):
        run.trainer.train()


@pytest.mark.parametrize("method", ["softmax_max_prob", "softmax_mean", "softmax_min_entropy", "max_prob", "mean"])
def test_flyprompt_does_not_hide_an_infinite_logit(method):
    run = build("flyprompt", {"rp_dim": 64, "ensemble_method": method}, eval_mask="none")
    model: FlyPrompt = run.model.eval()
    model.seen = 4
    x = torch.randn(3, 3, 32, 32)
    assert not model(x)[:, :4].isnan().any()
    with torch.no_grad():
        model.head.bias[1] = -math.inf
    assert model(x).isnan().all()


# The alignment in double precision


@pytest.mark.parametrize("form", ["released", "exact"])
@pytest.mark.parametrize("std", [1.0, 5.0, 50.0, 1000.0])
def test_large_features_of_a_short_batch_have_a_factor(std, form):
    features = (std * torch.randn(8, 96, generator=torch.Generator().manual_seed(0))).requires_grad_()
    aligned = align(features, factor(torch.eye(96)), 0.7, form)
    assert aligned.dtype == torch.float32 and aligned.isfinite().all()
    aligned.square().sum().backward()
    assert features.grad.isfinite().all()
    expected = align(features.double(), factor(torch.eye(96, dtype=torch.float64)), 0.7, form)
    torch.testing.assert_close(aligned, expected.float())


@pytest.mark.parametrize("stats", ["batch", "running"])
def test_alignment_keeps_large_features_finite(stats):
    alignment = Alignment(torch.eye(96), MepoArgs(align_stats=stats))
    for _ in range(3):
        assert alignment(200 * torch.randn(8, 96)).isfinite().all()
    assert alignment.failed == 0


def test_a_run_names_the_alignment_that_failed(products):
    run = build("mepo", products, n_tasks=1)
    real = run.model.host.fc_norm.forward
    run.model.host.fc_norm.forward = lambda features: real(features * 1e13)
    with pytest.raises(FloatingPointError) as caught:
        run.trainer.train()
    message = str(caught.value)
    assert "the alignment of a batch of 16 images" in message and "--align_stats running" in message
    assert "task 0, pass 0, batch 0, images" in message and "loss is not finite" not in message and "\n" not in message
    run = build("mepo", products, n_tasks=1, eval_batch_size=8)
    alignment = run.model.host.fc_norm
    forward = alignment.forward
    alignment.forward = lambda features: forward(features * (1 if alignment.training else 1e13))
    with pytest.raises(FloatingPointError, match="test images are not finite numbers: the alignment of a batch of"):
        run.trainer.train()
