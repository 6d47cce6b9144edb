"""What every method costs, counted instead of timed: passes of the network, FLOPs, calls of Python, waits for a GPU.

COSTS pins it. A change that makes a row cheaper is welcome and lowers the row. One that makes a row dearer fails here,
and has to say in its message what the method gets for it.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import backbone as backbones
from tests.tiny import CASES, NEEDED, Patches, Run, needs_cuda, tiny_vit
from utils.registry import METHODS
from utils.streams.base import Draw

SIZE = 8  # images of a training batch, which gives one update
SLACK = 1.25  # of calls, which differ a little between versions of Python and torch; housekeeping that doubles does not

# A method: (training passes, training FLOPs, passes of a first evaluation, of a later one, FLOPs of that, calls).
#
# Passes are images that went through the network per image that was learnt from, or is tested. FLOPs are in units of
# one forward pass of this network, so that they do not depend on its size: a pass costs less than 1, since the last
# block computes the class token alone, more with prompts, and a backward pass up to twice as much, down to the lowest
# block that learns something. Calls are those of one training batch with its update, of functions of Python and C.
#
# What a method needs: a prompt method (l2p ... singleprompt) one query and one prompted pass per update; singleprompt
# has no query; flyprompt has its query once per batch, for the router. An evaluation needs one prompted pass, the first
# one the queries too, which are kept from then on. MePo adds no pass to its host's. Replay (er, er_ace, der, derpp)
# learns from 8 new images and 32 stored ones, derpp from 32 more for its logits; fdr and icarl from none before their
# first task is over. Where the network is frozen and has no prompts (er ... icarl, ncm, oml; ranpac after its first
# session) the first evaluation keeps features, and later ones need no pass. ranpac has one pass to train its adapters
# and one for its sums. bcl and ftml make several inner and outer steps per batch, joint-X two updates of X on stored
# images. lmsrr trains the upper half of two networks, on new images and as many stored ones. posterior_replay, vcl and
# ewc_posterior train an MLP, whose forward pass is their unit; all draws of its weights (two in training, three in
# evaluation) are one pass here, with the FLOPs of each.
COSTS: dict[str, tuple[float, float, float, float, float, int]] = {
    "agem": (1, 2.56, 1, 1, 0.88, 1700),
    "bcl": (2.5, 6.40, 1, 1, 0.88, 13400),
    "coda": (2, 3.03, 2, 1, 1.10, 3400),
    "der": (5, 4.38, 1, 0, 0.00, 1600),
    "derpp": (9, 7.89, 1, 0, 0.00, 1700),
    "dualprompt": (2, 2.88, 2, 1, 1.00, 2900),
    "er": (5, 4.38, 1, 0, 0.00, 1500),
    "er_ace": (5, 4.38, 1, 0, 0.00, 1500),
    "er_ring": (1, 2.56, 1, 1, 0.88, 1700),
    "ewc": (1, 2.56, 1, 1, 0.88, 3800),
    "ewc_posterior": (1, 2.01, 1, 1, 3.01, 900),
    "fdr": (1, 0.88, 1, 0, 0.00, 1400),
    "finetune": (1, 2.56, 1, 1, 0.88, 3400),
    "flyprompt": (2, 2.84, 2, 1, 0.99, 3100),
    "ftml": (4, 10.25, 1, 1, 0.88, 15200),
    "gem": (1, 2.56, 1, 1, 0.88, 1700),
    "icarl": (1, 0.88, 1, 0, 0.00, 3600),
    "l2p": (2, 6.19, 2, 1, 2.51, 2600),
    "lmsrr": (2, 6.25, 1, 1, 1.75, 5300),
    "lwf": (1, 2.56, 1, 1, 0.88, 1700),
    "misa": (2, 2.91, 2, 1, 1.01, 2900),
    "mvp": (2, 2.58, 2, 1, 0.95, 2800),
    "ncm": (1, 0.88, 1, 0, 0.00, 1300),
    "oml": (1, 0.92, 1, 0, 0.00, 11000),
    "posterior_replay": (1, 11.56, 1, 1, 8.03, 1200),
    "ranpac": (2, 3.39, 1, 0, 0.00, 4400),
    "si": (1, 2.56, 1, 1, 0.88, 4300),
    "singleprompt": (1, 1.92, 1, 1, 0.95, 1600),
    "slca": (1, 2.56, 1, 1, 0.88, 1800),
    "srnn": (1, 2.56, 1, 1, 0.88, 3500),
    "supervised": (1, 2.56, 1, 1, 0.88, 3500),
    "vcl": (1, 4.02, 1, 1, 3.01, 900),
    "mepo-misa": (2, 2.92, 2, 1, 1.01, 3000),
    "mepo-dualprompt": (2, 2.89, 2, 1, 1.00, 3000),
    "mepo-l2p": (2, 6.20, 2, 1, 2.51, 2700),
    "mepo-coda": (2, 3.04, 2, 1, 1.11, 3500),
    "mepo-mvp": (2, 2.59, 2, 1, 0.95, 3000),
    "mepo-flyprompt": (2, 2.85, 2, 1, 0.99, 3200),
    "mepo-singleprompt": (1, 1.93, 1, 1, 0.95, 1700),
    "joint-finetune": (2, 5.12, 1, 1, 0.88, 7000),
    "joint-coda": (4, 6.06, 2, 1, 1.10, 6900),
}

LEARNERS = [case for case in CASES if METHODS.load(case[0]).evaluated]  # the others are stages and predict nothing
EVERY_LEARNER = pytest.mark.parametrize("case", LEARNERS, ids=lambda case: name_of(case))


def name_of(case: tuple[str, str | None]) -> str:
    return "-".join(filter(None, case))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """One test image per class, one batch."""
    monkeypatch.setattr(Patches, "per_class", {True: 16, False: 1})


def begun(start: Callable[..., Run], **options) -> tuple[Run, Draw]:
    """A run in its first task, which has learnt from one batch of it, and that batch."""
    run = start(batch_size=SIZE, **options)
    run.model.train()
    run.trainer._tell("begin_task")
    batch = Draw(run.trainer.stream.rows(0)[:SIZE])
    run.trainer._step(batch)
    return run, batch


def counted(run: Run, work: Callable[[], object], images: int) -> tuple[float, float]:
    """Passes and FLOPs per image of a piece of work: by two blocks of each ViT, since a query may leave out the last,
    and with attention as the products that it is, which fused kernels would hide."""
    met: list[int] = []
    network = run.model.backbone
    vits = backbones.vits(network)
    watched = [vit.blocks[k].mlp for vit in vits for k in (0, -2)] or [network]
    hooks = [part.register_forward_hook(lambda _, inputs, output: met.append(len(output))) for part in watched]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    for hook in hooks:
        hook.remove()
    return sum(met) / len(watched) / images, counter.get_total_flops() / images


@functools.cache
def forward_pass(mlp: str | None) -> float:
    """FLOPs of one image through the network of these tests, or this MLP."""
    network = backbones.build(mlp, (3, 32, 32)) if mlp else tiny_vit()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()


def calls_of(work: Callable[[], object]) -> int:
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def costs(start: Callable[..., Run], mlp: str | None = None) -> tuple[float, float, float, float, float, int]:
    run, batch = begun(start)
    trainer = run.trainer
    calls = calls_of(lambda: trainer._step(batch))
    plain = forward_pass(mlp)
    passes, flops = counted(run, lambda: trainer._step(batch), SIZE)
    known = torch.arange(trainer.stream.num_domains * trainer.stream.num_classes)
    if run.model.tells_tasks_apart:  # a task to come has no model
        known = torch.tensor(trainer.stream.task_classes(0))
    trainer.seen.add(known)
    trainer._tell("end_task")
    run.model.requires_grad_(False)  # the counter stumbles over views of weights that train
    images = int((trainer.seen.slots(trainer.evaluator.images.labels) >= 0).sum())
    (first, _), (later, tested) = (
        counted(run, lambda: trainer.evaluator(run.model, trainer.seen), images) for _ in range(2)
    )
    return passes, flops / plain, first, later, tested / plain, calls


@EVERY_LEARNER
def test_costs(case, start):
    found = costs(start, NEEDED.get(case[0], {}).get("backbone"))
    passes, flops, first, later, tested, calls = COSTS[name_of(case)]
    assert (found[0], found[2], found[3]) == (passes, first, later)
    assert (found[1], found[4]) == (pytest.approx(flops, abs=0.03), pytest.approx(tested, abs=0.03))
    assert found[5] <= SLACK * calls


def test_every_method_has_a_row():
    assert [*COSTS] == [name_of(case) for case in LEARNERS]


@needs_cuda
@EVERY_LEARNER
def test_a_batch_never_waits_for_the_gpu(case, start):
    """A single wait in a step empties the queue that keeps the GPU busy."""
    run, batch = begun(start, device="cuda")
    run.trainer._step(batch)
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode says that it is new
        torch.cuda.set_sync_debug_mode("error")
    try:
        run.trainer._step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
