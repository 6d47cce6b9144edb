"""The comparison itself: everything that a case says is obeyed or refused, and nothing equals NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from . import goldens
from .check_dualprompt import word
from .test_goldens import BUILT, compare

SMALLEST = [min((file.stat().st_size, file) for file in goldens.SHIPPED.glob(f"{name}/*.npz"))[1] for name in BUILT]


def edited(tmp_path: Path, name: str, edit: Callable[[dict, dict], None]) -> tuple[Path, str, Path]:
    """What `compare` takes: a shipped case whose settings and arrays were edited, and an empty folder."""
    settings = json.loads((goldens.SHIPPED / f"{name}.json").read_text())
    with np.load(goldens.SHIPPED / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    edit(settings, arrays)
    path = tmp_path / "goldens" / name
    path.parent.mkdir(parents=True)
    path.with_suffix(".json").write_text(json.dumps(settings))
    np.savez(path.with_suffix(".npz"), **arrays)
    (tmp_path / "scratch").mkdir()
    return tmp_path / "goldens", name, tmp_path / "scratch"


def spread(entry, system: str, path: str = "") -> list[str]:
    """Puts an unknown key into every object of an entry that is not for people; gives the paths."""
    if isinstance(entry, list):
        return [found for k, item in enumerate(entry) for found in spread(item, system, f"{path}[{k}]")]
    if not isinstance(entry, dict) or goldens.informs(system, path):
        return []
    inside = f"{path}." if path else ""
    paths = [found for key, value in entry.items() for found in spread(value, system, f"{inside}{key}")]
    entry["telepathy"] = True
    return [*paths, f"{inside}telepathy"]


@pytest.mark.parametrize("file", SMALLEST, ids=lambda file: file.parent.name)
def test_what_no_check_reads_fails(tmp_path, file):
    unknown = ["extra/array"]

    def edit(settings, arrays):
        unknown.extend(spread(settings, file.parent.name))
        arrays["extra/array"] = np.zeros(3)

    name = f"{file.parent.name}/{file.stem}"
    with pytest.raises(AssertionError, match="no check reads") as info:
        compare(*edited(tmp_path, name, edit))
    assert [path for path in unknown if path not in str(info.value)] == []


@pytest.mark.parametrize(
    "name, key, value, said",
    [
        ("l2p/l2p_seenmask_iter3", "config.frequency_update", "every other Tuesday", "every other Tuesday"),
        ("l2p/l2p_seenmask_iter3", "scheduler", "cosine", "scheduler is 'cosine'"),
        ("l2p/l2p_seenmask_iter3", "train_logit_mask", "seen classes of the task", "seen classes of the task"),
        ("singleprompt/single_cosine", "optimiser.schedule", "cosine", "not constant"),
        ("singleprompt/single_cosine", "config.n_tasks", 4, "config.n_tasks is 4"),
        ("misa/misa_downstream", "prompts_per_step", 1, "prompts_per_step is 1"),
        ("misa/misa_release_local_index", "task_count", "moves by samples", "moves by samples"),
        ("er/er_linear_head", "config.batchsize", 64, "config.batchsize is 64"),
    ],
)
def test_what_the_project_has_not_fails(tmp_path, name, key, value, said):
    def edit(settings, arrays):
        *above, last = key.split(".")
        for part in above:
            settings = settings[part]
        settings[last] = value

    with pytest.raises(AssertionError, match=said):
        compare(*edited(tmp_path, name, edit))


def test_words_are_read_to_their_end():
    assert word("seen classes (of the batch, too)", {"seen classes": "seen"}) == "seen"
    with pytest.raises(AssertionError, match="nothing for 'seen classes of the task'"):
        word("seen classes of the task", {"seen classes": "seen"})


def test_frequencies_of_l2p_are_folded_in_at_task_ends(tmp_path):
    """Without diversified selection they change nothing else, so that the rest of the case stays what it is."""

    def edit(settings, arrays):
        settings["config"] |= {"diversity": False, "frequency_update": "after each task evaluation"}
        arrays["final/frequency"] = 1 + arrays["final/counter"]
        arrays["final/counter"] = np.zeros_like(arrays["final/counter"])

    compare(*edited(tmp_path, "l2p/l2p_seenmask_iter3", edit))


@pytest.mark.parametrize("array", ["head/weight", "step1/logits"])
def test_a_recorded_nan_fails(tmp_path, array):
    def edit(settings, arrays):
        arrays[array].flat[0] = np.nan

    with pytest.raises(AssertionError, match=f"{array}: holds NaN"):
        compare(*edited(tmp_path, "singleprompt/single_cosine", edit))


def test_nan_in_the_settings_fails(tmp_path):
    def edit(settings, arrays):
        settings["optimiser"]["lr"] = float("nan")

    with pytest.raises(AssertionError, match="cannot be read"):
        compare(*edited(tmp_path, "singleprompt/single_cosine", edit))


@pytest.mark.parametrize("expected", [0.0, torch.nan, torch.inf])
def test_nothing_is_close_to_nan(expected):
    case = goldens.Case(goldens.SHIPPED, "er/er_reservoir")
    with pytest.raises(AssertionError, match="x is off"):
        case.close_to("x", torch.tensor([torch.nan]), torch.tensor([expected]), torch.inf)


def test_an_undefined_metric_meets_the_sentinel_of_the_reference_only(tmp_path):
    def edit(settings, arrays):
        arrays["result/F_last"] = np.float64(-999)

    with pytest.raises(AssertionError, match="result/F_last"):
        compare(*edited(tmp_path, "metrics/gcl_basic", edit))


def test_information_is_found_in_some_case():
    """No entry is left of something that was removed, so that the table hides nothing new."""
    found = set()
    for name in goldens.find(goldens.SHIPPED):
        case = goldens.Case(goldens.SHIPPED, name)
        places = {path.replace("[", ".[") for path in case.settings.unread} | case.unread
        for place in places:
            parts = [part for part in place.split(".") if not part.startswith("[")]
            above = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
            found |= above | {f"{name.partition('/')[0]}/{path}" for path in above}
    assert goldens.INFORMATION.keys() <= found
