"""Short online runs that can be differentiated: steps of SGD on a prediction network, the graph of every step kept.

`Unrolled` takes any network and loss, through `torch.func`. `UnrolledLinear` gives the same for one linear layer and
cross-entropy without weights per step: the gradient of each step is an outer product of a feature and an error e, so
that all outputs follow from products of features,

    outputs_k(phi) = W phi + b - lr * sum_{j < k} mean_b (phi . phi_jb + 1) e_jb,

C numbers per sample of the run where the other form holds D * C (C outputs, D features).

Shapes: a run of K steps on minibatches of B samples has features [K, B, D]. first_order: the gradients of the steps are
taken as constants.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad


class Unrolled:
    """K steps of SGD on all weights of a network. y: what is to be predicted, [K, B, ...]. clip: limit of the entries
    of gradients, with zero slope beyond it; None: none. weights: after each number of steps, K + 1 of them."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        features: Tensor,
        y: Tensor,
        lr: float,
        clip: float | None = None,
        first_order: bool = False,
    ):
        self.network = network
        self.weights = [dict(network.named_parameters())]
        gradient_of = grad(lambda weights, x, y: loss(functional_call(network, weights, (x,)), y))
        for x_k, y_k in zip(features, y, strict=True):
            before = self.weights[-1]
            gradient = gradient_of(before, x_k, y_k)
            if clip is not None:
                gradient = {name: value.clamp(-clip, clip) for name, value in gradient.items()}
            if first_order:
                gradient = {name: value.detach() for name, value in gradient.items()}
            self.weights.append({name: weight - lr * gradient[name] for name, weight in before.items()})

    def outputs(self, features: Tensor, steps: int = -1) -> Tensor:
        """Outputs [N, C] for features [N, D] after so many steps; by default after all of them."""
        return functional_call(self.network, self.weights[steps], (features,))


class UnrolledLinear:
    """K steps of SGD on the cross-entropy of one linear layer. y: classes [K, B]."""

    def __init__(self, layer: nn.Linear, features: Tensor, y: Tensor, lr: float, first_order: bool = False):
        self.layer, self.lr, self.size = layer, lr, y.shape[1]
        known = features.detach() if first_order else features
        self.features = known.flatten(0, 1)
        at_start = layer(features)
        products = self.features @ self.features.T + 1
        errors: list[Tensor] = []  # of each step, [B, C]
        for k, wanted in enumerate(y):
            outputs = at_start[k]
            if errors:
                own = products[k * self.size : (k + 1) * self.size, : k * self.size]
                outputs = outputs - lr * own @ torch.cat(errors)
            error = (outputs.softmax(dim=1) - F.one_hot(wanted, outputs.shape[1])) / self.size
            errors.append(error.detach() if first_order else error)
        self.errors = torch.cat(errors)

    def outputs(self, features: Tensor, steps: int = -1) -> Tensor:
        """As `Unrolled.outputs`."""
        end = len(self.errors) if steps < 0 else steps * self.size
        products = features @ self.features[:end].T + 1
        return self.layer(features) - self.lr * products @ self.errors[:end]
