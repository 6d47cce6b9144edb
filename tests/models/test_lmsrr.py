"""LMSRR against a plain version of it that runs every pass whole, and what it keeps."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from backbone import Several
from backbone.vit import embed
from models.lmsrr import Lmsrr, LmsrrArgs
from tests.tiny import Patches, build, tiny_vit
from utils.contracts import Batch, Session, StreamInfo
from utils.data.images import Transform
from utils.errors import UsageError

CLASSES, SIZE = 6, 4


def made(depth: int = 6, widths: tuple[int, ...] = (32, 32), **own) -> Lmsrr:
    """In its second session, on weights that have moved since the first, with a full memory of eight images."""
    networks = Several([tiny_vit(k, depth=depth, embed_dim=width) for k, width in enumerate(widths)])
    info = StreamInfo(CLASSES, 2, 64, 16, 32, 0, augment=lambda raw: raw.float() / 255, plain=torch.clone)
    args = LmsrrArgs(**{"buffer_size": 8, "minibatch_size": SIZE, "tau": 1.0} | own)
    model = Lmsrr(networks, info, args)
    model.optimizer = model.configure_optimizer()
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 32, 32), generator=draw).to(torch.uint8)
    model.buffer.add(images, torch.arange(8) % 3, torch.randn(8, CLASSES, generator=draw))
    model.begin_task(Session(1, [], None, 32, again=iter))
    with torch.no_grad():
        for p in model.parameters():
            p += p.requires_grad * 0.02 * torch.randn(p.shape, generator=draw)
    return model.train()


def batch() -> Batch:
    raw = torch.randint(256, (SIZE, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch(raw.float() / 255, torch.tensor([3, 4, 3, 1]), raw, 5)


class Plain:
    """The same step by whole networks: logits, features, old features and the memory's logits, a pass each."""

    def __init__(self, model: Lmsrr):
        self.now, self.before = model.backbone, copy.deepcopy(model.backbone)
        for vit, blocks in zip(self.before.networks, model.old, strict=True):
            vit.blocks[-len(blocks) :].load_state_dict(blocks.state_dict())
        self.model = model

    @staticmethod
    def features(vit, x: Tensor, count: int) -> list[Tensor]:
        tokens, found = embed(vit, x), []
        for block in vit.blocks:
            found.append(tokens := block(tokens))
        return found[-count:]

    def terms(self, given: Batch, positions: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """Logits of the batch and of the memory's images, distances [S, L] and switches [S, L]."""
        model, count = self.model, self.model.args.trainable_blocks
        images, _, _ = (column[positions] for column in model.buffer.columns)
        logits, again = (self.logits(x) for x in (given.x, images.float() / 255))
        distances = []
        for new, old in zip(self.now.networks, self.before.networks, strict=True):
            pairs = zip(self.features(new, given.x, count), self.features(old, given.x, count), strict=True)
            distances += [(a - b.detach()).square().mean() for a, b in pairs]
        noise = -torch.log(-torch.log(u))
        w = torch.sigmoid(((model.selector + noise)[..., 0] - (model.selector + noise)[..., 1]) / model.args.tau)
        return logits, again, torch.stack(distances).view(w.shape), w

    def logits(self, x: Tensor) -> Tensor:
        z = [vit(x) for vit in self.now.networks]
        fusion, kind = self.model.fusion, self.model.args.fusion
        if kind == "none":
            return self.model.head(torch.cat(z, dim=1))
        weights, padded = fusion.fusion_weight.softmax(0), F.pad(torch.stack(z, dim=1), (2, 2))
        fused = torch.zeros_like(z[0])
        for conv, a, width in ((fusion.conv1, weights[0], 3), (fusion.conv2, weights[1], 5)):
            if conv is not None:
                windows = padded[:, :, (5 - width) // 2 :].unfold(2, width, 1)[:, :, : z[0].shape[1]]
                fused = fused + a * (torch.einsum("bsdk,sk->bd", windows, conv.weight[0]) + conv.bias)
        return self.model.head(fused)


@pytest.mark.parametrize(
    "own",
    [
        *({"fusion": kind} for kind in ("both", "3", "5", "none")),
        *({"aro": "sum", "replay": kind} for kind in ("labels", "both")),
        {"trainable_blocks": 2},
        {"trainable_blocks": 6},
    ],
    ids=str,
)
def test_a_step_has_the_numbers_of_four_whole_passes(own):
    model, given, args = made(alpha=0.7, beta=0.4, **own), batch(), LmsrrArgs(**own)
    positions, u = torch.tensor([6, 1, 0, 3]), torch.rand(model.selector.shape)
    model.buffer.draw_positions, model.draw = lambda count: positions[:count], lambda: u
    logits, again, distances, w = Plain(model).terms(given, positions, u)
    _, slots, stored = (column[positions] for column in model.buffer.columns)
    competing, y = logits, given.y
    if args.replay != "logits":
        competing, y = torch.cat((logits, again)), torch.cat((y, slots))
    term = (w * distances).sum() / (w.sum() if args.aro == "mean" else 1)
    expected = F.cross_entropy(competing, y) + 0.7 * term
    if args.replay != "labels":
        expected = expected + 0.4 * (again - stored).square().mean()
    trained = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, trained)
    loss = model.loss(given)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model.latest, logits.detach())
    for ours, theirs in zip(torch.autograd.grad(loss, trained), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_an_update_makes_two_and_a_quarter_passes_of_each_network():
    """Of twelve blocks nine are the trunk: 0.75 + 0.25 + 0.25 of a pass on the batch and 1 on as many stored images.
    Four whole passes are the release's; without old features there are two."""
    model, met = made(depth=12), [0, 0]
    for k, (vit, old) in enumerate(zip(model.backbone.networks, model.old, strict=True)):
        for block in (*vit.blocks, *old):

            def count(module, given, output, k=k):
                met[k] += len(output)

            block.mlp.register_forward_hook(count)
    model.observe(batch())
    assert [images / 12 / SIZE for images in met] == [2.25, 2.25]
    met[:], model.old = [0, 0], []
    model.observe(batch())
    assert [images / 12 / SIZE for images in met] == [2, 2]


def has_tensor(value) -> bool:
    """Whether it is one, or holds one. Modules, of which the model holds only its own, do not count."""
    if isinstance(value, dict):
        value = [*value.values()]
    return any(map(has_tensor, value)) if isinstance(value, list | tuple) else isinstance(value, Tensor)


def test_old_blocks_stay_and_nothing_else_is_copied_or_kept():
    model = made()
    before = [copy.deepcopy(blocks.state_dict()) for blocks in model.old]
    assert [len(blocks) for blocks in model.old] == [3, 3]
    assert not any(p.requires_grad for blocks in model.old for p in blocks.parameters())
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert all(name.startswith("backbone.networks.") for name in frozen) and "backbone.networks.1.norm.bias" in frozen
    model.observe(batch())
    model.end_batch(batch())
    for blocks, state in zip(model.old, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in blocks.state_dict().items())
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in frozen.items())
    parts = [(module, vars(module).items()) for module in model.modules()]
    named = [(name, value) for module, items in parts for name, value in items if not name.startswith("_")]
    assert not [name for name, value in named if name not in ("info", "args", "buffer") and has_tensor(value)]
    assert not any("old" in name for name in model.state_dict())
    model.begin_task(Session(2, [], None, 32, again=iter))
    for blocks, live in zip(model.old, model.last(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(blocks.parameters(), live.parameters(), strict=True))


@pytest.mark.parametrize("aro", ["mean", "sum"])
def test_switches_that_are_all_off_give_numbers(aro):
    model = made(aro=aro, tau=0.1)
    with torch.no_grad():
        model.selector[..., 0] -= 1000
    loss = model.loss(batch())
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_an_image_is_offered_once_with_the_logits_before_the_last_update():
    run = build("lmsrr", {"buffer_size": 100}, n_tasks=2, eval_period=-1, online_iter=2)
    given = Batch(batch().x, batch().y, batch().raw, 5)
    for _ in range(2):
        before = run.model(given.x).detach()
        run.model.observe(given)
    run.model.end_batch(given)
    images, slots, logits = (column[: len(run.model.buffer)] for column in run.model.buffer.columns)
    assert torch.equal(images, given.raw) and torch.equal(slots, given.y)
    torch.testing.assert_close(logits, before)


@pytest.mark.parametrize("scenario", ["class-il", "task-il", "si-blurry"])
def test_a_run_has_old_blocks_from_the_second_session_on(scenario):
    run, begun = build("lmsrr", scenario=scenario, n_tasks=3, eval_period=-1), []
    begin = run.model.begin_task
    run.model.begin_task = lambda session: (begin(session), begun.append(len(run.model.old)))
    run.trainer.train()
    assert begun == [0, 2, 2]
    found = run.model.measures()
    assert sum(found[f"fusion_{name}"] for name in ("3", "5", "unused")) == pytest.approx(1)
    alone = build("lmsrr", {"fusion": "5"}).model.measures()
    assert {name for name in alone if name.startswith("fusion")} == {"fusion_5", "fusion_unused"}
    assert alone["fusion_unused"] == pytest.approx(2 / 3)
    assert all(0 <= found[f"switch_{source}_{block}"] <= 1 for source in range(2) for block in range(3))
    assert len(found) == 9
    kept = run.trainer.state_dict()["model"]
    assert {name.split(".")[4] for name in kept if ".blocks." in name} == {"3", "4", "5"}
    assert not [name for name in kept if name.startswith("backbone.") and ".blocks." not in name]


def test_networks_that_cannot_be_fused_are_refused():
    for widths, said in (((32, 64), "one width and depth"), ((32,), "and one network is not; join them with")):
        with pytest.raises(UsageError, match=said):
            made(widths=widths) if len(widths) > 1 else Lmsrr(tiny_vit(), None, LmsrrArgs())
    with pytest.raises(UsageError, match="--trainable_blocks 7: the network has 6 blocks"):
        made(trainable_blocks=7)


def test_inputs_as_the_networks_were_trained():
    raw, dataset = batch().raw, Patches()
    dataset.mean, dataset.std = (0.1, 0.2, 0.3), (0.2, 0.2, 0.2)
    ours, own = (Transform(dataset, raw.device, 1, 32, inputs) for inputs in ("network", "published"))
    torch.testing.assert_close(ours.test(raw), (raw.float() / 255 - 0.5) / 0.5)
    assert ours.settings() != own.settings() and not torch.equal(ours.test(raw), own.test(raw))
    run = build("lmsrr", inputs="network", n_tasks=2)
    torch.testing.assert_close(run.info.plain(raw), (raw.float() / 255 - 0.5) / 0.5)
