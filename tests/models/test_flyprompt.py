"""FlyPrompt's options and cases that no recorded run shows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.flyprompt import combine
from tests.tiny import Patches, build
from utils.contracts import Batch

INF = float("inf")
OWN = {"step_num": 5, "rp_dim": 32}


def first_batch(run, count: int = 16) -> Batch:
    raw = run.trainer.images.raw(torch.arange(count) * 5)
    return Batch(run.info.plain(raw), torch.arange(count) % 4, raw, 4)


@pytest.mark.parametrize("method", ["mean", "max_prob", "min_entropy"])
@pytest.mark.parametrize("softmax", [True, False])
def test_ways_to_combine_heads(method, softmax):
    """Two heads, two images, three classes, the last of which has not been met."""
    sure, unsure = [2.0, -1.0, -INF], [-0.5, 0.5, -INF]
    logits = torch.tensor([[sure, unsure], [unsure, sure]])
    scores = logits.softmax(dim=2) if softmax else logits
    expected = {
        "mean": (scores[0] + scores[1]) / 2,
        "max_prob": torch.maximum(scores[0], scores[1]),
        "min_entropy": torch.stack((scores[0, 0], scores[1, 1])),
    }[method]
    combined = combine(logits, "softmax_" * softmax + method)
    assert torch.equal(combined, expected) and not combined.isnan().any()


def test_beginning():
    model = build("flyprompt", OWN).model
    assert model.prompts.min() >= 0 and model.prompts.max() <= 1
    bound = model.backbone.num_features**-0.5  # of nn.Linear, for the experts to come
    for averaged, head in ((model.ema_weight, model.head.weight), (model.ema_bias, model.head.bias)):
        assert torch.equal(averaged[0], head.expand_as(averaged[0]))
        assert 0.9 * bound < averaged[1:].max() <= bound and -bound <= averaged[1:].min() < -0.9 * bound


def test_one_batch_may_begin_several_experts():
    """192 images and 24 experts: 8 images each, so that a batch of 16 begins two."""
    model = (run := build("flyprompt", OWN | {"step_num": 24})).model
    with torch.no_grad():
        model.head.weight.add_(1)
    first = model.prompts[:, 0].clone()
    model.end_batch(first_batch(run))
    assert model.clock.step == 2
    assert torch.equal(model.prompts[:, 1], first) and torch.equal(model.prompts[:, 2], first)
    for expert in (1, 2):
        assert torch.equal(model.ema_weight[expert, 0], model.head.weight)
    assert not torch.equal(model.ema_weight[0, 0], model.head.weight)
    assert not torch.equal(model.ema_weight[3, 0], model.head.weight)


def test_new_expert_starts_from_the_mean_of_those_before():
    model = build("flyprompt", OWN).model
    expected = (model.prompts[:, 0] + model.prompts[:, 1] + model.prompts[:, 2]) / 3
    model.begin_expert(3)
    torch.testing.assert_close(model.prompts[:, 3], expected)


@pytest.mark.parametrize("restricted, expert", [(False, 2), (True, 1)])
def test_an_expert_to_come_wins_only_as_released(restricted, expert):
    """Scores of experts to come are 0, here above those of the two trained ones."""
    model = build("flyprompt", OWN | {"route_to_known": restricted}).model
    model.clock.step = 1
    model.router.R[:, 0], model.router.R[:, 1] = -2, -1
    assert model.route(torch.ones(5, model.backbone.num_features)).tolist() == [expert] * 5


def test_router_sees_plain_images_without_prompts_once_per_batch():
    run = build("flyprompt", OWN, online_iter=3)
    model, batch = run.model, first_batch(run)
    plain = model.backbone.forward_features(batch.x)[:, 0]
    model.end_batch(Batch(batch.x + 1, batch.y, batch.raw, batch.seen))
    h = (plain @ model.router.W_rand).relu()
    torch.testing.assert_close(model.router.G, h.T @ h, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.fixed_features(batch.x), plain)


@pytest.mark.parametrize("training", [True, False])
def test_every_feature_passes_the_place_of_the_alignment_once(training):
    class Counter(nn.Module):
        seen = 0

        def forward(self, features):
            self.seen += len(features)
            return features

    model = build("flyprompt", OWN).model.train(training)
    model.fc_norm = Counter()
    model(torch.randn(5, 3, 32, 32))
    assert model.fc_norm.seen == 5


def test_classes_not_met_get_no_share():
    run = build("flyprompt", OWN)
    run.model.end_batch(first_batch(run))
    scores = run.model.eval()(torch.randn(5, 3, 32, 32))
    assert scores.shape == (5, Patches.num_classes)
    assert (scores[:, :4] > 0).all() and (scores[:, 4:] == 0).all()
