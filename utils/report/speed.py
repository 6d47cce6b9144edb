"""What the benchmark found: its file, its tables, and two of them beside each other."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import UsageError, printable, reason
from utils.files.atomic import written_whole
from utils.files.text import parse_json, read_text
from utils.report.markup import markdown_table

FORMAT = 1  # of the file; raised by a change after which older ones cannot be read
MOST = 2**26  # bytes of a file that is read
NONE = "–"
SHOWN = ("cpu", "cores", "threads", "gpu", "system", "commit", "python", "torch", "timm")  # of the machine

DRAW, TRANSFORM, QUERY, FORWARD = "draw", "transform", "query", "prompted forward"
BACKWARD, OPTIMISER, OTHER = "backward", "optimiser", "other"
BATCH, FIRST, LATER = "training batch", "evaluation, first", "evaluation, later"
DECODE, CHECKPOINT = "decode", "checkpoint"
PARTS = (DRAW, TRANSFORM, QUERY, FORWARD, BACKWARD, OPTIMISER, OTHER)  # of a training batch
PHASES = (DECODE, *PARTS, BATCH, FIRST, LATER, CHECKPOINT)  # as they stand in a table
NEEDED = (DECODE, BATCH, FIRST, LATER, CHECKPOINT)
WRITTEN = {BATCH: "train", LATER: "test"}  # phases that have the unit: their FLOPs in `Case.as_written`


@dataclass(frozen=True)
class Repeat:
    """limit: FLOP/s of matrix products just before, by precision, of large squares and of the network's own layers.
    seconds: by phase, per image, of a checkpoint as a whole. peak_memory_mb: of batch and evaluations, MiB."""

    limit: dict[str, dict[str, float]]
    seconds: dict[str, float]
    peak_memory_mb: float | None

    def rate(self, precision: str) -> float:
        """FLOP/s that are taken for the limit: the faster of both products."""
        return max(self.limit[precision].values())


@dataclass(frozen=True)
class Case:
    """One method on one network. size: pixels. flops: per image by phase. as_written: FLOPs per image of all updates
    ("train") and of an evaluation ("test") of the method as its authors wrote it, None where that is not known."""

    method: str
    backbone: str
    size: int
    precision: str
    device: str
    batch_size: int
    updates: int
    flops: dict[str, float]
    as_written: dict[str, float] | None
    repeats: list[Repeat]

    def key(self) -> tuple[str | int, ...]:
        """What two files must agree on to be compared."""
        return (self.method, self.backbone, self.size, self.precision, self.device, self.batch_size, self.updates)

    def title(self) -> str:
        return f"{self.method} on {self.backbone}, {self.size} px, {self.precision}, {self.device}, " + (
            f"batches of {self.batch_size}, {self.updates} updates each"
        )

    def seconds(self, phase: str) -> list[float]:
        """Of every repeat; none where the method has no such phase."""
        return [repeat.seconds[phase] for repeat in self.repeats if phase in repeat.seconds]

    def shares(self, phase: str) -> list[float]:
        """Of the time of a training batch; none for what is no part of it."""
        own = [repeat.seconds for repeat in self.repeats if phase in repeat.seconds and phase in (*PARTS, BATCH)]
        return [seconds[phase] / seconds[BATCH] for seconds in own]

    def of_limit(self, phase: str) -> list[float]:
        """FLOPs over time over the rate of matrix products at the same precision; none without FLOPs."""
        if not self.flops.get(phase):
            return []
        own = [repeat for repeat in self.repeats if repeat.seconds.get(phase)]
        return [self.flops[phase] / repeat.seconds[phase] / repeat.rate(self.precision) for repeat in own]

    def units(self, phase: str) -> list[float]:
        """Time over that of the FLOPs as written at the rate of products in float32; none where these are not known."""
        if self.as_written is None:
            return []
        flops = self.as_written[WRITTEN[phase]]
        return [repeat.seconds[phase] * repeat.rate("32") / flops for repeat in self.repeats]


@dataclass(frozen=True)
class Result:
    """machine: names and versions. settings: what was asked for."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    cases: list[Case]


# The file


def write(file: Path, result: Result) -> None:
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps({"speed": FORMAT} | asdict(result), indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> Result:
    """What `write` left. Raises UsageError for anything else, and for a file of a newer version."""
    try:
        found = parse_json(read_text(file, MOST))
    except OSError as error:
        raise UsageError(printable(f"{file}: cannot be read ({error.strerror or reason(error)})")) from None
    except ValueError as error:
        raise UsageError(printable(f"{file}: is no result of the benchmark ({reason(error)})")) from None
    version = found.get("speed") if isinstance(found, dict) else None
    if type(version) is not int or version < 1:
        raise UsageError(printable(f"{file}: is no result of the benchmark, whose files begin with its format"))
    if version > FORMAT:
        raise UsageError(printable(f"{file}: is of a newer version (format {version}, this one reads {FORMAT})"))
    try:
        return Result(_dict(found["machine"]), _dict(found["settings"]), [_case(case) for case in found["cases"]])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(printable(f"{file}: is damaged ({type(error).__name__}: {reason(error)})")) from None


def _case(found: dict[str, Any]) -> Case:
    words = [_of(found[name], str) for name in ("method", "backbone", "precision", "device")]
    numbers = [_of(found[name], int) for name in ("size", "batch_size", "updates")]
    written = found["as_written"]
    if written is not None:
        written = {name: _positive(_dict(written)[name]) for name in ("train", "test")}
    repeats = [_repeat(repeat, words[2]) for repeat in _of(found["repeats"], list)]
    if not repeats:
        raise ValueError("a case without repeats")
    flops = {phase: _number(count) for phase, count in _dict(found["flops"]).items()}
    method, backbone, precision, device = words
    size, batch_size, updates = numbers
    return Case(method, backbone, size, precision, device, batch_size, updates, flops, written, repeats)


def _repeat(found: dict[str, Any], precision: str) -> Repeat:
    limit = {
        name: {kind: _positive(rate) for kind, rate in _dict(rates).items()}
        for name, rates in _dict(found["limit"]).items()
    }
    if not {"32", precision} <= limit.keys() or not all(limit.values()):
        raise ValueError("a repeat without a limit")
    seconds = {phase: _number(value) for phase, value in _dict(found["seconds"]).items()}
    for phase in NEEDED:
        _positive(seconds[phase])
    peak = found["peak_memory_mb"]
    return Repeat(limit, seconds, None if peak is None else _number(peak))


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def _dict(value: Any) -> dict[str, Any]:
    return _of(value, dict)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r:.40} is no number from zero on")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) == 0:
        raise ValueError("a zero")
    return float(value)


# Tables


def heading(result: Result) -> list[str]:
    """Lines on the machine and its limit."""
    machine, repeats = result.machine, [repeat for case in result.cases for repeat in case.repeats]
    lines = [", ".join(f"{name} {machine[name]}" for name in SHOWN if machine.get(name) is not None)]
    for precision in dict.fromkeys(name for repeat in repeats for name in repeat.limit):
        own = [repeat.limit[precision] for repeat in repeats if precision in repeat.limit]
        rates = [f"{kind} {_spread([one[kind] / 1e9 for one in own if kind in one], 0)}" for kind in own[0]]
        lines.append(f"matrix products in {precision}, GFLOP/s: {', '.join(rates)}")
    return [printable(line) for line in lines]


def summary(result: Result) -> str:
    """A row per case."""
    rows = [
        ["method", "network", "precision", "ms/training image", "images/s", "unit", "of limit"]
        + ["ms/test image, first", "later", "unit", "of limit", "peak MiB", "repeats"]
    ]
    for case in result.cases:
        peaks = [repeat.peak_memory_mb for repeat in case.repeats if repeat.peak_memory_mb is not None]
        batch = case.seconds(BATCH)
        row = [case.method, f"{case.backbone}, {case.size} px, {case.device}", case.precision]
        row += [_milliseconds(batch), f"{1 / statistics.median(batch):,.0f}"]
        row += [_spread(case.units(BATCH), 2), _percent(case.of_limit(BATCH)), _milliseconds(case.seconds(FIRST))]
        row += [_milliseconds(case.seconds(LATER)), _spread(case.units(LATER), 2), _percent(case.of_limit(LATER))]
        rows.append([*row, f"{max(peaks):,.0f}" if peaks else NONE, str(len(case.repeats))])
    return markdown_table(rows)


def phases(case: Case) -> str:
    """A row per phase that the method has."""
    rows = [["phase", "ms/image", "images/s", "share of batch", "GFLOP/image", "of limit"]]
    for phase in PHASES:
        seconds = case.seconds(phase)
        if not seconds:
            continue
        name = f"{phase}, each" if phase == CHECKPOINT else phase
        middle = statistics.median(seconds)
        speed = f"{1 / middle:,.0f}" if middle and phase != CHECKPOINT else NONE
        flops = f"{case.flops[phase] / 1e9:.3f}" if case.flops.get(phase) else NONE
        shares, limit = _percent(case.shares(phase)), _percent(case.of_limit(phase))
        rows.append([name, _milliseconds(seconds), speed, shares, flops, limit])
    return markdown_table(rows)


def comparison(now: Result, before: Result) -> str:
    """The machine of the other file, every phase of the cases that both have, and the limit."""
    old = {case.key(): case for case in before.cases}
    parts = [heading(before)[0]]
    for case in now.cases:
        if case.key() not in old:
            parts.append(printable(f"{case.title()}: not in the other file"))
            continue
        other, rows = old[case.key()], [["phase", "ms/image before", "now", "now / before"]]
        for phase in PHASES:
            pair = other.seconds(phase), case.seconds(phase)
            if all(pair):
                rows.append([phase, *map(_milliseconds, pair), _ratio(*pair)])
        for precision in case.repeats[0].limit:
            rates = [[r.rate(precision) / 1e9 for r in c.repeats if precision in r.limit] for c in (other, case)]
            if all(rates):
                rows.append([f"limit in {precision}, GFLOP/s", *(_spread(own, 0) for own in rates), _ratio(*rates)])
        parts.append(f"{printable(case.title())}\n\n{markdown_table(rows)}")
    return "\n\n".join(parts)


def _ratio(before: list[float], now: list[float]) -> str:
    """Of the medians, and from the smallest to the largest that the repeats allow."""
    if not min(before):
        return NONE
    middle = statistics.median(now) / statistics.median(before)
    return f"{middle:.2f} ({min(now) / max(before):.2f} to {max(now) / min(before):.2f})"


def _spread(values: list[float], digits: int) -> str:
    """Median, and the range where there are several."""
    if not values:
        return NONE
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else middle


def _milliseconds(seconds: list[float]) -> str:
    return _spread([1000 * value for value in seconds], 3)


def _percent(shares: list[float]) -> str:
    return f"{100 * statistics.median(shares):.1f} %" if shares else NONE
