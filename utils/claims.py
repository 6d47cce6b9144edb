"""What a summary says, against the tables that it was made from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from utils.fields import METRICS, defined
from utils.forgetting import class_table
from utils.metrics import gcl_summary

ROUNDING = 1e-6  # of an accuracy; seconds are written with three digits


def check_claims(summary: dict[str, Any], config: dict[str, Any], metrics: pd.DataFrame, classes: pd.DataFrame) -> None:
    """Raises ValueError, with both values, where a summary says other than the run's tables and settings do."""
    for name, value in recomputed(metrics, classes).items():
        said = summary[name]
        if defined(said) != defined(value) or defined(said) and abs(said - value) > ROUNDING:
            raise ValueError(f"{name} is {_told(said)}, by metrics.csv and per_class.csv it is {_told(value)}")
    if len(metrics):
        images, seconds = metrics["samples_seen"].max(), metrics["seconds"].max()
        if summary["samples"] != images:
            raise ValueError(f"samples is {summary['samples']}, by metrics.csv it is {images:.0f}")
        if summary["seconds"] < seconds - 0.01:
            raise ValueError(f"seconds is {summary['seconds']}, by metrics.csv at least {seconds}")
    settings = config["run"] | {"stream_sha256": config.get("stream_sha256")}
    for name in ("model", "dataset", "scenario", "seed", "stream_sha256"):
        if name in summary and settings[name] is not None and summary[name] != settings[name]:
            raise ValueError(f"{name} is {summary[name]!r:.70}, in config.yaml it is {settings[name]!r:.70}")


def recomputed(metrics: pd.DataFrame, classes: pd.DataFrame) -> dict[str, float]:
    """The five metrics from `metrics.csv` and `per_class.csv`, as `History.summary` makes them while it runs."""
    anytime, ends = (metrics[metrics["kind"] == kind] for kind in ("anytime", "task_end"))
    last_pass = dict(zip(ends["task"], ends["accuracy"]))
    evaluated = bool(metrics["accuracy"].notna().any())  # then an empty cell is an accuracy that is undefined
    found = gcl_summary(
        anytime["accuracy"].tolist() if evaluated else [],
        list(last_pass.values()) if evaluated else [],
        list(class_table(classes)[0]),
    )
    return {name: found[name] for name in METRICS}


def _told(value: float | None) -> str:
    return f"{value:.6f}" if defined(value) else "undefined"
