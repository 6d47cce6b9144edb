"""MVP: its losses against the formulas written out, and what its switches do to selection and prediction."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import WIDTH, Patches, build
from utils.contracts import Batch

FLAGS = ("use_mask", "use_contrastiv", "use_afs", "use_mcr")


def make(**own):
    """A method whose masks and counts differ from entry to entry, as after some training."""
    model = build("mvp", {"e_pool": 5} | own).model
    with torch.no_grad():
        model.mask.normal_()
        model.head.weight.normal_(std=0.5)
        model.count.copy_(torch.arange(len(model.count)))
    return model


def images(count: int = 8, seen: int = 6) -> Batch:
    torch.manual_seed(2)
    return Batch(torch.randn(count, 3, 32, 32), torch.arange(count) % 4, torch.empty(0), seen)


@pytest.mark.parametrize("use_mask", [True, False])
def test_scores_are_those_of_autograd(use_mask):
    model, batch = make(use_mask=use_mask), images()
    torch.manual_seed(3)
    features, index = torch.randn(8, WIDTH), torch.arange(8) % 5
    ign, cps = model.scores(features, index, batch)

    factor = 2 / (1 + (-model.mask[index]).exp()) if use_mask else torch.ones(8, Patches.num_classes)
    logits = (features @ model.head.weight.T + model.head.bias) * factor.detach()
    losses = F.cross_entropy(logits[:, : batch.seen], batch.y, reduction="none")
    (whole,) = torch.autograd.grad(losses.mean(), model.head.weight, retain_graph=True)
    for b, label in enumerate(batch.y):
        (own,) = torch.autograd.grad(losses[b], model.head.weight, retain_graph=True)
        expected = 1 - F.cosine_similarity(own[label], whole[label], dim=0)
        torch.testing.assert_close(ign[b], expected, rtol=1e-4, atol=1e-5)
        weight = model.head.weight[label].detach()
        distance = 1 - weight @ features[b] / weight.norm() / features[b].norm()
        torch.testing.assert_close(cps[b], distance + model.args.margin)


def test_contrastive_key_loss_is_the_triple_mean():
    model = make()
    torch.manual_seed(4)
    index, distance, mass = torch.tensor([1, 1, 4, 0]), torch.rand(4), torch.tensor([3.0, 1.0, 7.0, 2.0, 5.0])
    apart, near = 0.0, 0.0
    for b, other in itertools.product(range(4), range(4)):
        divisor = mass[index[other]].item()
        near += math.exp(distance[b].item() / divisor) / 16
        for j in range(5):
            k = 1 - F.cosine_similarity(model.key[index[b]], model.key[j], dim=0).item()
            apart += math.exp(k / divisor) / 16 / 5
    expected = -math.log(apart / (near + apart) + 1e-6)
    assert model.key_loss(index, distance, mass).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per_sample_focal", [False, True])
def test_focal_factor_of_the_batch_or_of_each_image(per_sample_focal):
    own = {"use_afs": False, "per_sample_focal": per_sample_focal, "alpha": 0.75, "gamma": 1.5}
    model, batch = make(**own).eval(), images()
    loss = model.loss(batch).item()
    features, (index, distance, mass) = model.features(batch.x)
    ign = model.scores(features, index, batch)[0].tolist()
    ce = F.cross_entropy(model.logits(features, index)[:, : batch.seen], batch.y, reduction="none").tolist()
    each = sum(0.25 * c + 0.75 * i**1.5 * c for c, i in zip(ce, ign, strict=True)) / 8
    together = sum(ce) / 8 * sum(0.25 + 0.75 * i**1.5 for i in ign) / 8
    assert abs(each - together) > 0.05
    expected = (each if per_sample_focal else together) + model.key_loss(index, distance, mass).item()
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("use_contrastiv", [True, False])
def test_rare_entries_are_preferred_at_test_time_too(use_contrastiv):
    model = make(use_contrastiv=use_contrastiv).eval()
    with torch.no_grad():
        model.key.copy_(torch.eye(WIDTH)[:5])
        model.count.copy_(torch.tensor([9, 0, 9, 9, 9]))
    query = torch.zeros(1, WIDTH)
    query[0, :2] = torch.tensor([1.0, 0.9])  # a little nearer to entry 0
    before = model.count.clone()
    index, distance, _ = model.select(query)
    assert index.item() == (1 if use_contrastiv else 0)
    assert distance.item() == pytest.approx(1 - (0.9 if use_contrastiv else 1) / math.hypot(1, 0.9), abs=1e-5)
    assert torch.equal(model.count, before)


def test_choice_does_not_depend_on_the_rest_of_the_batch():
    model = make().eval()
    x = images().x
    together = model.select(model.fixed_features(x))[0]
    single = torch.cat([model.select(model.fixed_features(image[None]))[0] for image in x])
    assert torch.equal(together, single)


def test_every_update_counts_its_choices():
    run = build("mvp", online_iter=3)
    run.trainer.train()
    assert run.model.count.sum() == 3 * run.info.num_images


def test_mask_scales_logits_of_either_sign():
    """An entry fresh from initialisation scales by 2 sigmoid(-1)."""
    masked, plain = build("mvp").model.eval(), build("mvp", {"use_mask": False}).model.eval()
    x = images().x
    with torch.no_grad():
        torch.testing.assert_close(masked(x), plain(x) * 2 / (1 + math.e))
    assert (plain(x) < 0).any() and not plain.mask.requires_grad


@pytest.mark.parametrize("flags", list(itertools.product([True, False], repeat=4)), ids=str)
@pytest.mark.parametrize("prompt_func", ["prompt_tuning", "prefix_tuning"])
def test_all_that_trains_has_a_gradient_whatever_the_switches(flags, prompt_func):
    model = make(prompt_func=prompt_func, **dict(zip(FLAGS, flags, strict=True))).train()
    model.loss(images(count=16)).backward()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == trainable


def test_keys_learn_from_the_key_loss_alone():
    model, batch = make(), images()
    features, (index, distance, mass) = model.features(batch.x)
    model.key_loss(index, distance, mass).backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["key"]


def test_feature_is_aligned_once_before_scores_and_head():
    class Alignment(torch.nn.Module):
        calls = 0

        def forward(self, features):
            self.calls += 1
            return features.flip(1)

    model, batch = make().eval(), images()
    features, (index, _, _) = model.features(batch.x)
    model.fc_norm = alignment = Alignment()
    given, scores = [], model.scores
    model.scores = lambda features, *rest: (given.append(features), scores(features, *rest))[1]
    torch.testing.assert_close(model(batch.x), model.logits(features.flip(1), index))
    model.loss(batch)
    assert alignment.calls == 2
    torch.testing.assert_close(given[0], features.flip(1))


def test_scores_and_choice_stay_in_full_precision():
    model, batch = make().eval(), images()
    with torch.no_grad():
        query = model.fixed_features(batch.x)
        features, (index, _, _) = model.features(batch.x)
        expected = *model.select(query), *model.scores(features, index, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = *model.select(query), *model.scores(features, index, batch)
            assert model.loss(batch).isfinite()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_tokens_lie_block_after_block_with_keys_before_values():
    own = {"pos_g_prompt": (1,), "len_g_prompt": 3, "pos_e_prompt": (1, 4), "len_e_prompt": 2}
    index = torch.tensor([2, 0])
    model = make(**own)
    general, expert = model.prompts(index)[1]  # a block of both lists: general tokens first
    assert torch.equal(general.table, model.g_prompts) and general.index is None
    assert torch.equal(expert.table, model.e_prompts[:, :2]) and torch.equal(expert.index, index)
    assert torch.equal(model.prompts(index)[4][0].table, model.e_prompts[:, 2:])
    model = make(prompt_func="prefix_tuning", **own)
    (prefix,) = model.prompts(index)[4]
    assert torch.equal(prefix.key_table, model.e_prompts[:, 4:6])
    assert torch.equal(prefix.value_table, model.e_prompts[:, 6:]) and model.e_prompts.shape[1] == 8


def test_prompts_and_keys_start_as_standard_normal():
    model = build("mvp").model
    for table in (model.g_prompts, model.e_prompts, model.key):
        assert abs(table.mean()) < 0.15 and abs(table.std() - 1) < 0.15


def test_agreement_is_never_below_zero():
    """A single image agrees with its batch, but for rounding; a fractional power of a negative number is NaN."""
    model = make()
    torch.manual_seed(5)
    batch = Batch(torch.empty(1), torch.zeros(1, dtype=torch.int64), torch.empty(0), seen=6)
    ign = torch.cat([model.scores(torch.randn(1, WIDTH), torch.tensor([0]), batch)[0] for _ in range(50)])
    assert (ign >= 0).all() and (ign < 1e-5).all()
