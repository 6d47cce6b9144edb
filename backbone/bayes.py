"""Diagonal Gaussians over the weights of a network, as flat vectors: coding, draws, divergences, local
reparametrisation; and how sure the draws are of their predictions.

Source: Henning, Cervera et al., Posterior Meta-Replay, NeurIPS 2021, arXiv:2103.01133, section 3, and the release
(chrhenning/posterior_replay_cl e60ed78); Bayes by Backprop: Blundell et al., ICML 2015; local reparametrisation:
Kingma et al., NeurIPS 2015.

Shapes: P weights, S draws, B samples, N numbers of a sample, U units of a layer, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

RHO_OFFSET = -2.5  # is added to every rho, so that weights begin with small deviations
LEAST = 1e-5  # probability in the logarithm of the entropy, as released


class Gaussian(NamedTuple):
    """Independent normal distributions: means and standard deviations, [P] each, or scalars for P equal ones."""

    mean: Tensor
    std: Tensor


def decode(flat: Tensor, log_variance: bool = False) -> Gaussian:
    """The Gaussian of a vector [2 P], means before rhos: std = softplus(rho - 2.5), or exp((rho - 2.5) / 2)."""
    mean, rho = flat.chunk(2)
    rho = rho + RHO_OFFSET
    return Gaussian(mean, (rho / 2).exp() if log_variance else F.softplus(rho))


def draw(q: Gaussian, noise: Tensor) -> Tensor:
    """Weights [S, P] of standard normal noise [S, P]."""
    return q.mean + q.std * noise


def kl(a: Gaussian, b: Gaussian) -> Tensor:
    """KL(a || b), summed over the weights. In this form it and its gradient are exactly 0 where a and b are equal."""
    ratio = a.std / b.std
    return 0.5 * (ratio.square() + ((b.mean - a.mean) / b.std).square() - 1 - 2 * ratio.log()).sum()


def squared_w2(a: Gaussian, b: Gaussian) -> Tensor:
    """The squared Wasserstein-2 distance, whose var + var' - 2 sqrt(var var') is a square. As exact as `kl`."""
    return (a.mean - b.mean).square().sum() + (a.std - b.std).square().sum()


def local_outputs(q: Sequence[Gaussian], x: Tensor, samples: int, noise: Callable[..., Tensor]) -> Tensor:
    """Outputs [S, B, K] of an MLP with ReLU whose layers draw their pre-activations, not their weights.

    q: of the tensors W1 [U, N], b1 [U], W2 ... x: [B, N]. noise(S, B, U): standard normal, asked for layer by layer.
    """
    for weight, bias in zip(q[::2], q[1::2]):
        mean = F.linear(x, weight.mean, bias.mean)
        variance = F.linear(x.square(), weight.std.square(), bias.std.square())
        outputs = mean + variance.sqrt() * noise(samples, *mean.shape[-2:])
        x = F.relu(outputs)
    return outputs


# Scores of a task's model ---------------------------------------------------------------------------------------------


def scores(p: Tensor, num_classes: int | None = None) -> dict[str, Tensor]:
    """How well a model fits samples, larger is better, [B] each, from probabilities [S, B, K] of its draws: minus the
    `entropy` of their mean, the largest mean probability ("conf"), and minus the standard deviation over the draws,
    averaged over the outputs ("agree"; 0 for one draw). num_classes: of a task, if a model has outputs of several."""
    mean = p.mean(0)
    return {
        "ent": -entropy(mean, num_classes),
        "conf": mean.amax(1),
        "agree": -p.std(0, correction=0).mean(1),
    }


def entropy(p: Tensor, num_classes: int | None = None) -> Tensor:
    """Of probabilities [B, K], as a share of log num_classes, by default log K, [B]; 0 where there is one output."""
    if p.shape[1] == 1:
        return torch.zeros_like(p[:, 0])
    return -(p * p.clamp_min(LEAST).log()).sum(1) / math.log(max(2, num_classes or p.shape[1]))
