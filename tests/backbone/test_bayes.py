"""Gaussians over weights, against torch's distributions and closed forms; scores."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from backbone import bayes
from backbone.bayes import Gaussian


def gaussian(seed: int, size: int = 50) -> Gaussian:
    return bayes.decode(torch.randn(2 * size, generator=torch.Generator().manual_seed(seed)))


def test_coding_of_deviations():
    flat = torch.tensor([1.0, 2.0, 0.5, 3.0])
    plain, logarithm = bayes.decode(flat), bayes.decode(flat, log_variance=True)
    assert plain.mean.tolist() == logarithm.mean.tolist() == [1, 2]
    torch.testing.assert_close(plain.std, torch.tensor([math.log1p(math.exp(-2)), math.log1p(math.exp(0.5))]))
    torch.testing.assert_close(logarithm.std, torch.tensor([math.exp(-1), math.exp(0.25)]))


def test_divergences():
    a, b = gaussian(0), gaussian(1)
    torch.testing.assert_close(bayes.kl(a, b), kl_divergence(Normal(*a), Normal(*b)).sum())
    prior = Gaussian(torch.tensor(0.0), torch.tensor(2.0).sqrt())
    torch.testing.assert_close(bayes.kl(a, prior), kl_divergence(Normal(*a), Normal(*prior)).sum())
    v, w = a.std.square(), b.std.square()
    expected = (a.mean - b.mean).square().sum() + (v + w - 2 * (v * w).sqrt()).sum()
    torch.testing.assert_close(bayes.squared_w2(a, b), expected)


@pytest.mark.parametrize("distance", [bayes.kl, lambda a, b: bayes.kl(b, a), bayes.squared_w2])
def test_of_equal_gaussians_value_and_gradient_are_exactly_0(distance):
    flat = torch.randn(20_000).requires_grad_()
    value = distance(bayes.decode(flat), bayes.decode(flat.detach()))
    (gradient,) = torch.autograd.grad(value, flat)
    assert value.item() == 0 and not gradient.any()


def test_local_reparametrisation_draws_what_drawn_weights_give():
    """Of one layer pre-activations are exactly normal, with these means and deviations; a second one follows a ReLU."""
    layers = [Gaussian(torch.randn(shape), torch.rand(shape)) for shape in [(3, 4), (3,), (2, 3), (2,)]]
    x = torch.randn(5, 4)
    asked = []

    def noise(*shape: int) -> torch.Tensor:
        asked.append(shape)
        return torch.ones(shape)

    deviation = (x.square() @ layers[0].std.square().T + layers[1].std.square()).sqrt()
    hidden = x @ layers[0].mean.T + layers[1].mean + deviation
    torch.testing.assert_close(bayes.local_outputs(layers[:2], x, 7, noise), hidden.expand(7, 5, 3))
    points = [Gaussian(layer.mean, 0 * layer.std) for layer in layers]
    expected = F.relu(x @ layers[0].mean.T + layers[1].mean) @ layers[2].mean.T + layers[3].mean
    torch.testing.assert_close(bayes.local_outputs(points, x, 7, noise), expected.expand(7, 5, 2))
    assert asked == [(7, 5, 3), (7, 5, 3), (7, 5, 2)]


def test_scores():
    sure, torn = [1.0, 0.0], [0.5, 0.5]
    found = bayes.scores(torch.tensor([[sure, torn, sure], [sure, torn, [0.0, 1.0]]]))
    torch.testing.assert_close(found["ent"], torch.tensor([0.0, -1.0, -1.0]))
    torch.testing.assert_close(found["conf"], torch.tensor([1.0, 0.5, 0.5]))
    torch.testing.assert_close(found["agree"], torch.tensor([0.0, 0.0, -0.5]))
    alone = bayes.scores(torch.ones(1, 4, 1))  # one draw, one output
    assert not alone["ent"].any() and not alone["agree"].any()
