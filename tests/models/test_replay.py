"""What the replay methods and the joint bound train on, and by which loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import build, weights_of
from utils import plan as plans
from utils.args import method_options
from utils.contracts import Batch
from utils.errors import UsageError
from utils.registry import METHODS


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def batch_of(run, labels: list[int], seen: int, seed: int = 0) -> Batch:
    raw = images(len(labels), seed)
    return Batch(run.info.plain(raw), torch.tensor(labels), raw, seen)


@pytest.fixture
def without_augmentation(monkeypatch):
    """Replayed images enter as they are, so that a loss can be written out."""

    def apply(run):
        object.__setattr__(run.info, "augment", run.info.plain)
        return run

    return apply


def masked(logits: torch.Tensor, kept: list[int]) -> torch.Tensor:
    out = torch.full_like(logits, -torch.inf)
    out[:, kept] = logits[:, kept]
    return out


def test_er_ace_keeps_new_images_from_pushing_old_classes(without_augmentation):
    run = without_augmentation(build("er_ace", {"replay_size": 4}))
    model = run.model
    first = batch_of(run, [2, 3, 3], seen=4)
    model.loss(first).backward()
    moved = model.head.weight.grad.abs().sum(dim=1) > 0
    assert moved.nonzero().flatten().tolist() == [2, 3]  # nothing to replay: only classes of the batch

    model.buffer.add(images(6, 1), torch.tensor([0, 1, 0, 1, 0, 1]))
    model.buffer.draw_positions = lambda count: torch.arange(count)
    logits, old = model(first.x), model(run.info.plain(images(6, 1)[:4]))
    expected = F.cross_entropy(masked(logits, [2, 3]), first.y)
    expected = expected + F.cross_entropy(masked(old, [0, 1, 2, 3]), torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(model.loss(first), expected)


def test_derpp_replays_labels_and_stored_logits(without_augmentation):
    run = without_augmentation(build("derpp", {"replay_size": 2, "alpha": 0.3, "beta": 0.7}))
    model, stored = run.model, torch.randn(4, 12)
    model.buffer.add(images(4, 1), torch.tensor([0, 1, 2, 0]), stored)
    draws = iter([torch.tensor([3, 1]), torch.tensor([0, 2])])
    model.buffer.draw_positions = lambda count: next(draws)
    batch = batch_of(run, [2, 3, 3], seen=4)
    old = model(run.info.plain(images(4, 1)))
    expected = F.cross_entropy(masked(model(batch.x), [0, 1, 2, 3]), batch.y)
    expected = expected + 0.3 * (old[[3, 1]] - stored[[3, 1]]).square().mean()
    expected = expected + 0.7 * F.cross_entropy(masked(old[[0, 2]], [0, 1, 2, 3]), torch.tensor([0, 2]))
    torch.testing.assert_close(model.loss(batch), expected)


def test_derpp_stores_the_logits_of_the_last_update():
    run = build("derpp")
    batch = batch_of(run, [0, 1, 1], seen=2)
    for _ in range(3):
        before = run.model(batch.x).detach()
        run.model.observe(batch)
    run.model.end_batch(batch)
    torch.testing.assert_close(run.model.buffer.columns[2][:3], before)


class Watched:
    """Takes the place of both transforms of a method, and keeps what each was given and gave."""

    def __init__(self, run):
        self.augmented: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.plain = run.info.plain
        object.__setattr__(run.info, "augment", self._augment)
        object.__setattr__(run.info, "plain", self._refuse)

    def _augment(self, raw: torch.Tensor) -> torch.Tensor:
        self.augmented.append((raw, self.plain(raw) + 0.25 * len(self.augmented)))  # so that each is known again
        return self.augmented[-1][1]

    def _refuse(self, raw: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an image is trained on as it is at test time")


@pytest.mark.parametrize(("name", "draws"), [("er", 1), ("er_ace", 1), ("derpp", 2)])
def test_replayed_images_are_augmented(name, draws):
    run = build(name, {"replay_size": 4})
    stored, inputs = images(12, 1), []
    run.model.buffer.add(stored, torch.arange(12) % 3, *([torch.randn(12, 12)] if name == "derpp" else []))
    batch = batch_of(run, [2, 3, 3], seen=4)
    watched = Watched(run)
    run.model.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    run.model.observe(batch)
    assert [len(raw) for raw, _ in watched.augmented] == [4] * draws
    for raw, _ in watched.augmented:
        assert (raw[:, None] == stored).flatten(2).all(dim=2).any(dim=1).all()
    assert torch.equal(torch.cat(inputs), torch.cat((batch.x, *(x for _, x in watched.augmented))))


def test_joint_augments_whatever_it_trains_on():
    run = build("joint", {"host": "finetune", "updates": 2, "joint_batch": 8}, eval_period=-1)
    watched, trained = Watched(run), []
    observe = run.model.host.observe

    def observed(batch):
        trained.append(batch.x)
        return observe(batch)

    run.model.host.observe = observed
    run.trainer.train()
    assert len(trained) == len(watched.augmented) == 2 * run.info.num_updates
    assert all(x is made for x, (_, made) in zip(trained, watched.augmented, strict=True))


def test_finetune_moves_every_weight_or_the_head_alone():
    for trainable, moves in (("all", True), ("head", False)):
        run = build("finetune", {"trainable": trainable}, eval_period=-1)
        before = weights_of(run.model.backbone)
        run.trainer.train()
        after = weights_of(run.model.backbone)
        assert all(torch.equal(after[name], before[name]) != moves for name in before)


@pytest.mark.parametrize("epochs", [1, 2])
def test_joint_keeps_every_image_once_and_draws_from_all_of_them_evenly(epochs):
    own = {"host": "finetune", "updates": 3, "joint_batch": 24}
    run = build("joint", own, online_iter=2, eval_period=-1, n_epochs=epochs)
    model, labels, met, shares = run.model, run.trainer.images.labels, set(), []
    observe, host = model.observe, model.host.observe

    def observed(batch):
        met.update(batch.indices.tolist())
        model.now = batch
        return observe(batch)

    def drawn(batch):
        rows = [find(image) for image in batch.raw]
        assert len(rows) == min(24, len(met)) == len(set(rows)) and set(rows) <= met
        assert torch.equal(batch.y, run.trainer.seen.slots(labels[rows]))
        new = len(set(rows) & set(model.now.indices.tolist()))
        shares.append(new / len(rows) - len(model.now.y) / len(met))
        return host(batch)

    every = {image.numpy().tobytes(): row for row, image in enumerate(run.trainer.images.raw(torch.arange(192)))}
    find = lambda image: every[image.numpy().tobytes()]  # noqa: E731
    model.observe, model.host.observe = observed, drawn
    run.trainer.train()
    assert len(shares) == 3 * run.info.num_updates
    assert abs(sum(shares) / len(shares)) < 0.05  # new images have no more than their share
    assert sorted(model.met.tolist()) == list(range(192))
    assert torch.equal(model.slots, run.trainer.seen.slots(labels[model.met]))


def test_state_of_joint_holds_no_images():
    run = build("joint", {"updates": 1}, eval_period=-1)
    run.trainer.train()
    sizes = [value.nbytes for value in run.model.extra_state().values() if isinstance(value, torch.Tensor)]
    assert sum(sizes) < 10_000 < run.info.num_images * 3 * 32 * 32


HOSTS = [name for name in METHODS.files() if "si-blurry" in METHODS.load(name).scenarios]
HOSTS = [name for name in HOSTS if not method_options(METHODS.load(name).Args)]
KEEPERS = {"er", "er_ace", "der", "derpp", "flyprompt", "lmsrr", "ncm", "ranpac"}


@pytest.mark.parametrize("host", HOSTS)
def test_joint_trains_methods_that_keep_nothing_of_their_own(host):
    none = {"misa": {"load_pt": "none"}, "oml": {"rln": "none"}}.get(host, {})
    plan = plans.make({"model": "joint", "dataset": "seq-digits", "host": host} | none)
    if host in KEEPERS:
        with pytest.raises(UsageError, match=f"--host {host}: it keeps .* of its own; joint trains methods that keep"):
            plan.method.prepare(plan.run, plan.method_args)
        return
    assert plan.method.prepare(plan.run, plan.method_args) == []
    own = {"host": host, "updates": 1, "joint_batch": 8} | none
    run = build("joint", own, eval_period=-1, batch_size=64)
    run.trainer.train()
    assert run.trainer.history.rows[-1]["loss"] > 0


def test_class_statistics_are_something_of_its_own():
    plan = plans.make({"model": "joint", "dataset": "seq-digits", "host": "slca", "ca_epochs": 2})
    with pytest.raises(UsageError, match="sums of features"):
        plan.method.prepare(plan.run, plan.method_args)
