"""The order in which a dataset arrives, from its labels and one seed. A scenario (`--scenario si-blurry`) is one file.

The file bears its name, and holds one subclass of `Stream` that is no base of others.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from utils.args import RunArgs
from utils.errors import UsageError
from utils.streams.base import Stream


def make_stream(
    options: RunArgs,
    own: dict[str, Any],
    targets: Tensor,
    num_classes: int,
    class_order: list[int] | None = None,
) -> Stream:
    """The stream of a run. options: with scenario and stream seed set. own: the method's stream options. targets: raw
    labels of the training part [N]. class_order: in which a class-incremental stream brings the classes; None: at
    random. Raises UsageError for settings that have no stream.
    """
    if not len(targets):
        raise UsageError(f"--dataset {options.dataset}: its training part holds no image")
    module = importlib.import_module(f"utils.streams.{str(options.scenario).replace('-', '_')}")
    (kind,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stream) and value.__module__ == module.__name__
    )
    if class_order is not None:
        own = own | {"class_order": class_order}
    return kind.of(options, own, targets, num_classes)
