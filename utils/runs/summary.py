"""`summary.json`: what a run that has ended says of itself, its keys, and whether that agrees with the run's tables."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from utils.runs.fields import check_digest, check_name, check_plain, require
from utils.training.metrics import GCL, MEASURES, class_table, gcl_summary, measures_of_tasks

METRICS = GCL  # fractions or None, of every run
NUMBERS = ("samples", "seconds", "trainable_parameters")
OWN_DIGEST = "fields_sha256"
Columns: TypeAlias = "pd.DataFrame | dict[str, np.ndarray]"  # of a table, by name
LONGEST_LABEL = 200  # characters
ROUNDING = 1e-6  # of an accuracy; seconds are written with three digits


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Every key of the file. Those with a default are absent in what older versions wrote.

    label: of the method, in tables. samples: images that were trained on, every pass counted. seconds: of the whole
    run, over all its parts; checkpoint_seconds of the last part. sha256: of the run's other files, by name.
    own: numbers of the method's own. fields_sha256: of the other fields.
    """

    label: str
    model: str | None = None
    dataset: str | None = None
    scenario: str | None = None
    seed: int | None = None
    complete: bool = True
    A_auc: float | None
    A_avg: float | None
    A_last: float | None
    F_last: float | None
    BWT: float | None
    A_train: float | None = None
    class_final: float | None = None
    class_forgetting: float | None = None
    task_final: float | None = None
    task_learned: float | None = None
    task_forgetting: float | None = None
    task_bwt: float | None = None
    task_fwt: float | None = None
    inferred_final: float | None = None
    inferred_final_conf: float | None = None
    inferred_final_agree: float | None = None
    found_final: float | None = None
    found_final_conf: float | None = None
    found_final_agree: float | None = None
    mse_given_final: float | None = None
    mse_given_during: float | None = None
    mse_inferred_final: float | None = None
    own: dict[str, float] = field(default_factory=dict)
    samples: int
    skipped_updates: int | None = None
    left_out_images: int | None = None
    seconds: float
    checkpoint_seconds: float | None = None
    trainable_parameters: int
    total_parameters: int | None = None
    needs_task_boundaries: bool
    rereads: bool | None = None
    stream_sha256: str | None = None
    peak_memory_mb: float | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    fields_sha256: str | None = None

    @classmethod
    def of(cls, content: dict[str, Any]) -> Summary:
        """The content of a file that `check_summary` let pass. What other versions put beside the keys is left out."""
        known = {name: content[name] for name in KEYS if name in content}
        return cls(**known | {name: content.get(name) or {} for name in ("own", "sha256")})

    def as_json(self, sha256: dict[str, str]) -> str:
        """The text of the file. sha256: of the files that the run has written before."""
        told = asdict(self) | {"sha256": sha256}
        del told[OWN_DIGEST]
        plain = {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()
        }
        if plain["A_train"] is None:  # a run without --eval_train says nothing of it
            del plain["A_train"]
        return json.dumps(plain | {OWN_DIGEST: fields_sha256(plain)}, indent=2) + "\n"

    @property
    def measures(self) -> dict[str, float | None]:
        """MEASURES by name."""
        return {name: getattr(self, name) for name in MEASURES}


KEYS = tuple(one.name for one in fields(Summary))
NEEDED = [one.name for one in fields(Summary) if one.default is one.default_factory is MISSING]


def check_summary(summary: Any) -> None:
    """Raises ValueError unless this is what `summary.json` can hold; names the field."""
    require(summary, NEEDED)
    check_plain(summary, "")
    label = summary["label"]
    if not isinstance(label, str):
        raise ValueError(f"label is {label!r:.40}, not a text")
    if not (label[:1].isalnum() and label.isprintable() and label == label.strip() and len(label) <= LONGEST_LABEL):
        raise ValueError(f"label is {label!r:.40}, no name of a method of at most {LONGEST_LABEL} printed characters")
    for name in (*MEASURES, *NUMBERS, "peak_memory_mb"):
        value = summary.get(name)
        number = type(value) in (int, float) and not abs(value) > 1e300
        if not number and not (value is None and name not in NUMBERS):
            raise ValueError(f"{name} is {value!r:.40}, not a number")
        if name not in MEASURES and value is not None and not value >= 0:
            raise ValueError(f"{name} is {value!r:.40}, which is below zero or undefined")
    for name in ("needs_task_boundaries", "rereads", "complete"):
        if not isinstance(summary.get(name, True), bool):
            raise ValueError(f"{name} is {summary[name]!r:.40}, neither true nor false")
    require(summary.get("own") or {}, [], "own")
    for name, value in (summary.get("own") or {}).items():
        if type(value) not in (int, float):
            raise ValueError(f"own.{name} is {value!r:.40}, not a number")
    check_digest(summary.get("stream_sha256"), "stream_sha256")
    require(summary.get("sha256") or {}, [], "sha256")
    for name, digest in (summary.get("sha256") or {}).items():
        check_name(name, "a file in sha256")
        check_digest(digest, f"sha256.{name}")
    if OWN_DIGEST in summary and summary[OWN_DIGEST] != fields_sha256(summary):
        raise ValueError("its fields are not what the run wrote")


def fields_sha256(summary: dict[str, Any]) -> str:
    """Digest of a summary's fields but for the digest itself."""
    others = {name: value for name, value in summary.items() if name != OWN_DIGEST}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def defined(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


# Its claims


def check_claims(
    summary: dict[str, Any], config: dict[str, Any], metrics: Columns, classes: Columns, tasks: pd.DataFrame
) -> None:
    """Raises ValueError, with both values, where a summary says other than the run's tables and settings do."""
    for name, value in recomputed(metrics, classes, tasks).items():
        said = summary.get(name)
        if defined(said) != defined(value) or defined(said) and abs(said - value) > ROUNDING:
            raise ValueError(f"{name} is {_told(said)}, by the run's tables it is {_told(value)}")
    if len(metrics["kind"]):
        images, seconds = np.max(metrics["samples_seen"]), np.fmax.reduce(metrics["seconds"])  # NaN passed over
        if summary["samples"] != images:
            raise ValueError(f"samples is {summary['samples']}, by metrics.csv it is {images:.0f}")
        if summary["seconds"] < seconds - 0.01:
            raise ValueError(f"seconds is {summary['seconds']}, by metrics.csv at least {seconds}")
    settings = config["run"] | {"stream_sha256": config.get("stream_sha256")}
    for name in ("model", "dataset", "scenario", "seed", "stream_sha256"):
        if name in summary and settings[name] is not None and summary[name] != settings[name]:
            raise ValueError(f"{name} is {summary[name]!r:.70}, in config.yaml it is {settings[name]!r:.70}")


def recomputed(metrics: Columns, classes: Columns, tasks: pd.DataFrame) -> dict[str, float]:
    """MEASURES from `metrics.csv`, `per_class.csv` and `per_task.csv`, as `History.summary` makes them in a run."""
    kinds, accuracy = np.asarray(metrics["kind"]), np.asarray(metrics["accuracy"], dtype=float)
    ends = kinds == "task_end"
    last_pass = dict(zip(np.asarray(metrics["task"])[ends].tolist(), accuracy[ends].tolist()))
    evaluated = not np.isnan(accuracy).all()  # then an empty cell is an accuracy that is undefined
    found = gcl_summary(
        accuracy[kinds == "anytime"].tolist() if evaluated else [],
        list(last_pass.values()) if evaluated else [],
        class_table(classes)[0],
    )
    if ends.any() and "train_accuracy" in metrics:
        found["A_train"] = float(np.asarray(metrics["train_accuracy"], dtype=float)[ends][-1])
    return dict.fromkeys(MEASURES, float("nan")) | found | measures_of_tasks(tasks)


def _told(value: float | None) -> str:
    return f"{value:.6f}" if defined(value) else "undefined"
