"""RanPAC around its classifier: adapters, the first session and what comes after."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backbone.vit import embed
from models.ranpac import Adapter
from tests.tiny import WIDTH, build, weights_of
from utils.contracts import Batch, Session
from utils.errors import UsageError

OWN = {"rp_dim": 32}


def first_batch(run, count: int = 16) -> Batch:
    raw = run.trainer.images.raw(torch.arange(count) * 5)
    return Batch(run.info.plain(raw), torch.arange(count) % 4, raw, 4)


def moved(run) -> None:
    """Adapters that do something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in run.model.adapters.parameters():
            p.add_(0.1 * torch.randn_like(p))


def test_adapters_begin_as_nothing():
    model, x = build("ranpac", OWN).model, torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(model.features(x), model.backbone.forward_features(x)[:, 0])
    assert len(model.adapters) == 5
    for adapter in model.adapters:
        largest = adapter.down.weight.abs().max() * WIDTH**0.5  # Kaiming uniform with a = sqrt 5: at most 1
        assert 0.95 < largest <= 1 and not adapter.down.bias.any() and adapter.scale == 1


def test_adapter_works_beside_the_mlp_on_its_input_without_norm():
    run = build("ranpac", OWN)
    moved(run)
    model, x = run.model.eval(), torch.randn(4, 3, 32, 32)
    tokens = embed(model.backbone, x)
    for i, block in enumerate(model.backbone.blocks):
        tokens = tokens + block.attn(block.norm1(tokens))
        out = tokens + block.mlp(block.norm2(tokens))
        if i < 5:
            adapter = model.adapters[i]
            hidden = (tokens @ adapter.down.weight.T + adapter.down.bias).relu()
            out = out + adapter.scale * (hidden @ adapter.up.weight.T + adapter.up.bias)
        tokens = out
    torch.testing.assert_close(model.features(x), model.backbone.norm(tokens)[:, 0], rtol=1e-4, atol=1e-4)


def test_dropout_acts_on_the_bottleneck_in_training_only():
    adapter = Adapter(WIDTH, 1)
    with torch.no_grad():
        adapter.down.weight.zero_(), adapter.down.bias.fill_(1.0)
        adapter.up.weight.fill_(1.0)
    x = torch.zeros(1, 1000, WIDTH)
    out = adapter.train()(x)[0, :, 0]
    assert {round(value, 4) for value in out.tolist()} == {0.0, 1.1111}
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert torch.equal(adapter.eval()(x), torch.ones_like(x))


def test_loss_of_the_first_session_is_over_the_classes_of_the_batch():
    run = build("ranpac", OWN)
    model, batch = run.model.eval(), first_batch(run)
    batch = Batch(batch.x, batch.y * 2, batch.raw, 12)  # classes 0, 2, 4, 6 of 12
    logits = (model.features(batch.x) @ model.head.weight.T)[:, :8:2]
    torch.testing.assert_close(model.loss(batch), F.cross_entropy(logits, batch.y // 2))
    assert model.head.bias is None


def test_first_session_trains_and_nothing_after_it():
    run = build("ranpac", OWN, eval_period=-1)
    model, before, states = run.model, weights_of(run.model), []
    end_task = model.end_task

    def ended(session: Session) -> None:
        end_task(session)
        states.append(weights_of(model))

    model.end_task = ended
    run.trainer.train()
    names = [name for name, _ in model.named_parameters()]
    assert all(torch.equal(states[0][name], states[-1][name]) for name in names)
    for name in names:
        assert torch.equal(before[name], states[0][name]) == name.startswith("backbone."), name
    assert not any(p.requires_grad for p in model.parameters())
    assert not torch.equal(states[0]["classifier.R"], states[-1]["classifier.R"])
    assert model.observe(first_batch(run)) is None


def test_every_batch_is_collected_once_augmented_and_without_dropout():
    run = build("ranpac", OWN, online_iter=3)
    moved(run)
    model, batch = run.model.train(), first_batch(run)
    state = run.trainer.transform.generator.get_state()
    model.end_batch(batch)
    assert model.training and model.adapters.training
    run.trainer.transform.generator.set_state(state)
    with torch.no_grad():
        z = model.eval().features(run.info.augment(batch.raw))
    h = (z @ model.classifier.W_rand).relu()
    torch.testing.assert_close(model.classifier.G, h.T @ h)
    assert not torch.allclose(model.features(batch.x), z)
    whole = model.fixed_features(batch.x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.fixed_features(batch.x), whole)


def test_after_the_first_session_a_batch_is_augmented_once():
    run = build("ranpac", OWN, online_iter=3, eval_period=-1)
    given, train, add, made = [], run.trainer.transform.train, run.model.classifier.add, []
    run.trainer.transform.train = lambda raw: made.append(train(raw)) or made[-1]
    run.model.info.__dict__["augment"] = run.trainer.transform.train
    run.model.classifier.add = lambda z, y: (given.append((z, len(made))), add(z, y))
    run.trainer.train()
    first = len(run.trainer.stream.batches(0, 0))
    counts = [count for _, count in given]
    assert counts == [*range(4, 4 * first + 1, 4), *range(4 * first + 1, 3 * first + len(counts) + 1)]
    z, count = given[-1]
    assert torch.equal(z, run.model.eval().fixed_features(made[count - 1]))


def test_closed_form_takes_over_after_the_first_session():
    run = build("ranpac", OWN)
    model, batch = run.model, first_batch(run)
    model.end_batch(batch)
    model.eval()
    assert not model.has_fixed_features
    assert torch.equal(model(batch.x), model.head(model.features(batch.x)))
    model.end_task(Session(0, [], None, 0, None))
    assert model.has_fixed_features
    z = model.fixed_features(batch.x)
    assert torch.equal(model(batch.x), model.classifier(z)) and torch.equal(model(batch.x, z), model.classifier(z))
    assert not torch.equal(model(batch.x), model.head(z))
    model.end_batch(batch)
    assert model.has_fixed_features and torch.equal(model.eval().fixed_features(batch.x), z)


def test_ridge_search_runs_over_a_stream():
    run = build("ranpac", OWN | {"ridge": "search"})
    run.trainer.train()
    assert run.model.classifier.ridge != run.model.args.rp_ridge
    assert run.model.classifier.rows == []
    assert run.trainer.history.summary()["A_last"] > 0.5


def test_more_adapters_than_blocks_is_refused():
    with pytest.raises(UsageError, match="adapter_blocks 7"):
        build("ranpac", OWN | {"adapter_blocks": 7})
