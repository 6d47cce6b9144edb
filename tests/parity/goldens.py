"""Stored cases of the released implementations: where they lie, and how numbers are compared with them.

A case is `<system>/<case>.json` (settings, tolerances) with `<system>/<case>.npz` (inputs, expected arrays) below the
folder named by the environment variable GOLDENS, by default `tests/goldens`. What a case records is computed again on
the device named by GOLDENS_DEVICE, by default the CPU.

A check must ask for every setting and every array of its case (`Case.left`): what nobody asks for may change what the
numbers mean. INFORMATION lists what is there for people.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHIPPED = Path(__file__).resolve().parent.parent / "goldens"
DEVICE = torch.device(os.environ.get("GOLDENS_DEVICE") or "cpu")
ELSEWHERE = 1e-3  # of the largest number of an array: what other kernels than the CPU's may differ by
NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"

# What no check needs to read, and why: settings by dotted path, all below included, without the numbers of lists, after
# `<system>/` where they mean more elsewhere; and arrays.
INFORMATION = {
    "system": "the folder, compared with it before a check begins",
    "case": "its name",
    "description": "for people",
    "note": "for people",
    "tolerances.note": "for people",
    "optimiser.note": "for people",
    "runs.note": "for people",
    "note_source": "for people",
    "source": "repository, commit and files that the numbers come from",
    "reference": "the same",
    "reference_commit": "the same",
    "arrays": "what the arrays are",
    "logits": "at which place they were taken, see `schedule`",
    "step_logits": "the same, see `check_dualprompt`",
    "router": "what FlyPrompt's statistics are made of",
    "diagnostics": "what the arrays are",
    "inputs": "what the arrays are",
    "initial_values": "they are recorded",
    "gram_schmidt": "what the recorded draws are for",
    "random_calls": "how draws were made that are recorded",
    "rng": "how the order was drawn, which is compared itself",
    "seed": "of the reference's draws, all recorded",
    "config.seed": "the same",
    "dtype": "of the arrays, which say it themselves",
    "val_mse": "what the array is",
    "smallest_selection_margin": "how near the reference was to another choice of prompts",
    "float64_max_abs_diff": "what rounding does to the reference",
    "runs.float32_error_vs_float64": "the same",
    "tolerance.float32": "says that the runs have their own",
    "tolerances.integers": "they are compared exactly",
    "tolerances.ridge": "an integer, compared exactly",
    "stream/tolerance": "none: all integers",
    "er/tolerances.loss_logits": "the memory alone is integers; training takes this",
    "er/tolerances.final": "the same",
    "l2p/tolerances.final": "selection alone has no weights; training takes it",
    "l2p/step_num": "a counter of the reference without effect on L2P",
    "runs.feature_scale": "how the features were drawn, which are recorded",
    "runs.target_rank": "how the covariance was drawn, which is recorded",
    "mepo_meta/head": "names of its weights",
    "mepo_meta/inner_repetitions": "what the batches are, see `recorded_groups`",
    "mepo_meta/files_saved_by_reference": "the project's are read",
    "bcl/config.noise": "how the samples were drawn, which are recorded",
    "oml/config.noise": "the same",
    "oml/tolerances.accuracy": "sines have none; images take it",
    "eval/y": "labels of images of which logits are compared, or accuracies too, where there are some",
}


def root() -> Path:
    return Path(os.environ.get("GOLDENS") or SHIPPED)


def find(folder: Path) -> list[str]:
    """Names `<system>/<case>` of everything that is, or is half of, a case. An .npz file at the wrong depth counts."""
    files = [*folder.rglob("*.npz"), *folder.glob("*/*.json")]
    return sorted({path.relative_to(folder).with_suffix("").as_posix() for path in files})


def read_settings(folder: Path, name: str) -> dict:
    path = folder / f"{name}.json"
    assert path.is_file(), f"{name}: {path} is missing"
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except ValueError as error:
        raise AssertionError(f"{name}: {path} cannot be read ({error})") from None


class Settings(Mapping):
    """A JSON object. `unread` holds the path of every value in it until somebody asks for that value.

    Objects inside, also those in lists, are Settings. Whether a key is there can be asked without reading it.
    """

    def __init__(self, content: dict[str, Any], path: str = "", unread: set[str] | None = None):
        self._content, self._path = content, path
        self.unread = set() if unread is None else unread
        self._values = {key: self._wrapped(value, f"{path}{key}") for key, value in content.items()}

    def _wrapped(self, value: Any, path: str) -> Any:
        if isinstance(value, dict) and value:
            return Settings(value, f"{path}.", self.unread)
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            return [
                self._wrapped(item, f"{path}[{k}]") if isinstance(item, dict) else item for k, item in enumerate(value)
            ]
        self.unread.add(path)
        return value

    def __getitem__(self, key: str) -> Any:
        self.unread.discard(f"{self._path}{key}")
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


class Case:
    """settings: the JSON. Arrays are read by name; `unread` tells which ones no check asked for."""

    def __init__(self, folder: Path, name: str):
        self.name, self.settings = name, Settings(read_settings(folder, name))
        path = folder / f"{name}.npz"
        assert path.is_file(), f"{name}: {path} is missing"
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = {key: file[key] for key in file.files}
        except Exception as error:  # a damaged archive raises many types
            raise AssertionError(f"{name}: {path} cannot be read ({error})") from None
        self.unread = set(self._arrays)
        undefined = [key for key, array in self._arrays.items() if array.dtype.kind == "f" and np.isnan(array).any()]
        assert not undefined, f"{name}: {', '.join(undefined)}: holds NaN, with which nothing can be compared"

    def expect(self, path: str, ours) -> None:
        """A setting, where the case has it, must be what the check goes by or has found. path: keys with dots."""
        *above, key = path.split(".")
        place = self.settings
        for name in above:
            place = place[name]
        if key in place:
            theirs = place[key]
            assert theirs == ours, f"{self.name}: {path} is {theirs!r}, the check goes by {ours!r}"

    def left(self) -> list[str]:
        """Settings and arrays that no check has asked for, but for INFORMATION."""
        system = self.name.partition("/")[0]
        settings = [path for path in self.settings.unread if not informs(system, path)]
        return sorted(settings) + sorted(self.unread - INFORMATION.keys())

    def __contains__(self, array: str) -> bool:
        return array in self._arrays

    def __getitem__(self, array: str) -> Tensor:
        assert array in self._arrays, f"{self.name}: the case has no array {array}"
        self.unread.discard(array)
        return torch.from_numpy(np.array(self._arrays[array]))

    def below(self, prefix: str) -> dict[str, Tensor]:
        """All arrays whose name begins with `prefix`, by the rest of the name."""
        return {key[len(prefix) :]: self[key] for key in self._arrays if key.startswith(prefix)}

    def count(self, pattern: str) -> int:
        """How many of the names pattern.format(0), pattern.format(1) ... there are without a gap."""
        k = 0
        while pattern.format(k) in self:
            k += 1
        return k

    def equal(self, array: str, actual) -> None:
        """Exact equality of integers, or of copied numbers."""
        expected, actual = self[array], torch.as_tensor(actual).cpu()
        self._same_shape(array, expected, actual)
        wrong = (expected != actual).nonzero()
        if len(wrong):
            at = tuple(wrong[0].tolist())
            raise AssertionError(
                f"{self.name}: {array} differs in {len(wrong)} of {expected.numel()} places, first at {list(at)}: "
                f"{actual[at].item()} instead of {expected[at].item()}"
            )

    def close(self, array: str, actual, tolerance) -> None:
        """|actual - expected| <= atol + rtol * |expected|, see `tolerances`. Nothing equals NaN. See also ELSEWHERE."""
        self.close_to(array, actual, self[array], tolerance)

    def close_to(self, what: str, actual, expected: Tensor, tolerance) -> None:
        atol, rtol = tolerances(tolerance)
        if not isinstance(actual, Tensor):
            actual = torch.tensor(actual, dtype=torch.float64)  # a Python number would become float32
        expected, actual = expected.double(), actual.detach().cpu().double()
        self._same_shape(what, expected, actual)
        if expected.numel() == 0:
            return
        if DEVICE.type != "cpu":
            atol = max(atol, ELSEWHERE * expected.nan_to_num(posinf=0, neginf=0).abs().max().item())
        difference = torch.where(actual == expected, 0.0, (actual - expected).abs())  # equal infinities
        excess = torch.where(difference.isnan(), torch.inf, difference - (atol + rtol * expected.abs()).nan_to_num())
        if (excess > 0).any():
            at = np.unravel_index(int(excess.argmax()), excess.shape)
            raise AssertionError(
                f"{self.name}: {what} is off by {difference[at].item():.3g} at {[int(i) for i in at]} "
                f"({actual[at].item():.8g} instead of {expected[at].item():.8g}; atol {atol:g}, rtol {rtol:g}); "
                f"{int((excess > 0).sum())} of {excess.numel()} places are outside"
            )

    def _same_shape(self, what: str, expected: Tensor, actual: Tensor) -> None:
        shapes = f"{list(actual.shape)} instead of {list(expected.shape)}"
        assert actual.shape == expected.shape, f"{self.name}: {what} has shape {shapes}"


def informs(system: str, path: str) -> bool:
    """Whether a setting, or one above it, is listed in INFORMATION. path: keys with dots, numbers in brackets."""
    parts = re.sub(r"\[\d+\]", "", path).split(".")
    above = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
    return any(place in INFORMATION or f"{system}/{place}" in INFORMATION for place in above)


def _no_number(text: str):
    raise ValueError(f"{text} is no number to compare with")


def tolerances(given) -> tuple[float, float]:
    """(atol, rtol) of an entry in a case's JSON: {"atol": ..., "rtol": ...}, an absolute number, or a text."""
    if isinstance(given, str):
        given = {key: float(value) for key, value in re.findall(rf"\b(atol|rtol) {NUMBER}", given)}
        assert given, "the case names no tolerance"
    if isinstance(given, Mapping):
        assert given.keys() & {"atol", "rtol"}, f"the case names no tolerance: {given}"
        return given.get("atol", 0.0), given.get("rtol", 0.0)
    return float(given), 0.0
