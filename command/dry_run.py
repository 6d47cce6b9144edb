"""What a run would do, by its options alone (`--dry_run`). Weights and the products of stages may be missing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

import backbone as backbones
from backbone.products import Stage, input_shape, open_dataset, stages_of
from backbone.small import Shape
from command.sketch import expected_stream, sizes_that_fit, sketch, without_products
from utils.args import option_metadata
from utils.contracts import Images, Learner
from utils.errors import UsageError
from utils.plan import Plan
from utils.runs.identity import NOTHING

TRAINING = 3  # a training pass is taken for three forward passes, the backward pass being two


def dry_run(plan: Plan) -> str:
    """The plan in lines of text. Raises UsageError for what cannot be known without the data."""
    options = plan.run
    dataset, places = open_dataset(plan)
    dataset.inspect(places)
    if dataset.counts is None:
        raise UsageError(
            f"--dry_run: {options.dataset} does not say how many images it has (`counts` of datasets/base.py)"
        )
    weights, is_missing = [], False
    for part in backbones.parts(options.backbone, options.backbone_path):
        try:
            (file,) = backbones.weights_files(*part, options.checkpoint_dir)
            weights.append("none, it begins untrained" if file is None else str(file))
        except UsageError as error:
            weights.append(f"missing; {error}")
            is_missing = True
    if is_missing:
        plan = replace(plan, run=replace(options, backbone_path=backbones.RANDOM))
    weights += named_products(plan)
    stages = stages_of(plan)
    return describe(without_products(plan, stages), dataset, dataset.counts, places.size, weights, stages)


def named_products(plan: Plan) -> list[str]:
    """What options name beside the network's own weights, as `--rln` and `--meta_path` do."""
    return [
        f"--{name} {getattr(args, name)}"
        for part, args in plan.parts().items()
        for name, told in option_metadata(type(args)).items()
        if part in ("method", "host") and told["reads"] is not None and getattr(args, name) not in NOTHING
    ]


def describe(
    plan: Plan, dataset: Images, counts: tuple[int, int], size: int | None, weights: list[str], stages: list[Stage]
) -> str:
    """counts: images of the two parts. size: pixels, None for numbers. weights: where those of each network are, and
    what else is read. stages: that the run needs."""
    options = plan.run
    info = expected_stream(plan, dataset, counts, size)
    held_out = int(options.validation * counts[0])
    images, tests = info.num_images, held_out or counts[1]
    come, num_batches = counts[0] - held_out, None
    if plan.tasks is not None:
        once, num_batches = replace(plan, tasks=replace(plan.tasks, n_iter=None)), plan.tasks.n_iter
        come = expected_stream(once, dataset, counts, size).num_images
    streamed = options.scenario in ("si-blurry", "class-il", "task-il", "domain-il")
    model = sketch(plan, info, input_shape(dataset, size)).eval()
    shape = input_shape(dataset, size)
    each = f"{shape[0]} numbers" if size is None else f"{size} x {size} px"
    what = "samples" if size is None else "images"
    forward = flops(model, shape if size is None else (3, size, size))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    lines = [
        f"{model.label()} on {options.dataset}, seed{'s' * (len(plan.seeds()) > 1)} {' '.join(map(str, plan.seeds()))}",
        f"  data      {come:,} training and {tests:,} test {what}, {info.num_classes} classes, {each}",
        f"  stream    {options.scenario}, {info.num_tasks} tasks"
        + (f" of {options.n_tasks}" if info.num_tasks < options.n_tasks and plan.tasks is not None else "")
        + (f", n = {options.n}, m = {options.m}" if options.scenario == "si-blurry" else "")
        + f", batches of {options.batch_size}, {options.online_iter} updates each"
        + (f", {num_batches:,} batches of each task" if num_batches else ""),
        f"  network   {options.backbone}, {total:,} parameters, {trainable:,} of them trained",
        *(f"  {'' if k else 'weights':9} {place}" for k, place in enumerate(weights)),
    ]
    for stage in stages:
        state = "there" if stage.output.exists() else "to be made"
        lines.append(f"  stage     {stage.model} on {stage.dataset} ({state})")
    if forward is not None:
        cost = f"  cost      {forward / 1e9:.2f} GFLOP per test {what[:-1]}"
        if streamed:
            evaluations = info.num_tasks + (images // options.eval_period if options.eval_period > 0 else 0)
            training = TRAINING * forward * images * options.n_epochs * options.online_iter
            # Classes or domains appear evenly, so that an evaluation sees half of the test images on average.
            domains = info.num_tasks if dataset.max_domains and dataset.tasks is None else 1
            testing = forward * evaluations * tests * domains / 2
            cost += f"; a run about {training / 1e12:,.1f} TFLOP of training"
            cost += f" and {testing / 1e12:,.1f} in {evaluations} evaluations"
        lines.append(cost)
    elif model.tells_tasks_apart:
        lines.append("  cost      not counted: each task has a model, which is not there before it")
    return "\n".join(lines)


def flops(model: Learner, shape: Shape) -> int | None:
    """Floating-point operations of one test sample as it comes; None for a stage that classifies nothing, and for a
    method whose tasks each have a model, which is not there before they come."""
    if not model.evaluated or model.tells_tasks_apart:
        return None
    with sizes_that_fit(), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops()
