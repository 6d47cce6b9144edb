"""Steps that are differentiated through: both forms agree, and both know what first-order steps leave out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backbone.heads import prediction_network
from backbone.unrolled import Unrolled, UnrolledLinear

STEPS, FEATURES, CLASSES, LR = 6, 20, 9, 0.3


def meta_gradients(form: str, size: int, first_order: bool) -> tuple[torch.Tensor, ...]:
    """The meta-loss, and its gradients with respect to the features of the run and of the query and to the layer."""
    torch.manual_seed(size)
    head = prediction_network(FEATURES, CLASSES).double()
    run = torch.randn(STEPS, size, FEATURES, dtype=torch.float64, requires_grad=True)
    query = torch.randn(7, FEATURES, dtype=torch.float64, requires_grad=True)
    y = torch.randint(CLASSES, (STEPS, size))
    if form == "linear":
        unrolled = UnrolledLinear(head[0], run, y, LR, first_order)
    else:
        unrolled = Unrolled(head, F.cross_entropy, run, y, LR, first_order=first_order)
    loss = F.cross_entropy(unrolled.outputs(query), torch.arange(7))
    given = torch.autograd.grad(loss, [run, query, *head.parameters()], allow_unused=True, materialize_grads=True)
    return loss.detach(), *given, *(unrolled.outputs(query, k).detach() for k in range(STEPS + 1))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_both_forms_give_the_same_meta_gradient(size, first_order):
    for one, other in zip(*(meta_gradients(form, size, first_order) for form in ("linear", "any")), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["linear", "any"])
def test_a_first_order_gradient_is_another(form):
    """The loss is the same; the features of the run have no gradient any more, since it reaches them through the steps
    alone."""
    true, first = (meta_gradients(form, 1, first_order) for first_order in (False, True))
    assert true[0] == pytest.approx(first[0].item())
    assert true[1].norm() > 0.1 * true[2].norm() and not first[1].any()


def test_steps_are_those_of_sgd():
    torch.manual_seed(0)
    head, x, y = prediction_network(5, 1, 2, 8), torch.randn(4, 3, 5), 20 * torch.randn(4, 3, 1)
    unrolled = Unrolled(head, F.mse_loss, x, y, 0.01, clip=2.0)
    optimizer, clipped = torch.optim.SGD(head.parameters(), lr=0.01), 0
    for x_k, y_k in zip(x, y, strict=True):
        optimizer.zero_grad()
        F.mse_loss(head(x_k), y_k).backward()
        clipped += sum(int((p.grad.abs() > 2).sum()) for p in head.parameters())
        torch.nn.utils.clip_grad_value_(head.parameters(), 2.0)
        optimizer.step()
    assert clipped > 0
    for name, weight in head.named_parameters():
        torch.testing.assert_close(unrolled.weights[-1][name], weight)
