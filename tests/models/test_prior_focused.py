"""The prior-focused rivals of posterior replay, `vcl` and `ewc_posterior`, against loops written down here; and the
heads of tasks that share their classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

import main
from backbone import bayes, small
from models.ewc_posterior import EwcPosterior
from models.posterior_replay import PosteriorReplay
from models.vcl import Vcl
from tests.parity.replay import Unchanged
from tests.tiny import run_folder
from utils import plan as plans
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError
from utils.files.tensors import read_tensors
from utils.runs.reading import read_tasks

SIZE, NUMBERS, HIDDEN, TASKS, CLASSES = 12, 6, 5, 3, 2  # samples of a task; ...; classes of a task


def make(kind: type[PosteriorReplay], **args) -> PosteriorReplay:
    """A method on samples of six numbers, the last of which is always 0."""
    shared = args.get("shares_classes", False)
    info = StreamInfo(
        num_classes=CLASSES if shared else TASKS * CLASSES,
        num_tasks=TASKS,
        num_images=TASKS * SIZE,
        num_updates=TASKS,
        image_size=None,
        seed=0,
        augment=Unchanged().train,
        plain=Unchanged().test,
    )
    torch.manual_seed(0)
    model = kind(small.build(f"mlp-{HIDDEN}", (NUMBERS,)), info, kind.Args(**args))
    model.optimizer = model.configure_optimizer()
    return model


def samples(task: int, first: int) -> Batch:
    """All of a task, whose first class has the slot `first`."""
    draw = torch.Generator().manual_seed(task)
    x = torch.randn(SIZE, NUMBERS, generator=draw)
    x[:, -1] = 0
    return Batch(x, first + torch.randint(CLASSES, (SIZE,), generator=draw), x, 0)


def session(task: int, shares_classes: bool = False) -> Session:
    first = 0 if shares_classes else task * CLASSES
    whole = samples(task, first)

    def again(size: int) -> Iterator[Batch]:
        for x, y in zip(whole.x.split(size), whole.y.split(size)):
            yield Batch(x, y, x, 0)

    return Session(task, list(range(first, first + CLASSES)), range(first, first + CLASSES), SIZE, again)


def learn(model: PosteriorReplay, task: int, updates: int = 2) -> None:
    told = session(task, model.args.shares_classes)
    model.begin_task(told)
    for _ in range(updates):
        model.observe(samples(task, told.outputs.start))
    model.end_updates(told)
    model.end_task(told)


def logits_of(flat: torch.Tensor, x: torch.Tensor, rows: range) -> torch.Tensor:
    """The network by hand: weights W1, b1, W2, b2 one after the other; those of some outputs."""
    outputs = (len(flat) - HIDDEN * NUMBERS - HIDDEN) // (HIDDEN + 1)
    w1, b1, w2, b2 = flat.split([HIDDEN * NUMBERS, HIDDEN, HIDDEN * outputs, outputs])
    hidden = torch.relu(x @ w1.view(HIDDEN, NUMBERS).T + b1)
    return (hidden @ w2.view(outputs, HIDDEN).T + b2)[:, rows.start : rows.stop]


def own_rows(task: int) -> range:
    return range(task * CLASSES, (task + 1) * CLASSES)


# vcl


def test_the_loss_and_the_step_of_vcl():
    """Against torch's own Gaussians and Adam, in two tasks."""
    model = make(Vcl, train_sample_size=3, kl_scale=0.3, prior_variance=2.0, lr=0.05)
    flat = nn.Parameter(model.source(0).detach().clone())
    size = len(flat) // 2
    prior = Normal(torch.zeros(size), torch.full((size,), 2.0).sqrt())
    for task in range(2):
        model.begin_task(session(task))
        optimizer, given = torch.optim.Adam([flat], lr=0.05), samples(task, task * CLASSES)
        for step in range(2):
            torch.manual_seed(step)
            loss = model.observe(given)
            torch.manual_seed(step)
            q = Normal(flat[:size], F.softplus(flat[size:] - 2.5))
            nll = 0
            for noise in torch.randn(3, size):
                own = logits_of(q.mean + q.stddev * noise, given.x, own_rows(task))
                nll = nll + F.cross_entropy(own, given.y - task * CLASSES) / 3
            expected = SIZE * nll + 0.3 * kl_divergence(q, prior).sum()
            optimizer.zero_grad()
            expected.backward()
            optimizer.step()
            torch.testing.assert_close(loss, expected.detach())
            torch.testing.assert_close(model.source(0), flat, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            flat.copy_(model.source(0))  # so that roundings do not add up
            prior = Normal(flat[:size].clone(), F.softplus(flat[size:] - 2.5))


def test_at_the_first_step_of_a_task_nothing_pulls_at_the_past_of_vcl():
    model = make(Vcl, train_sample_size=1)
    learn(model, 0)
    model.begin_task(session(1))
    divergence = model.divergence(bayes.decode(model.source(1)))
    (pull,) = torch.autograd.grad(divergence, list(model.parameters()))
    assert divergence.item() == 0 and not pull.any()


# ewc_posterior


@pytest.mark.parametrize("heads", ["split", "shared", "growing"])
def test_the_loss_of_ewc_and_what_it_keeps_of_a_task(heads):
    """Against gradients of one sample after the other, over three tasks."""
    model = make(EwcPosterior, heads=heads, prior_variance=0.5, ewc_lambda=3.0)
    size, head = model.main.size, model.main.num_outputs * (HIDDEN + 1)
    body = torch.arange(size) < size - head
    precision, anchor = torch.zeros(size), torch.zeros(size)
    for task in range(TASKS):
        rows = {"split": own_rows(task), "shared": range(CLASSES), "growing": range((task + 1) * CLASSES)}[heads]
        first = 0 if heads == "growing" else task * CLASSES
        new = torch.full((size,), task == 0)
        if heads == "split":
            row = torch.arange(model.main.num_outputs)
            mine = (row >= rows.start) & (row < rows.stop)
            new = torch.cat((body[:-head] & (task == 0), mine.repeat_interleave(HIDDEN), mine))
        told, given = session(task), samples(task, task * CLASSES)
        model.begin_task(told)
        for _ in range(2):
            flat = model.source(0).detach().requires_grad_()
            loss = SIZE * F.cross_entropy(logits_of(flat, given.x, rows), given.y - first)
            loss = loss + flat[new].square().sum() / (2 * 0.5) + 3.0 / 2 * (precision * (flat - anchor) ** 2).sum()
            torch.testing.assert_close(model.loss(given).detach(), loss.detach())
            (gradient,) = torch.autograd.grad(loss, flat)
            model.observe(given)
            torch.testing.assert_close(model.source.flat[0].grad, gradient, rtol=1e-4, atol=1e-4)
        model.end_updates(told)
        if heads != "split" and task == TASKS - 1:  # there is no task for which it would be a prior, nor a draw
            torch.testing.assert_close(model.precision, precision)
            continue
        flat = model.source(0).detach().requires_grad_()
        for x, y in zip(given.x, given.y):
            nll = F.cross_entropy(logits_of(flat, x[None], rows), y[None] - first)
            precision = precision + torch.autograd.grad(nll, flat)[0].square()
        precision, anchor = precision + new / 0.5, flat.detach().clone()  # it shares the memory of the parameter
        torch.testing.assert_close(model.precision, precision, rtol=1e-4, atol=1e-5)


def test_squared_gradients_of_some_samples_stand_for_all():
    """The share of the prior is not scaled with them: of a weight on an input which is always 0 it is all there is."""
    model = make(EwcPosterior, n_fisher=4, prior_variance=0.25)
    told = session(0)
    model.begin_task(told)
    each = []
    for k in range(SIZE):
        model.args.n_fisher, whole = None, samples(0, 0)
        one = Batch(whole.x[k : k + 1], whole.y[k : k + 1], whole.x[k : k + 1], 0)
        each.append(model.squared_gradients(Session(0, [], told.outputs, 1, lambda size, one=one: iter([one]))))
    model.args.n_fisher = 4
    torch.manual_seed(5)
    model.end_updates(told)
    torch.manual_seed(5)
    drawn = torch.randperm(SIZE)[:4].tolist()
    expected = SIZE / 4 * sum(each[k] for k in drawn)
    own = model.main.owned(own_rows(0))
    torch.testing.assert_close(model.precision, expected + own / 0.25)
    dead = model.main.tensors(model.precision)["layers.0.weight"][:, -1]
    assert (dead == 4).all()


def test_models_of_ewc_are_draws_from_its_posterior():
    model = make(EwcPosterior, prior_variance=0.09, val_sample_size=4)
    learn(model, 0)
    model.begin_task(session(1))
    model.observe(samples(1, CLASSES))
    q, rows = model.laplace(), model.main.tensors
    mean, std = rows(q.mean)["head.weight"], rows(q.std)["head.weight"]
    weights, precision = rows(model.source(0))["head.weight"], rows(model.precision)["head.weight"]
    assert torch.equal(mean[:4], weights[:4]) and not mean[4:].any()
    torch.testing.assert_close(std[:2], precision[:2] ** -0.5)
    assert (std[:2] <= 0.3).all() and not std[2:4].any()  # the task at hand has no posterior yet
    torch.testing.assert_close(std[4:], torch.full((2, HIDDEN), 0.3))
    drawn = model.test_weights(1)
    assert drawn.shape == (4, model.main.size) and torch.equal(drawn, model.test_weights(0))
    torch.testing.assert_close(drawn, q.mean + q.std * model.test_noise())


@pytest.mark.parametrize("own", [{"det_multi_head": True}, {"heads": "shared"}, {"heads": "growing"}])
def test_or_its_weights_as_they_are(own):
    model = make(EwcPosterior, **own)
    learn(model, 0)
    learn(model, 1)
    assert torch.equal(model.test_weights(1), model.source(0)[None])


def test_a_growing_head_of_one_network_has_one_softmax():
    model = make(EwcPosterior, heads="growing").eval()
    learn(model, 0)
    learn(model, 1)
    assert model.outputs_of(0) == model.outputs_of(1) == range(2 * CLASSES)


# Tasks that share their classes


@pytest.mark.parametrize("kind", [PosteriorReplay, Vcl, EwcPosterior])
@pytest.mark.parametrize("heads", ["split", "shared"])
def test_heads_of_tasks_that_share_their_classes(kind, heads):
    model = make(kind, heads=heads, shares_classes=True)
    assert model.main.num_outputs == (TASKS * CLASSES if heads == "split" else CLASSES)
    x = samples(0, 0).x
    for task in range(TASKS):
        learn(model, task)
        assert model.outputs_of(task) == (own_rows(task) if heads == "split" else range(CLASSES))
        assert model.classes_of(task) == range(CLASSES)
    model.eval()
    given = torch.stack([model.given(x, task) for task in range(TASKS)])
    assert given.shape == (TASKS, SIZE, CLASSES) and (given.exp().sum(2) - 1).abs().max() < 1e-5
    assert model(x).shape == (SIZE, CLASSES)
    assert torch.equal(given[0], given[1]) is (heads == "shared" and kind is not PosteriorReplay)


@pytest.mark.parametrize(
    "name, own, width",
    [
        ("posterior_replay", ["--posterior", "dirac"], 20),
        ("vcl", ["--train_sample_size", "1", "--heads", "shared", "--val_sample_size", "2"], 10),
        ("ewc_posterior", ["--n_fisher", "50", "--val_sample_size", "2"], 20),
    ],
)
def test_a_run_on_permuted_digits(name, own, width, tmp_path):
    words = ["--model", name, "--dataset", "perm-digits", "--n_tasks", "2", "--backbone", "mlp-8", *own]
    words += ["--batch_size", "256", "--device", "cpu"]
    assert main.main([*words, "--results", str(tmp_path)]) == 0
    folder = run_folder(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 <= summary["task_final"] <= 1 and summary["own"]["weights_made"] == 65 * 8 + 9 * width
    tasks = read_tasks(folder)
    for measure in ("entropy_in", "entropy_out"):
        last = tasks[(tasks["measure"] == measure) & (tasks["after_task"] == 1)]["value"]
        assert len(last) == 2 and summary["own"][measure] == pytest.approx(last.mean())
    assert "source.flat.0" in read_tensors(Path(folder, "model.safetensors")) or name == "posterior_replay"


# What is refused


@pytest.mark.parametrize(
    "given, answer",
    [
        ({"model": "vcl", "backbone": "vit_tiny_glyphs"}, "this method makes all weights of a small network"),
        ({"model": "ewc_posterior", "backbone": "vit_tiny_glyphs"}, "this method makes all weights of a small network"),
        ({"model": "vcl", "backbone": "resnet18-4", "local_reparam_trick": True}, "--local_reparam_trick: is for MLPs"),
        (
            {"model": "ewc_posterior", "heads": "shared", "det_multi_head": True},
            "--det_multi_head: with --heads shared",
        ),
        *(
            ({"model": model, "dataset": "perm-digits", "heads": "growing"}, "--heads growing: tasks of --scenario")
            for model in ("posterior_replay", "vcl", "ewc_posterior")
        ),
    ],
)
def test_what_does_not_go_together_is_refused(given, answer):
    plan = plans.make({"dataset": "seq-digits", "backbone": "mlp-8"} | given)
    with pytest.raises(UsageError, match=answer):
        plan.method.prepare(plan.run, plan.method_args)


@pytest.mark.parametrize(
    "words",
    [
        ["vcl", "--hmlp_arch", "0"],
        ["vcl", "--regularizer", "w2"],
        ["vcl", "--posterior", "dirac"],
        ["ewc_posterior", "--kl_scale", "2"],
        ["ewc_posterior", "--beta", "1"],
        ["ewc_posterior", "--ewc_gamma", "0.9"],
        ["posterior_replay", "--hmlp_arch", "0"],
        ["posterior_replay", "--regularizer", "w2", "--posterior", "dirac"],
        ["posterior_replay", "--backbone", "vit_tiny_glyphs"],
    ],
)
def test_bad_options_are_answered_in_one_line(words, tmp_path, capsys):
    """Those of another method are none of this one's."""
    network = [] if "--backbone" in words else ["--backbone", "mlp-8"]
    usual = ["--dataset", "seq-digits", *network, "--results", str(tmp_path / "runs")]
    assert main.main(["--model", *words, *usual]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words[1] in said
    assert not list(tmp_path.iterdir())
