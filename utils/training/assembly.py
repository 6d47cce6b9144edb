"""A run put together from what it is handed: a plan, a dataset, a network, images, a stream."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from utils import device as devices
from utils.args import TaskArgs
from utils.classes import SeenClasses
from utils.contracts import Images, Places, Restored, StreamInfo
from utils.data.images import ImageSet, Transform, image_set
from utils.data.splits import hold_out
from utils.errors import UsageError
from utils.plan import Plan
from utils.streams.base import Stream, TaskList
from utils.training.evaluation import Evaluator
from utils.training.loop import Trainer

ENOUGH = 10  # anytime evaluations


def read_images(plan: Plan, dataset: Images, places: Places, device: torch.device) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and those to evaluate on: the test part, or what `--validation` holds out. None for a
    method that is not evaluated."""
    share = plan.run.validation
    train_part = dataset.load(places, train=True)
    rows, held = hold_out(train_part[1], share) if share > 0 else (None, None)
    training = image_set(dataset, plan.run, train_part, device, rows)
    if not plan.method.evaluated:
        return training, None
    test_part = dataset.load(places, train=False) if held is None else train_part
    return training, image_set(dataset, plan.run, test_part, device, held)


def assemble(
    plan: Plan,
    dataset: Images,
    network: nn.Module,
    images: tuple[ImageSet, ImageSet | None],
    stream: Stream,
    image_size: int | None,
    restored: bool = False,
    kept: Path | None = None,
) -> Trainer:
    """A trainer that has not begun. The method draws its weights from torch's generator as it stands; then that is
    seeded for training.

    network: the backbone. images: as `read_images` gives them. image_size: side in pixels of the network's input,
    None for numbers. restored: the weights of a run will be put in. kept: folder of the features of images that runs
    share, None: this one does not. Raises UsageError if there is no image to evaluate on, or for options that the
    method refuses.
    """
    options, (training, test) = plan.run, images
    tasks = plan.tasks or TaskArgs()
    transform = Transform(dataset, training.device, options.train_seed, image_size, tasks.inputs)
    evaluator = on_training = None
    if test is not None:
        slots = final_slots(stream, training.labels) if tasks.eval_ahead else None
        how_measured = options.eval_batch_size, options.eval_mask, stream, slots
        evaluator = Evaluator(test, transform, *how_measured, kept, options.precision)
        met = training.labels[torch.cat(stream.tasks)] if isinstance(stream, TaskList) else training.labels
        evaluator.check(met)
        if tasks.eval_train:
            # Only then does its accuracy need the tasks.
            told = stream if stream.announces or plan.method.tells_tasks_apart else None
            how_measured = options.eval_batch_size, options.eval_mask, told, None
            on_training = Evaluator(training, transform, *how_measured, kept, options.precision)
    info = (Restored if restored else StreamInfo)(
        num_classes=stream.num_outputs,
        num_tasks=stream.num_tasks,
        num_images=stream.num_images(),
        num_updates=stream.num_batches() // stream.batches_per_update * options.online_iter,
        image_size=image_size,
        seed=options.train_seed,
        augment=transform.train,
        plain=transform.test,
        images=_gone if restored else training.raw,
        num_targets=None if training.targets is None else training.targets.shape[1],
        num_slots=dataset.num_slots,
    )
    model = plan.method(network, info, plan.method_args).to(training.device)
    model.optimizer = model.configure_optimizer()
    model.autocast = devices.autocast(training.device, options.precision)
    torch.manual_seed(options.train_seed)
    periods = options.online_iter, options.eval_period
    how = options.on_nan == "skip", tasks.eval_passes == "all", tasks.eval_ahead
    return Trainer(model, stream, training, transform, evaluator, *periods, *how, on_training=on_training)


def _gone(indices: Tensor) -> Tensor:
    raise UsageError("this method trains on the images of its stream again, which the folder of a run does not hold")


def final_slots(stream: Stream, labels: Tensor) -> Tensor:
    """Slots of all raw labels as they will have been met at the end of a stream, -1 for those that never come. labels:
    of the training part [N]."""
    seen = SeenClasses(stream.num_classes, stream.known_classes, stream.num_domains)
    for task in range(stream.num_tasks):
        if stream.announces:
            seen.add(torch.tensor(stream.task_classes(task)))
        for draw in stream.batches(task, 0):
            seen.add(labels[draw.indices])
    return seen.slots(torch.arange(stream.num_domains * stream.num_classes))


def with_fitting_period(plan: Plan, stream: Stream, num_images: int) -> Plan:
    """The plan with a shorter --eval_period, which it says, where the stream is too short for the one that it has.

    num_images: of the training part.
    """
    options = plan.run
    if plan.origins["run"].get("eval_period") == "command line":
        return plan
    period = fitting_period(stream, num_images, options.eval_period)
    if period == options.eval_period:
        return plan
    print(
        f"--eval_period {period} instead of {options.eval_period}: the stream has only {stream.num_images()} images",
        file=sys.stderr,
    )
    return plan.with_option("eval_period", period, f"{options.dataset}: a tenth of the stream")


def fitting_period(stream: Stream, num_images: int, period: int) -> int:
    """A period of anytime evaluations, shorter than `period` where the stream is shorter than ten of these.

    A tenth of the `num_images` of the training part, every pass counted, and less where the last batches of tasks are
    so short that it would not evaluate ten times; with fewer than ten batches, as often as possible.
    """
    length = stream.num_images() * stream.num_epochs
    if period < 0 or length >= ENOUGH * period or _evaluations(stream, period) >= ENOUGH:
        return period
    tried = [max(1, max(num_images * stream.num_epochs, length) // ENOUGH)]
    counts = [_evaluations(stream, tried[0])]
    while counts[-1] < ENOUGH and tried[-1] > 1:
        tried.append(tried[-1] * 3 // 4)
        counts.append(_evaluations(stream, tried[-1]))
    return tried[counts.index(max(counts))]


def _evaluations(stream: Stream, period: int) -> int:
    """How many anytime evaluations a run has, by the rule of the loop."""
    met = done = 0
    for task in range(stream.num_tasks):
        for epoch in range(stream.num_epochs):
            for draw in stream.batches(task, epoch):
                met += len(draw.indices)
                done += met + len(draw.indices) > (done + 1) * period
    return done
