"""Posterior meta-replay beyond the recorded cases: what protects old tasks, what a task's model is, resumed runs."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F

from backbone import bayes
from tests.tiny import Run, assert_same, assert_same_weights, build, rows_of, weights_of
from utils import plan as plans
from utils.contracts import Batch, Session
from utils.errors import UsageError
from utils.training.loop import Listener

SMALL, RESNET = {"backbone": "mlp-4"}, {"backbone": "resnet18-1"}
FEW_DRAWS = {"train_sample_size": 2, "val_sample_size": 2}
CHUNKS = {"hnet_type": "chunked_hmlp", "chmlp_chunk_size": 5000, "use_cond_chunk_embs": True}


def make(own: dict | None = None, method: str = "posterior_replay", **run) -> Run:
    own = SMALL | (own or {})
    return build(
        method,
        own if own.get("posterior") == "dirac" else FEW_DRAWS | own,
        **{"eval_period": -1, "batch_size": 32} | run,
    )


def begin(run: Run, task: int, size: int = 64) -> None:
    """Tasks 0, 1, 2 of four classes each."""
    columns = range(4 * task, 4 * task + 4)
    run.model.begin_task(Session(task, list(columns), columns, size, lambda size: iter(())))


def batch(task: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 3, 32, 32, generator=draw)
    return Batch(x, 4 * task + torch.randint(4, (6,), generator=draw), x, 12)


def learn(run: Run, task: int, updates: int = 3) -> None:
    begin(run, task)
    for k in range(updates):
        run.model.observe(batch(task, seed=k))


def gradients(run: Run, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    run.model.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}


# What protects old tasks


@pytest.mark.parametrize(
    "own",
    [
        {"posterior": "dirac"},
        {"regularizer": "mse"},
        {"regularizer": "mse", "heads": "shared"} | CHUNKS,
        {"regularizer": "fkl"},
        {"regularizer": "rkl", "use_logvar_enc": True},
        {"regularizer": "w2", "hnet_net_act": "sigmoid"},
    ],
)
def test_at_the_first_step_of_a_task_nothing_pulls_at_old_ones(own):
    """Not by a bit: Adam would make a whole step of it."""
    run = make(own)
    learn(run, 0)
    learn(run, 1)
    begin(run, 2)
    penalty = run.model.penalty()
    pulled = gradients(run, penalty)
    assert penalty.item() == 0 and pulled and not any(gradient.any() for gradient in pulled.values())
    embeddings = [emb.clone() for emb in run.model.source.embeddings]
    run.model.observe(batch(2))
    assert [torch.equal(*pair) for pair in zip(embeddings, run.model.source.embeddings)] == [True, True, False]
    assert run.model.penalty() > 0


def test_squares_leave_out_rows_of_foreign_heads():
    run = make()
    learn(run, 0)
    begin(run, 1)
    model, outputs = run.model, torch.zeros(2 * run.model.main.size, requires_grad=True)
    (pull,) = torch.autograd.grad(model.distance(outputs, torch.ones_like(outputs), 0), outputs)
    for part in pull.chunk(2):  # means and rhos
        tensors = model.main.tensors(part)
        assert (tensors["layers.0.weight"] == -2).all() and (
            tensors["head.bias"] == torch.tensor([-2] * 4 + [0] * 8)
        ).all()
        assert (tensors["head.weight"][:4] == -2).all() and not tensors["head.weight"][4:].any()
    model.args.regularizer = "w2"  # compares all of them
    (pull,) = torch.autograd.grad(model.distance(outputs, torch.ones_like(outputs), 0), outputs)
    assert pull.all()


def test_the_penalty_is_a_mean_over_old_tasks_and_may_be_divided_twice():
    run = make({"regularizer": "w2", "divide_twice": True, "beta": 2.0, "kl_scale": 0.0})
    learn(run, 0)
    learn(run, 1)
    begin(run, 2)
    model = run.model
    model.targets = [model.source(0).detach() + 1, model.source(1).detach() + 3]
    apart = [model.distance(model.source(j), model.targets[j], j) for j in (0, 1)]
    torch.testing.assert_close(model.penalty(), (apart[0] + apart[1]) / 2)

    def loss(twice: bool) -> torch.Tensor:
        model.args.divide_twice = twice
        torch.manual_seed(0)
        return model.loss(batch(2))

    torch.testing.assert_close(loss(False) - loss(True), 2.0 * model.penalty() / 2, rtol=1e-4, atol=0)
    model.args.hnet_reg_batch_size = 1
    drawn = {model.penalty().item() for _ in range(20)}
    assert drawn == {distance.item() for distance in apart}


def test_a_run_keeps_old_outputs_better_with_more_weight_on_it():
    def drift(beta: float) -> float:
        run = make({"beta": beta, "lr": 0.01, "posterior": "dirac"}, n_epochs=3)
        run.trainer.train()
        measures = run.model.measures()
        assert measures["weights_made"] == run.model.main.size and measures["drift_2"] == 0
        return measures["drift_0"]

    assert drift(100.0) < 0.5 * drift(0.0)


@pytest.mark.parametrize("protection, stays", [("separate", True), ("none", False)])
def test_baselines(protection, stays):
    run = make({"protection": protection})
    learn(run, 0)
    x = batch(0).x
    before = run.model.given(x, 0)
    learn(run, 1)
    assert torch.equal(run.model.given(x, 0), before) is stays
    assert len(run.model.source.flat) == (3 if stays else 1)


def test_own_weights_begin_as_released():
    main = make({"protection": "separate"}).model
    mean, rho = main.source(1).chunk(2)
    assert mean.abs().max() <= 0.1 and (rho + bayes.RHO_OFFSET).min() >= -3 and (rho + bayes.RHO_OFFSET).max() <= -2
    kept = make({"protection": "none", "keep_orig_init": True}).model
    tensors = kept.main.tensors(kept.source(0).chunk(2)[0])
    assert not tensors["head.bias"].any() and tensors["head.weight"].abs().max() > 0.3


# The loss


def test_the_loss_is_that_of_the_elbo_with_a_scheduled_weight():
    run = make({"kl_schedule": 2, "kl_scale": 0.5, "prior_variance": 3.0})
    begin(run, 0)
    model, given = run.model, batch(0)

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return model.loss(given)

    q = bayes.decode(model.source(0))
    torch.manual_seed(3)
    weights = bayes.draw(q, torch.randn(2, model.main.size))
    own = [F.cross_entropy(logits[:, :4], given.y) for logits in model.main(weights, given.x)]
    prior = bayes.Gaussian(torch.tensor(0.0), torch.tensor(3.0).sqrt())
    torch.testing.assert_close(loss(), 64 * sum(own) / 2 + 0.5 * bayes.kl(q, prior))
    per_task = run.info.num_updates / 3
    model.updates = int(per_task / 2) + 1
    torch.testing.assert_close(loss(), 64 * sum(own) / 2 + 1.0 * bayes.kl(q, prior))
    model.args.kl_schedule = -2
    torch.testing.assert_close(loss(), 64 * sum(own) / 2 + 0.5 * bayes.kl(q, prior))


def test_a_schedule_of_the_kl_divergence_covers_each_task():
    run = make({"kl_schedule": 4, "kl_scale": 0.1}, n_epochs=2)
    model, met = run.model, []
    scale = model.scale
    model.scale = lambda: met.append((model.task, round(scale(), 6))) or met[-1][1]
    run.trainer.train()
    for task in range(3):
        assert list(dict.fromkeys(value for own, value in met if own == task)) == [0.1, 0.4, 0.7, 1.0]


@pytest.mark.parametrize("own", [{"clip_grad_norm": 0.1}, {"clip_grad_value": 1e-4, "clip_grad_norm": 1e-9}])
def test_gradients_are_clipped(own):
    run = make({"optimizer": "sgd", "lr": 1.0} | own)
    begin(run, 0)
    before = weights_of(run.model)
    run.model.observe(batch(0))
    moved = torch.cat([(value - before[name]).flatten() for name, value in run.model.state_dict().items()])
    if "clip_grad_value" in own:
        assert moved.abs().max() == pytest.approx(1e-4, rel=0.01)
    else:
        assert moved.norm() == pytest.approx(0.1, rel=0.01)


def test_every_task_has_an_optimiser_that_has_seen_nothing():
    run = make()
    optimizer = run.model.optimizer
    learn(run, 0)
    assert optimizer.state
    begin(run, 1)
    assert run.model.optimizer is optimizer and not optimizer.state


def test_an_embedding_may_begin_as_the_one_before():
    run = make({"init_with_prev_emb": True})
    learn(run, 0)
    begin(run, 1)
    assert torch.equal(run.model.source.embeddings[1], run.model.source.embeddings[0])
    run.model.observe(batch(1))
    assert not torch.equal(run.model.source.embeddings[1], run.model.source.embeddings[0])


# Predictions


@pytest.mark.parametrize("heads, width", [("split", 12), ("shared", 4), ("growing", 12)])
def test_the_model_of_a_task_and_the_surest_one(heads, width):
    run = make({"heads": heads})
    model, x = run.model, torch.randn(5, 3, 32, 32)
    for task in range(3):
        learn(run, task)
    model.eval()
    assert model.main.num_outputs == width
    surest = model(x)
    entropies, told = [], []
    for task in range(3):
        p = model.drawn(x, task).softmax(-1).mean(0)
        own = model.classes_of(task)
        assert own == (range(4 * task + 4) if heads == "growing" else range(4 * task, 4 * task + 4))
        told.append(model.given(x, task))
        torch.testing.assert_close(told[-1][:, own.start : own.stop].exp(), p)
        assert told[-1].isfinite().all() and torch.equal(told[-1].argmax(1), own.start + p.argmax(1))
        entropies.append(bayes.entropy(p, num_classes=4))
    chosen = torch.stack(entropies).argmin(0)
    assert torch.equal(surest, torch.stack(told)[chosen, torch.arange(5)])


@pytest.mark.parametrize("heads", ["split", "shared", "growing"])
def test_the_model_of_a_task_without_classes_is_never_chosen(heads):
    """Nothing of it came; with growing heads its model is that of the task before."""
    model, x = make({"heads": heads}).model, torch.randn(5, 3, 32, 32)
    for task, columns in enumerate((range(0, 4), range(4, 4), range(4, 8))):
        model.begin_task(Session(task, list(columns), columns, len(columns), lambda size: iter(())))
    votes = model.eval().votes(x)
    assert all((score[1] == -torch.inf).all() and score[[0, 2]].isfinite().all() for score in votes.scores.values())
    surest = votes.outputs[votes.scores["ent"].argmax(0), torch.arange(5)]
    assert torch.equal(model(x), surest)


@pytest.mark.parametrize("method", ["posterior_replay", "vcl", "ewc_posterior"])
def test_training_images_are_voted_on_too(method):
    own = {"posterior": "dirac"} if method == "posterior_replay" else {}
    run = make(own, method, scenario="class-il", eval_train=True)
    run.trainer.train()
    assert 0 <= run.trainer.history.summary()["A_train"] <= 1


def test_predictions_are_the_same_every_time_and_one_by_one():
    run = make()
    learn(run, 0)
    x = torch.randn(5, 3, 32, 32)
    before = run.model.eval()(x)
    assert torch.equal(run.model(x), before)
    torch.testing.assert_close(torch.cat([run.model(row[None]) for row in x]), before)


def test_a_task_keeps_its_running_statistics():
    run = make(RESNET | {"protection": "separate", "posterior": "dirac"})
    learn(run, 0)
    x = torch.randn(5, 3, 32, 32)
    run.model.eval()
    before = run.model.given(x, 0)
    run.model.train()
    begin(run, 1)
    assert run.model.backbone.bn1.running_mean.abs().max() == 0
    run.model.observe(batch(1))
    assert run.model.backbone.bn1.running_mean.abs().max() > 0
    run.model.eval()
    assert torch.equal(run.model.given(x, 0), before)


def test_no_weight_of_the_network_is_kept():
    names = make().model.state_dict().keys()
    assert names and not [name for name in names if not name.startswith("source.")]


# Runs


class Keeper(Listener):
    """A checkpoint after some batches."""

    def __init__(self, wanted=()):
        self.wanted, self.batches, self.states = wanted, 0, {}

    def progress(self, trainer):
        self.batches += 1
        if self.batches in self.wanted:
            file = io.BytesIO()
            torch.save(trainer.state_dict(), file)
            self.states[self.batches] = file.getvalue()


@pytest.mark.parametrize(
    "own, run",
    [
        ({"local_reparam_trick": True, "init_with_prev_emb": True, "clip_grad_norm": 1.0}, {"online_iter": 2}),
        ({"regularizer": "fkl", "hnet_reg_batch_size": 1, "kl_schedule": 3, "kl_scale": 0.1} | CHUNKS, {}),
        (RESNET | {"protection": "separate", "posterior": "dirac"}, {}),
        ({}, {"method": "vcl", "eval_period": 48}),
        ({"n_fisher": 20}, {"method": "ewc_posterior", "eval_period": 48}),
    ],
)
def test_a_resumed_run_is_the_unbroken_one(own, run):
    """From within a task, its last batch, and the first of a later one."""
    whole = make(own, **run)
    per_task = whole.trainer.stream.num_batches() // 3
    whole.trainer.listeners = [keeper := Keeper({per_task + 1, 2 * per_task, 2 * per_task + 1})]
    whole.trainer.train()
    assert len(keeper.states) == 3
    for state in keeper.states.values():
        resumed = make(own, **run)
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))
        assert_same(resumed.model.extra_state(), whole.model.extra_state())


@pytest.mark.parametrize(
    "given, answer",
    [
        (
            {"backbone": "vit_tiny_glyphs"},
            "--backbone vit_tiny_glyphs: this method makes all weights of a small network",
        ),
        ({"hmlp_arch": "0"}, "--hmlp_arch 0: widths of hidden layers"),
        ({"hmlp_arch": "8,1000000,1000000"}, "two layers have 1,000,000,000,000 weights between them, more than"),
        ({"posterior": "dirac", "regularizer": "w2"}, "--regularizer w2: compares Gaussians"),
        ({"backbone": "resnet18-4", "local_reparam_trick": True}, "--local_reparam_trick: is for MLPs alone"),
        ({"keep_orig_init": True}, "--keep_orig_init: changes nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(given, answer):
    given = {"backbone": "mlp-8"} | given
    plan = plans.make({"model": "posterior_replay", "dataset": "seq-digits"} | given)
    with pytest.raises(UsageError, match=answer):
        plan.method.prepare(plan.run, plan.method_args)
    with pytest.raises(UsageError, match=answer.replace("vit_tiny_glyphs", "VisionTransformer")):
        build("posterior_replay", given)


@pytest.mark.parametrize(
    "given, answer",
    [
        ({"posterior": "dirac", "kl_scale": 7.0}, "--kl_scale: has no effect with --posterior dirac, only with .* bbb"),
        ({"posterior": "dirac", "hyper_gauss_init": True}, "--hyper_gauss_init: has no effect with --posterior dirac"),
        (
            {"protection": "separate", "beta": 5.0},
            "--beta: has no effect with --protection separate, only with .*replay",
        ),
        ({"protection": "none", "hmlp_arch": "8"}, "--hmlp_arch: has no effect with --protection none"),
        ({"chmlp_chunk_size": 9}, "--chmlp_chunk_size: .* --hnet_type hmlp, only with --hnet_type chunked_hmlp"),
        (
            {"divide_twice": True},
            "--divide_twice: .* --regularizer mse, only with --regularizer fkl, rkl or w2",
        ),
        (
            {"model": "ewc_posterior", "det_multi_head": True, "val_sample_size": 3},
            "--val_sample_size: has no effect with --det_multi_head, only with --no-det_multi_head",
        ),
        ({"model": "er", "last_blocks": 2}, "--last_blocks: has no effect with --trainable head, only with .* last"),
        ({"model": "ftml", "adapt_lr": 0.2}, "--adapt_lr: has no effect with --no-adapt, only with --adapt"),
    ],
)
def test_options_without_effect_are_refused(given, answer):
    with pytest.raises(UsageError, match=answer):
        plans.make({"model": "posterior_replay", "dataset": "seq-digits", "backbone": "mlp-8"} | given)
    plans.make({"model": "vcl", "dataset": "seq-digits", "backbone": "mlp-8", "kl_scale": 7.0})


def test_a_task_with_more_classes_than_a_shared_head_is_refused():
    run = make({"heads": "shared"})
    with pytest.raises(UsageError, match="--heads shared: task 0 has 5 classes, more than the 4"):
        run.model.begin_task(Session(0, [], range(5), 1, lambda size: iter(())))
