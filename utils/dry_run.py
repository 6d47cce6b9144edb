"""What a run would do, without its data and weights: `main.py ... --dry_run`.

The network and the method are built on the meta device, which has shapes and no numbers.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from utils.contracts import StreamInfo
from utils.errors import UsageError, reason
from utils.plan import Plan
from utils.streams import make_stream

TRAINING = 3  # a training pass is taken for three forward passes, the backward pass being two


def describe(
    plan: Plan, dataset, size: int, build: Callable[[StreamInfo], nn.Module], weights: str, stages: list
) -> str:
    """The plan of a run in lines of text.

    build: makes the method on the meta device. weights: where they are. stages: that the run needs.
    """
    options = plan.run.args
    info = expected_stream(plan, dataset, dataset.counts, size)
    images, tests = info.num_images, int(options.validation * dataset.counts[0]) or dataset.counts[1]
    streamed = options.scenario in ("si-blurry", "class-il", "domain-il")
    model = build(info).eval()
    forward = flops(model, size)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    lines = [
        f"{model.label()} on {options.dataset}, seed{'s' * (len(plan.seeds()) > 1)} {' '.join(map(str, plan.seeds()))}",
        f"  data      {images:,} training and {tests:,} test images, {dataset.num_classes} classes, {size} x {size} px",
        f"  stream    {options.scenario}, {options.n_tasks} tasks"
        + (f", n = {options.n}, m = {options.m}" if options.scenario == "si-blurry" else "")
        + f", batches of {options.batch_size}, {options.online_iter} updates each",
        f"  network   {options.backbone}, {total:,} parameters, {trainable:,} of them trained",
        f"  weights   {weights}",
    ]
    for stage in stages:
        state = "there" if stage.output.exists() else "to be made"
        lines.append(f"  stage     {stage.model} on {stage.dataset} ({state})")
    if forward is not None:
        cost = f"  cost      {forward / 1e9:.2f} GFLOP per test image"
        if streamed:
            evaluations = options.n_tasks + (images // options.eval_period if options.eval_period > 0 else 0)
            training = TRAINING * forward * images * options.n_epochs * options.online_iter
            # Classes appear evenly, so that an evaluation sees half of the test images on average.
            testing = forward * evaluations * tests / 2
            cost += f"; a run about {training / 1e12:,.1f} TFLOP of training"
            cost += f" and {testing / 1e12:,.1f} in {evaluations} evaluations"
        lines.append(cost)
    return "\n".join(lines)


def expected_stream(plan: Plan, dataset, counts: tuple[int, int], size: int) -> StreamInfo:
    """What a method will be told of its stream, by the number of images. counts: of the two parts of the dataset.

    Raises UsageError for settings that have no stream.
    """
    options, domains = plan.with_seed(plan.seeds()[0]).run.args, plan.run.args.n_tasks if dataset.max_domains else 1
    held_out = int(options.validation * counts[0])
    images = (counts[0] - held_out) * domains
    labels = torch.arange(images) % (domains * dataset.num_classes)
    make_stream(options, plan.method.stream_options(plan.args.args), labels, dataset.num_classes)
    return StreamInfo(
        num_classes=dataset.num_classes,
        num_tasks=options.n_tasks,
        num_images=images,
        num_updates=images * options.n_epochs // options.batch_size * options.online_iter,
        image_size=size,
        seed=0,
        augment=_nothing,
        plain=_nothing,
    )


@contextlib.contextmanager
def sizes_that_fit() -> Iterator[None]:
    """Says of sizes that torch cannot even count that they are too large."""
    try:
        yield
    except (RuntimeError, OverflowError) as error:
        raise UsageError(f"these options make tensors that no memory holds ({reason(error)})") from error


def flops(model, size: int) -> int | None:
    """Floating-point operations of one test image; None for a stage that classifies nothing."""
    if not model.evaluated:
        return None
    with sizes_that_fit(), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops()


def without_products(plan: Plan, stages) -> Plan:
    """The plan whose options name no product of these stages, so that nothing is loaded, and no folder to fill."""
    resolved = copy.deepcopy(plan.args)
    products = [str(place) for stage in stages for place in (stage.output, stage.output.parent)]
    for args in (resolved.args, getattr(resolved.args, "host_args", None)):
        for field in dataclasses.fields(args) if args is not None else ():
            if getattr(args, field.name) in products:
                setattr(args, field.name, "none")
            elif field.name == "save_to":
                args.save_to = None
    return dataclasses.replace(plan, args=resolved)


def _nothing(images):
    return images
