"""Stored cases of the released implementations: where they lie, and how numbers are compared with them.

A case is `<system>/<case>.json` (settings, tolerances) with `<system>/<case>.npz` (inputs, expected arrays) below the
folder named by the environment variable GOLDENS, by default `tests/goldens`. What a case records is computed again on
the device named by GOLDENS_DEVICE, by default the CPU.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHIPPED = Path(__file__).resolve().parent.parent / "goldens"
DEVICE = torch.device(os.environ.get("GOLDENS_DEVICE") or "cpu")
ELSEWHERE = 1e-3  # of the largest number of an array: what other kernels than the CPU's may differ by
NUMBER = r"([0-9.]+(?:e[-+]?[0-9]+)?)"


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
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AssertionError(f"{name}: {path} cannot be read ({error})") from None


class Case:
    """settings: the JSON. Arrays are read by name; `unread` tells which ones no check asked for."""

    def __init__(self, folder: Path, name: str):
        self.name, self.settings = name, read_settings(folder, name)
        path = folder / f"{name}.npz"
        assert path.is_file(), f"{name}: {path} is missing"
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = {key: file[key] for key in file.files}
        except Exception as error:  # a damaged archive raises many types
            raise AssertionError(f"{name}: {path} cannot be read ({error})") from None
        self.unread = set(self._arrays)

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
        """|actual - expected| <= atol + rtol * |expected|, see `tolerances`. NaN equals NaN. See also ELSEWHERE."""
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
        difference = torch.where(expected.isnan() & actual.isnan(), 0.0, (actual - expected).abs())
        difference = torch.where(actual == expected, 0.0, difference)  # equal infinities
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


def tolerances(given) -> tuple[float, float]:
    """(atol, rtol) of an entry in a case's JSON: {"atol": ..., "rtol": ...}, an absolute number, or a text."""
    if isinstance(given, str):
        given = {key: float(value) for key, value in re.findall(rf"\b(atol|rtol) {NUMBER}", given)}
        assert given, "the case names no tolerance"
    if isinstance(given, dict):
        assert given.keys() & {"atol", "rtol"}, f"the case names no tolerance: {given}"
        return given.get("atol", 0.0), given.get("rtol", 0.0)
    return float(given), 0.0
