"""The loop with every registered method: a new file in models/ is tested here without a line of its own."""

from __future__ import annotations

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.base import ContinualModel
from models.mepo import RIDGE, Alignment, MepoArgs, align, factor, statistics
from tests.tiny import (
    CPU,
    EVERY_METHOD,
    NEEDED,
    WIDTH,
    Patches,
    assert_same_weights,
    build,
    needs_cuda,
    random_covariance,
    rows_of,
    tiny_vit,
    weights_of,
)
from utils.data.images import ImageSet
from utils.registry import METHODS
from utils.streams.base import TaskList
from utils.streams.class_il import ClassIncremental
from utils.streams.si_blurry import SiBlurry
from utils.training.assembly import _evaluations, fitting_period
from utils.training.loop import Listener, Trainer

# Options under which a method learns quickly enough to show it.
DRAWS = {"train_sample_size": 10, "val_sample_size": 10}  # the defaults, as a point has none
EAGER = {
    "finetune": {"lr": 0.003},
    "joint": {"lr": 0.003},
    "misa_isa": {"num_sessions": 1, "samples": 16, "lr": 0.01},
    "mepo_meta": {"inner_lr": 1.0, "lr": 0.003, "lr_head": 0.1, "group_size": 12, "num_tasks": 1},
    "srnn": {"lr": 0.003},
    "slca": {"lr": 0.005, "lr_head": 0.1},
    "posterior_replay": {"posterior": "dirac", "lr": 0.003, "hmlp_arch": "", "cond_emb_size": 8} | DRAWS,
    "vcl": {
        "backbone": "mlp-64",
        "lr": 0.003,
        "kl_scale": 0.0,
        "keep_orig_init": True,
        "local_reparam_trick": True,
    },
    "ewc_posterior": {"backbone": "mlp-64", "lr": 0.003, "det_multi_head": True, "val_sample_size": 10},
    **{name: {"lr": 0.03} for name in ("gem", "agem", "ewc")},  # theirs is for an MLP
}


class Recorder(Listener):
    """Keeps copies of the run's state between batches, and which tensors have had a gradient."""

    def __init__(self, wanted=()):
        self.wanted, self.states, self.with_gradient, self.batches = wanted, {}, set(), 0

    def progress(self, trainer):
        self.batches += 1
        named = trainer.model.named_parameters()
        self.with_gradient |= {name for name, p in named if p.grad is not None and p.grad.abs().sum() > 0}
        if self.batches in self.wanted:
            file = io.BytesIO()
            torch.save(trainer.state_dict(), file)
            self.states[self.batches] = file.getvalue()


def record_losses(model) -> list[float]:
    losses, observe = [], model.observe

    def observed(batch):
        loss = observe(batch)
        if loss is not None:
            losses.append(loss.item())
        return loss

    model.observe = observed
    return losses


def trained(run):
    """The run, done. A run begins to train when it is built, for its draws come from torch's generator."""
    run.trainer.train()
    return run


@EVERY_METHOD
def test_logits_and_label(case, start):
    run = start()
    if type(run.model).forward is not ContinualModel.forward:  # a stage may have no prediction
        logits = run.model.eval()(torch.randn(5, 3, 32, 32))
        assert logits.shape == (5, Patches.num_classes) and logits.isfinite().all()
        if run.model.has_fixed_features:
            x = torch.randn(5, 3, 32, 32)
            torch.testing.assert_close(run.model(x, run.model.fixed_features(x)), run.model(x))
    assert run.model.label() == (f"{case[0]} ({case[1]})" if case[1] else case[0])


@EVERY_METHOD
def test_loss_is_finite_and_falls(case, start):
    kind = METHODS.load(case[0])
    # Plain epochs: one task of all classes.
    plain = {"scenario": "class-il" if "class-il" in kind.scenarios else kind.scenarios[0], "n_tasks": 1, "n_epochs": 4}
    run = start(EAGER.get(case[0]), eval_period=-1, **plain)
    losses = record_losses(run.model)
    run.trainer.train()
    assert np.isfinite(losses).all()
    if run.model.optimizer is not None:
        assert len(losses) == run.info.num_updates
        part = len(losses) // 5
        assert np.mean(losses[-part:]) < 0.8 * np.mean(losses[:part])
    if kind.evaluated:
        assert run.trainer.history.summary()["A_last"] > 3 / Patches.num_classes


@EVERY_METHOD
def test_optimiser_holds_exactly_what_trains(start):
    model = start().model
    held = [p for group in model.optimizer.param_groups for p in group["params"]] if model.optimizer else []
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(set(held)) == len(held)
    assert set(held) == set(trainable)


@pytest.fixture(scope="module")
def done():
    """Of a case: its usual run, trained, what was recorded of it, and its weights as they were; made once."""
    return {}


@pytest.fixture
def usual(case, start, done):
    if case not in done:
        run, recorder = start(), Recorder()
        run.trainer.listeners, before = [recorder], weights_of(run.model)
        done[case] = trained(run), recorder, before
    return done[case]


@EVERY_METHOD
def test_frozen_weights_stay_and_all_others_learn(usual):
    run, recorder, before = usual
    after = dict(run.model.named_parameters())
    for name, value in run.frozen.items():
        assert torch.equal(after[name], value), name
    for name, p in after.items():
        if p.requires_grad:
            assert name in recorder.with_gradient, name
            assert not torch.equal(p, before[name]), name


@EVERY_METHOD
def test_stopped_run_goes_on_as_if_it_had_not_stopped(start):
    whole = start(n_epochs=2)
    stream = whole.trainer.stream
    batches = stream.num_batches()
    border = sum(len(stream.batches(0, epoch)) for epoch in range(stream.num_epochs))
    places = {border, batches * 3 // 4, batches - 1}
    recorder = Recorder(places)
    whole.trainer.listeners = [recorder]
    whole.trainer.train()
    assert recorder.states.keys() == places
    for state in recorder.states.values():
        resumed = start(n_epochs=2)
        torch.manual_seed(99)  # of another process
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))


@EVERY_METHOD
def test_the_seed_decides_everything(start, usual):
    first, _, _ = usual
    again, other = (trained(start(seed=seed)) for seed in (1, 2))
    assert rows_of(first.trainer) == rows_of(again.trainer)
    assert_same_weights(weights_of(first.model), weights_of(again.model))
    with pytest.raises(AssertionError):
        assert_same_weights(weights_of(first.model), weights_of(other.model))


@EVERY_METHOD
def test_evaluation_does_not_change_training(start, usual):
    often, (seldom, _, _) = trained(start(eval_period=16)), usual
    kinds = [row["kind"] for row in often.trainer.history.rows]
    assert kinds.count("anytime") > kinds.count("task_end")
    assert len(kinds) > len(seldom.trainer.history.rows)
    assert_same_weights(dict(often.model.named_parameters()), dict(seldom.model.named_parameters()))


@EVERY_METHOD
def test_mode_of_a_frozen_backbone(start):
    model = start().model.train()
    frozen = not any(p.requires_grad for p in model.backbone.parameters())
    assert model.training and model.backbone.training != frozen


@pytest.mark.parametrize(
    "name, own, trains",
    [
        ("er", {"trainable": "head"}, False),
        ("er", {"trainable": "all"}, True),
        ("dualprompt", {}, False),
        ("misa", {}, False),
        ("supervised", {}, True),
        ("mepo_meta", NEEDED["mepo_meta"], True),
    ],
)
def test_who_trains_the_backbone(name, own, trains):
    backbone = build(name, own).model.backbone
    assert {p.requires_grad for p in backbone.parameters()} == {trains}


# The loop itself


def test_several_updates_see_the_same_images_augmented_anew():
    run = build("er", {"memory_size": 0}, online_iter=3, eval_period=-1)
    seen = []
    loss = run.model.loss
    run.model.loss = lambda batch: (seen.append(batch), loss(batch))[1]
    run.trainer.train()
    first = seen[:3]
    assert all(torch.equal(batch.raw, first[0].raw) and torch.equal(batch.y, first[0].y) for batch in first)
    assert not torch.equal(first[0].x, first[1].x) and not torch.equal(first[1].x, first[2].x)
    assert len(seen) == 3 * run.trainer.stream.num_batches()


@pytest.mark.parametrize("period, met", [(50, [48, 96, 144, 192]), (64, [64, 128, 192])])
def test_clock_of_the_anytime_evaluation(period, met):
    """Tasks of 64, batches of 16: due when the next batch would go beyond the mark, at most once a batch."""
    images, labels = Patches().load(None, train=True)
    stream = ClassIncremental(torch.from_numpy(labels), 12, 3, 1, 16, 1)
    run = build("er", stream=stream, eval_period=period)
    run.trainer.train()
    rows = run.trainer.history.metrics()
    anytime = rows[rows["kind"] == "anytime"]
    assert anytime["samples_seen"].tolist() == met
    assert anytime["nominal"].tolist() == [period * (k + 1) for k in range(len(met))]
    assert anytime["classes_exposed"].tolist() == [4 * -(-count // 64) for count in met]
    assert rows[rows["kind"] == "task_end"]["samples_seen"].tolist() == [64, 128, 192]


def test_evaluation_period_shorter_than_a_batch_lags_behind():
    run = build("er", eval_period=5, n_tasks=1, scenario="class-il")
    run.trainer.train()
    rows = run.trainer.history.metrics()
    anytime = rows[rows["kind"] == "anytime"]
    assert anytime["samples_seen"].tolist() == list(range(16, 193, 16))
    assert anytime["nominal"].tolist() == list(range(5, 61, 5))


def test_task_without_images_has_no_value_and_stops_nothing():
    stream = ClassIncremental(torch.from_numpy(Patches().load(None, train=True)[1]), 12, 3, 1, 16, 1)
    stream.tasks.insert(0, torch.empty(0, dtype=torch.int64))
    run = build("er", stream=TaskList(stream.tasks, [[], *stream.classes], 12, 16))
    run.trainer.train()
    ends = [row["accuracy"] for row in run.trainer.history.rows if row["kind"] == "task_end"]
    assert math.isnan(ends[0]) and len(ends) == 4
    assert run.trainer.history.summary()["A_avg"] == pytest.approx(np.mean(ends[1:]))


def test_loss_of_a_row_is_the_mean_since_the_row_before():
    run = build("finetune", eval_period=48, online_iter=2)
    losses = record_losses(run.model)
    ends = []

    class Evaluated(Listener):
        def evaluated(self, trainer):
            ends.append(len(losses))

    run.trainer.listeners = [Evaluated()]
    run.trainer.train()
    rows = run.trainer.history.metrics()["loss"]
    assert len(rows) == len(ends) > 6
    for loss, start, stop in zip(rows, [0, *ends], ends, strict=False):
        if start == stop:  # a task ends where an anytime evaluation was
            assert math.isnan(loss)
        else:
            assert loss == pytest.approx(np.mean(losses[start:stop]), rel=1e-5)


def test_updates_left_out_are_counted_over_a_resume():
    def poisoned():
        run = build("finetune", on_nan="skip", eval_period=-1)
        loss, calls = run.model.loss, []

        def bad(batch):
            calls.append(None)
            return loss(batch) * (math.nan if len(calls) in (2, 4) else 1)

        run.model.loss = bad
        return run

    first = poisoned()
    recorder = Recorder({5})
    first.trainer.listeners = [recorder]
    first.trainer.train()
    state = torch.load(io.BytesIO(recorder.states[5]), weights_only=True)
    assert first.trainer.skipped == state["skipped"] == 2
    resumed = poisoned()
    resumed.trainer.load_state_dict(state)
    assert resumed.trainer.skipped == 2
    resumed.trainer.train()
    assert resumed.trainer.skipped == 4


def test_loss_that_is_not_finite_stops_the_run_with_its_batch():
    run = build("er", n_tasks=1, online_iter=2)
    loss, calls = run.model.loss, []

    def sometimes_nan(batch):
        calls.append(batch)
        return loss(batch) * (math.nan if len(calls) == 6 else 1)  # the second update of batch 2

    run.model.loss = sometimes_nan
    with pytest.raises(FloatingPointError, match="task 0, pass 0, batch 2, images") as caught:
        run.trainer.train()
    images = run.trainer.stream.batches(0, 0)[2].indices.tolist()
    assert f"images {' '.join(map(str, images))} of the training part" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_precision_trains_too():
    run = build("er", eval_period=-1)
    run.model.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    run.trainer.train()
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in run.model.parameters())


# MePo's alignment


def images_of(count: int) -> torch.Tensor:
    images = ImageSet(*Patches().load(None, train=False), CPU)
    return images.raw(torch.arange(count) * 2).float() / 127.5 - 1


@pytest.mark.parametrize("stats, alone", [("batch", False), ("running", True)])
def test_whether_a_prediction_depends_on_its_neighbours(products, stats, alone):
    run = build("mepo", products | {"align_stats": stats, "cor_coef": 1.0}, eval_period=-1)
    run.trainer.train()
    run.model.eval()
    x = images_of(24)
    with torch.no_grad():
        together, half = run.model(x), torch.cat((run.model(x[:12]), run.model(x[12:])))
        single = torch.cat([run.model(image[None]) for image in x])
    assert torch.allclose(together, half, atol=1e-4) == alone
    assert torch.allclose(together, single, atol=1e-4) == alone


def test_running_statistics_move_with_training_only(products):
    run = build("mepo", products | {"align_stats": "running"}, eval_period=-1)
    alignment = run.model.host.fc_norm
    features = torch.randn(16, WIDTH)
    alignment.train()(features)
    mean, covariance = statistics(features)
    torch.testing.assert_close(alignment.mean, mean[0])  # the first batch counts in full
    torch.testing.assert_close(alignment.covariance, covariance)
    alignment.train()(2 * features + 1)
    torch.testing.assert_close(alignment.mean, mean[0] + 0.1 * (mean[0] + 1))
    torch.testing.assert_close(alignment.covariance, covariance + 0.1 * 3 * covariance)
    before = weights_of(alignment)
    alignment.eval()(features + 5)
    assert_same_weights(weights_of(alignment), before)


def test_alignment_for_training_only_leaves_test_features_alone():
    alignment = Alignment(torch.eye(6), MepoArgs(align_when="training"))
    features = torch.randn(20, 6)
    assert torch.equal(alignment.eval()(features), features)
    assert not torch.equal(alignment.train()(features), features)


@pytest.mark.parametrize("form, reached", [("exact", True), ("released", False)])
def test_exact_alignment_reaches_the_target_covariance(form, reached):
    """F before its rows are scaled is written out here; that its direction is what `align` gives is checked first."""
    torch.manual_seed(0)
    width = 8
    features = torch.randn(500, width, dtype=torch.float64) @ torch.randn(width, width, dtype=torch.float64) + 3
    target = torch.from_numpy(random_covariance(width, seed=1))
    mean, covariance = statistics(features)
    own, wanted = factor(covariance), factor(target)
    inverse = torch.linalg.inv(own)
    mapped = (features - mean) @ (inverse.T @ wanted.T if form == "exact" else inverse @ wanted)
    rows = align(features, wanted, 1.0, form)
    torch.testing.assert_close(rows, mapped / mapped.norm(dim=1, keepdim=True))
    error = torch.linalg.norm(statistics(mapped)[1] - target) / torch.linalg.norm(target)
    assert error < 0.01 if reached else error > 0.1


def test_coefficient_mixes_features_and_aligned_features():
    features, wanted = torch.randn(20, 6), factor(torch.from_numpy(random_covariance(6)).float())
    whole = align(features, wanted, 1.0)
    torch.testing.assert_close(align(features, wanted, 0.25), 0.75 * features + 0.25 * whole)
    assert torch.equal(align(features, wanted, 0.0), features)


def test_single_image_is_only_normalised():
    features, wanted = torch.randn(1, 6), factor(torch.eye(6))
    expected = features / features.norm()
    torch.testing.assert_close(align(features, wanted, 1.0), expected)


def test_gradient_of_the_alignment():
    wanted = factor(torch.from_numpy(random_covariance(4)))
    features = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    for form in ("released", "exact"):
        assert torch.autograd.gradcheck(lambda x, form=form: align(x, wanted, 0.7, form), features)


def test_alignment_stays_in_full_precision():
    alignment = Alignment(torch.eye(6), MepoArgs())
    features = torch.randn(20, 6)
    expected = align(features, factor(torch.eye(6)), MepoArgs().cor_coef)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(alignment(features), expected)


def test_factor_of_a_covariance_without_full_rank():
    low_rank = torch.ones(6, 6)
    lower = factor(low_rank)
    torch.testing.assert_close(lower @ lower.T, low_rank + RIDGE * torch.eye(6))


def test_mepo_without_its_halves_is_its_host(products):
    """Original backbone and no alignment: the same numbers as the host alone."""
    bare = build("mepo", {"meta_path": "none", "cor_path": "none", "host": "dualprompt"})
    host = build("dualprompt")
    for run in (bare, host):
        run.trainer.train()
    assert rows_of(bare.trainer) == rows_of(host.trainer)
    refined = build("mepo", products | {"host": "dualprompt", "cor_coef": 0.0})
    assert torch.equal(refined.model.backbone.cls_token, tiny_vit(seed=7).cls_token)
    assert type(refined.model.host.fc_norm) is torch.nn.Identity


# MePo's stages


def test_covariance_stage_is_the_covariance_of_class_means():
    run = build("mepo_cov", {"samples": 8})
    means = {}
    observe = run.model.observe

    def observed(batch):
        features = run.model.backbone.forward_features(batch.x)[:, 0].double()
        for label, feature in zip(batch.y.tolist(), features, strict=True):
            means.setdefault(label, []).append(feature)
        return observe(batch)

    run.model.observe = observed
    with torch.no_grad():
        run.trainer.train()
    assert {len(rows) for rows in means.values()} == {8}
    stacked = torch.stack([torch.stack(means[label]).mean(0) for label in range(Patches.num_classes)])
    torch.testing.assert_close(run.model.covariance(), torch.cov(stacked.T), rtol=1e-4, atol=1e-5)


def test_a_class_of_one_image_is_a_class_and_one_of_none_is_not():
    model = build("mepo_cov").model
    model.sums.count.copy_(torch.tensor([0, 1, 2] + [0] * 9))
    model.sums.total.copy_(torch.arange(12)[:, None].expand_as(model.sums.total))
    assert model.sums.means()[:, 0].tolist() == [1, 1]
    assert len(model.sums.means()) == 2


def test_meta_update_goes_part_of_the_way():
    own = NEEDED["mepo_meta"] | {"inner_lr": 0.25, "num_inner_steps": 2, "meta_epochs": 1}
    run = build("mepo_meta", own)
    model, ends, starts = run.model, [], []
    begin, end = model.begin_task, model.end_task

    def begun(session):
        starts.append(copy.deepcopy(dict(model.named_parameters())))
        begin(session)

    def ended(session):
        ends.append(copy.deepcopy(dict(model.named_parameters())))
        end(session)

    model.begin_task, model.end_task = begun, ended
    run.trainer.train()
    assert len(ends) == 4
    for name, p in starts[1].items():
        assert torch.equal(p, ends[0][name])  # nothing is put back between the repetitions of a group
    for first, result in ((0, starts[2]), (2, dict(model.named_parameters()))):
        for name, weight in result.items():
            w0 = starts[first][name]
            moved = (ends[first][name] - w0 + ends[first + 1][name] - w0) / 2
            torch.testing.assert_close(weight, w0 + 0.25 * moved, rtol=1e-5, atol=1e-7)


def test_meta_stage_trains_on_augmented_images_but_for_the_joint_pass():
    run = build("mepo_meta", NEEDED["mepo_meta"])
    transform, made, trained = run.trainer.transform, [], []
    train, test, observe = transform.train, transform.test, run.model.observe

    def kept(augmented, x):
        made.append((augmented, x))
        return x

    def observed(batch):
        trained.append(batch.x)
        return observe(batch)

    transform.train = lambda raw: kept(True, train(raw))
    transform.test = lambda raw: kept(False, test(raw))
    run.model.observe = observed
    run.trainer.train()
    stream = run.trainer.stream
    assert [augmented for augmented, _ in made] == [
        draw.augment for task in range(stream.num_tasks) for draw in stream.batches(task, 0)
    ]
    assert all(x is given for x, (_, given) in zip(trained, made, strict=True))


def test_meta_stage_goes_on_between_and_within_the_repetitions_of_a_group():
    own = NEEDED["mepo_meta"] | {"num_inner_steps": 2, "meta_epochs": 1}
    whole = build("mepo_meta", own)
    first, second = (len(whole.trainer.stream.batches(task, 0)) for task in (0, 1))
    recorder = Recorder({first, first + 3, first + second})
    whole.trainer.listeners = [recorder]
    whole.trainer.train()
    for place, state in recorder.states.items():
        resumed = build("mepo_meta", own)
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        if place == first + 3:  # what the first repetition moved
            assert all(moved.any() for moved in resumed.model.moved.values())
        resumed.trainer.train()
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))


def test_meta_stage_saves_the_backbone_before_and_after_every_epoch(tmp_path):
    run = build("mepo_meta", NEEDED["mepo_meta"] | {"save_to": str(tmp_path)})
    before = weights_of(run.model.backbone)
    run.trainer.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"meta_epoch_{epoch}.safetensors" for epoch in range(3)]
    saved = [load_file(tmp_path / f"meta_epoch_{epoch}.safetensors") for epoch in range(3)]
    assert_same_weights(saved[0], before)
    assert not torch.equal(saved[1]["cls_token"], before["cls_token"])
    assert_same_weights(saved[2], weights_of(run.model.backbone))


@needs_cuda
@EVERY_METHOD
def test_no_training_step_waits_for_the_gpu(start, monkeypatch):
    step, waits = Trainer._step, set()

    def watched(trainer, draw):
        if trainer.images_met == 0:  # optimisers and memories are made at the first batch
            return step(trainer, draw)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            size = step(trainer, draw)
        torch.cuda.set_sync_debug_mode("default")
        waits.update(f"{w.filename}:{w.lineno} {w.message}" for w in caught)
        return size

    monkeypatch.setattr(Trainer, "_step", watched)
    start(device="cuda").trainer.train()
    assert not sorted(wait for wait in waits if "models/gem.py" not in wait)  # its programme is solved on the host


# Streams that are too short, and tasks without images


@pytest.mark.parametrize(
    "tasks, batch_size, epochs, period, expected",
    [
        ([100], 10, 1, 1000, 10),
        ([100], 10, 3, 1000, 30),
        ([100], 10, 1, 7, 7),  # enough already
        ([100], 10, 1, -1, -1),
        ([100], 64, 1, 1000, 10),  # two batches cannot have more than two evaluations
        ([9990], 64, 1, 1000, 1000),  # its last batch counts as a tenth evaluation
    ],
)
def test_period_that_evaluates_ten_times(tasks, batch_size, epochs, period, expected):
    stream = TaskList([torch.arange(count) for count in tasks], [[0]], 1, batch_size)
    stream.num_epochs = epochs
    assert fitting_period(stream, sum(tasks), period) == expected


def test_period_looks_at_the_batches():
    """37 batches, of which the last brings nearly two thirds of the images."""
    stream = TaskList([torch.arange(1)] * 36 + [torch.arange(64)], [[0]] * 37, 1, 64)
    period = fitting_period(stream, 100, 1000)
    evaluations = lambda p: _evaluations(stream, p)  # noqa: E731
    assert evaluations(10) < 10 <= evaluations(period)


@pytest.mark.parametrize("own", [{"batch_size": 16}, {"batch_size": 5}, {"n_tasks": 5, "batch_size": 7}])
def test_evaluations_are_counted_as_they_happen(own):
    run = build("er", {"memory_size": 0}, eval_period=13, **own)
    run.trainer.train()
    anytime = [row for row in run.trainer.history.rows if row["kind"] == "anytime"]
    assert len(anytime) == _evaluations(run.trainer.stream, 13)


def with_empty_tasks(count: int):
    stream = ClassIncremental(torch.from_numpy(Patches().load(None, train=True)[1]), 12, 3, 1, 16, 1)
    for place in (3, 1, 0):
        stream.tasks[place:place] = [torch.empty(0, dtype=torch.int64)] * count
        stream.classes[place:place] = [[]] * count
    return TaskList(stream.tasks, stream.classes, 12, 16)


def test_tasks_without_images_repeat_the_last_accuracy_without_an_evaluation():
    counts, rows = [], []
    for repeats in (True, False):
        run = build("l2p", stream=with_empty_tasks(4))
        calls, evaluate = [], run.trainer._evaluate
        run.trainer._evaluate = lambda calls=calls, evaluate=evaluate: (calls.append(0), evaluate())[1]
        if not repeats:
            run.trainer.history.ended_at = lambda: None
        run.trainer.train()
        counts.append(len(calls))
        rows.append(rows_of(run.trainer))
    assert counts[0] == counts[1] - 11 and rows[0] == rows[1]


def test_a_method_that_is_told_of_borders_is_evaluated_in_every_task():
    run = build("l2p", {"frequency_update": "task"}, stream=with_empty_tasks(2), eval_period=-1)
    calls, evaluate = [], run.trainer._evaluate
    run.trainer._evaluate = lambda: (calls.append(0), evaluate())[1]
    run.trainer.train()
    assert len(calls) == 9


def test_history_comes_back_as_it_was_and_older_ones_are_read():
    run = build("er")
    run.trainer.train()
    history = run.trainer.history
    state = history.state_dict()
    for form in (state, {"rows": history.rows, "class_rows": history.class_rows}):
        other = type(history)()
        other.load_state_dict(form)
        assert repr((other.rows, other.class_rows)) == repr((history.rows, history.class_rows))


def test_many_tasks_do_not_slow_down_the_stream(monkeypatch):
    """One sort finds the images of all tasks; a scan for each would look at every label again."""
    calls = []
    monkeypatch.setattr(torch, "where", lambda *given, where=torch.where: (calls.append(0), where(*given))[1])
    labels = torch.arange(400) % 40
    SiBlurry(labels, 40, 300)
    ClassIncremental(labels, 40, 40, 1, 16, 1)
    assert len(calls) < 10
