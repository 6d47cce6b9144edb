"""A run without its data and weights: the method on the meta device, which has shapes and no numbers, and what its
stream will be. It refuses what the method itself would refuse.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import backbone as backbones
from backbone.products import Stage, input_shape
from backbone.small import Shape
from utils.contracts import Images, Learner, StreamInfo
from utils.errors import UsageError, reason
from utils.plan import Plan
from utils.streams import make_stream, own_options


def check_sizes(
    plan: Plan,
    dataset: Images,
    counts: tuple[int, int],
    size: int | None,
    weights: Sequence[Path | None],
    missing: Sequence[Stage],
) -> None:
    """Raises UsageError if the options have no stream, if the method refuses them, or if the weights do not fit.

    counts: images of the two parts. size: pixels, None for numbers. weights: files of the network that are there.
    missing: stages whose products are not.
    """
    info = expected_stream(plan, dataset, counts, size)
    sketch(without_products(plan, missing), info, input_shape(dataset, size), weights)


def sketch(plan: Plan, info: StreamInfo, shape: Shape, weights: Sequence[Path | None] = (None,)) -> Learner:
    """The method on the meta device. shape: of a sample. weights: files that are to fit the network, as far as they are
    there."""
    with torch.device("meta"), warnings.catch_warnings(), sizes_that_fit():
        warnings.simplefilter("ignore")  # weights that are loaded into it go nowhere
        network = backbones.build(plan.run.backbone, shape).requires_grad_(False)
        backbones.fill(network, weights)
        return plan.method(network, info, plan.method_args)


def expected_stream(plan: Plan, dataset: Images, counts: tuple[int, int], size: int | None) -> StreamInfo:
    """What a method will be told of its stream, by the number of images. counts: of the two parts of the dataset.

    Raises UsageError for settings that have no stream.
    """
    options = plan.with_seed(plan.seeds()[0]).run
    domains = options.n_tasks if dataset.max_domains else 1
    images = counts[0] - int(options.validation * counts[0])
    if dataset.tasks is None:
        images *= domains  # all under each transform
    else:
        images = max(images, domains * dataset.num_classes)  # so that no task seems empty
    labels = torch.arange(images) % (domains * dataset.num_classes)
    stream = make_stream(options, own_options(plan, dataset), labels, dataset.num_classes)
    images = stream.num_images()
    return StreamInfo(
        num_classes=stream.num_outputs,
        num_tasks=stream.num_tasks,
        num_images=images,
        num_updates=images * options.n_epochs // options.batch_size * options.online_iter,
        image_size=size,
        seed=0,
        augment=_nothing,
        plain=_nothing,
        num_targets=dataset.num_targets,
        num_slots=dataset.num_slots,
    )


@contextlib.contextmanager
def sizes_that_fit() -> Iterator[None]:
    """Says of sizes that torch cannot even count that they are too large."""
    try:
        yield
    except (RuntimeError, OverflowError) as error:
        raise UsageError(f"these options make tensors that no memory holds ({reason(error)})") from error


def without_products(plan: Plan, stages: Sequence[Stage]) -> Plan:
    """The plan whose options name no product of these stages, so that nothing is loaded, and no folder to fill."""
    options = copy.deepcopy(plan.method_args)
    products = [str(place) for stage in stages for place in (stage.output, stage.output.parent)]
    for args in (options, getattr(options, "host_args", None)):
        for field in dataclasses.fields(args) if args is not None else ():
            if getattr(args, field.name) in products:
                setattr(args, field.name, "none")
            elif field.name == "save_to":
                setattr(args, field.name, None)
    return dataclasses.replace(plan, method_args=options)


def _nothing(images: torch.Tensor) -> torch.Tensor:
    return images
