"""The order in which a dataset arrives, from its labels and one seed. A scenario (`--scenario si-blurry`) is one file.

The file bears its name, and holds one subclass of `Stream` that is no base of others.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from utils.args import RunArgs
from utils.contracts import Images
from utils.errors import UsageError
from utils.plan import Plan
from utils.streams.base import Split, Stream


def make_stream(options: RunArgs, own: dict[str, Any] | Split, targets: Tensor, num_classes: int) -> Stream:
    """The stream of a run. options: with scenario and stream seed set. own: as `own_options` gives it. targets: raw
    labels of the training part [N]. Raises UsageError for settings that have no stream.
    """
    if not len(targets):
        raise UsageError(f"--dataset {options.dataset}: its training part holds no image")
    module = importlib.import_module(f"utils.streams.{str(options.scenario).replace('-', '_')}")
    (kind,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stream) and value.__module__ == module.__name__
    )
    stream = kind.of(options, own, targets, num_classes)
    if not stream.num_images():
        raise UsageError(f"--dataset {options.dataset}: no image of the classes and tasks that come")
    return stream


def own_options(plan: Plan, dataset: Images, class_order: list[int] | None = None) -> dict[str, Any] | Split:
    """What the stream of a plan is told beside the options of the run. class_order: labels, None: at random,
    or as the tasks of the dataset say it."""
    if plan.tasks is None:
        return plan.method.stream_options(plan.method_args)
    tasks = plan.tasks
    return Split(tasks.classes, tasks.coming(plan.run.n_tasks), class_order, dataset.tasks, tasks.n_iter)
