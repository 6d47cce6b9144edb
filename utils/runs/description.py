"""`learner.json`: what a run's learner takes and gives beside its settings: shape of its inputs, classes, stream."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.errors import UsageError, reason
from utils.files.text import parse_json, read_text
from utils.runs.fields import LONGEST_TEXT, require

FILE = "learner.json"
FORMAT = 1  # raised by a change after which older versions cannot read it
MOST = 2**26  # bytes of the file up to which it is read
MOST_CLASSES, LARGEST_SIDE = 10**6, 10_000
FITS = ("squash", "crop")


@dataclass(frozen=True, kw_only=True)
class Description:
    """Every key of the file.

    names: of the classes by label, None where only labels are known. labels: of the classes met, by slot. channels:
    that the network was built for. side: of its input in pixels, None for numbers; held: at which images are held.
    fit: how images of any shape become squares. num_inputs: numbers of a sample, None for images. device: cpu or cuda.
    The others are those of the run's stream.
    """

    names: list[str] | None
    labels: list[int]
    channels: int
    side: int | None
    held: int | None
    fit: str
    num_inputs: int | None
    mean: list[float]
    std: list[float]
    num_classes: int
    num_outputs: int
    num_tasks: int
    num_images: int
    num_batches: int
    batches_per_update: int = 1
    num_domains: int = 1
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample, as `backbone.build` is told it."""
        if self.side is None:
            return (self.num_inputs or 1,)
        return (self.channels, self.side, self.side)

    def name(self, label: int) -> str:
        """Of a class; its number where nobody named it."""
        return str(label) if self.names is None else self.names[label]

    def as_json(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self), indent=1) + "\n"


def read_description(folder: Path) -> Description | None:
    """Of a run folder; None where an older version left none. Raises UsageError for what is none."""
    file = folder / FILE
    if not os.path.lexists(file):
        return None
    try:
        content = parse_json(read_text(file, MOST))
        require(content, ["format"])
        if content["format"] != FORMAT:
            raise UsageError(
                f"{file}: has format {content['format']!r:.20}, this version reads {FORMAT}; use the version that made "
                "the run"
            )
        require(content, [one.name for one in fields(Description)])
        found = Description(**{one.name: content[one.name] for one in fields(Description)})
        _check(found)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or reason(error)}; make it readable") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is damaged: {reason(error)}; repeat the run") from None
    return found


def _check(found: Description) -> None:
    """Raises ValueError for a value that no run has."""
    counts = {"num_classes": MOST_CLASSES, "num_outputs": MOST_CLASSES, "num_tasks": MOST_CLASSES}
    counts |= {"num_domains": 10_000, "batches_per_update": MOST_CLASSES, "num_images": 2**53, "num_batches": 2**53}
    for name, most in counts.items():
        _whole(getattr(found, name), 0 if name == "num_batches" else 1, most, name)
    if found.num_classes * found.num_domains > 10 * MOST_CLASSES:
        raise ValueError("it names more classes and domains than any stream has")
    for name, most in (("side", LARGEST_SIDE), ("held", LARGEST_SIDE), ("num_inputs", 10**7)):
        if getattr(found, name) is not None:
            _whole(getattr(found, name), 1, most, name)
    if (found.side is None) == (found.num_inputs is None) or (found.side is None) != (found.held is None):
        raise ValueError("side, held and num_inputs do not belong together")
    if found.device not in ("cpu", "cuda"):
        raise ValueError(f"device is {found.device!r:.20}, neither cpu nor cuda")
    if found.channels not in (1, 3) or found.fit not in FITS:
        raise ValueError(f"channels is {found.channels!r:.20} and fit {found.fit!r:.20}, which no run has")
    for name in ("mean", "std"):
        values = getattr(found, name)
        if not isinstance(values, list) or len(values) != 3 or not all(_is_number(value) for value in values):
            raise ValueError(f"{name} is {values!r:.40}, not three numbers")
    if not all(value > 0 for value in found.std):
        raise ValueError("a std is not above zero")
    labels, names = found.labels, found.names
    if not isinstance(labels, list) or len(labels) > found.num_outputs:
        raise ValueError("labels is no list, or has more entries than the classifier has columns")
    for label in labels:
        _whole(label, 0, found.num_classes - 1, "a label")
    if len({*labels}) < len(labels):
        raise ValueError("a label stands there twice")
    if names is not None:
        if not isinstance(names, list) or len(names) != found.num_classes:
            raise ValueError("names is no list of as many entries as there are classes")
        if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_TEXT for name in names):
            raise ValueError(f"a name is no text of at most {LONGEST_TEXT:,} characters")
        if len({*names}) < len(names):
            raise ValueError("a name stands there twice")


def _whole(value: Any, low: int, high: int, name: str) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r:.40}, no whole number in {low:,} ... {high:,}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6
