"""Fine-tuning and supervised pretraining: which classes compete, what holds weights back, how the rate moves."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import Patches, build
from utils.contracts import Batch

SLOTS = torch.tensor([0, 2, 2, 1])


def batch(seen: int) -> Batch:
    return Batch(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), SLOTS, torch.empty(0), seen)


def expected(logits: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy to (1 - smoothing) of the label and an even share of the rest, written out."""
    target = torch.full_like(logits, smoothing / logits.shape[1])
    target[torch.arange(4), SLOTS] += 1 - smoothing
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


@pytest.mark.parametrize("name", ["finetune", "er", "derpp", "supervised"])
@pytest.mark.parametrize("seen", [3, 5])
def test_classes_not_met_do_not_compete(name, seen):
    model = build(name).model
    model.loss(batch(seen)).backward()
    moved = model.head.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [slot < seen for slot in range(Patches.num_classes)]
    torch.testing.assert_close(model.loss(batch(seen)), expected(model(batch(seen).x)[:, :seen]))


def test_labels_are_smoothed_where_all_classes_are_known():
    model = build("supervised", {"label_smoothing": 0.3}).model
    torch.testing.assert_close(model.loss(batch(12)), expected(model(batch(12).x), 0.3))
    torch.testing.assert_close(build("finetune").model.loss(batch(12)), F.cross_entropy(model(batch(12).x), SLOTS))


def test_weight_decay_holds_matrices_back_and_nothing_else():
    model = build("supervised", {"weight_decay": 0.2}).model
    groups = model.optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert isinstance(model.optimizer, torch.optim.AdamW)
    for name, p in model.named_parameters():
        assert decay[id(p)] == (0.2 if p.ndim > 1 else 0), name
    for group in build("finetune").model.optimizer.param_groups:
        assert type(build("finetune").model.optimizer) is torch.optim.Adam and group["weight_decay"] == 0


def test_rate_rises_in_a_line_and_falls_in_a_cosine_to_zero():
    run = build("supervised", {"lr": 0.5, "warmup": 0.25}, n_epochs=2, batch_size=16)
    model, updates = run.model, run.info.num_updates
    assert updates == 24
    rates = []
    for _ in range(updates):
        rates.append(model.optimizer.param_groups[0]["lr"])
        model.optimizer.step()
        model.scheduler.step()
    rise = [0.5 * k / 6 for k in range(1, 7)]
    fall = [0.25 * (1 + math.cos(math.pi * k / 18)) for k in range(18)]
    assert rates == pytest.approx(rise + fall)
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert all(group["lr"] == model.optimizer.param_groups[0]["lr"] for group in model.optimizer.param_groups)


def test_the_loop_moves_the_rate_once_per_update():
    run = build("supervised", eval_period=-1, n_epochs=2)
    run.trainer.train()
    assert run.model.scheduler.last_epoch == run.info.num_updates
