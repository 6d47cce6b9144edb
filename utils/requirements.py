"""What requirements.txt asks for, and whether it is there, by the packages' own records: asking imports none. And how
matplotlib is imported, whatever a notebook asked for."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from utils.errors import UsageError

FILE = Path(__file__).resolve().parent.parent / "requirements.txt"
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn", "pillow": "PIL"}
SETUP = "bash command/setup.sh sets up all of them in .venv; then run .venv/bin/python, or first: . .venv/bin/activate"


@dataclass(frozen=True)
class Requirement:
    """A line of the file. lowest: version from which it will do, "" for any. module: what is imported of it."""

    line: str
    name: str
    lowest: str
    module: str

    def version(self) -> str | None:
        """The one that is installed; "" where the package is there without a record, None where it is not."""
        try:
            return importlib.metadata.version(self.name) or ""
        except importlib.metadata.PackageNotFoundError:
            return "" if importlib.util.find_spec(self.module) else None

    def allows(self, version: str | None) -> bool:
        return not version or not self.lowest or _release(version) >= _release(self.lowest)


def listed(file: Path = FILE) -> list[Requirement]:
    """The packages of the file."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, lowest = line.partition(">=")
            found.append(Requirement(line, name, lowest, MODULES.get(name.lower(), name)))
    return found


def import_matplotlib() -> ModuleType:
    """The module, whatever backend a notebook asks for: one that is not there would end the import."""
    asked = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib
    finally:
        if asked is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = asked
    return matplotlib


@functools.cache
def check() -> None:
    """Raises UsageError if a package that runs need is not there, or too old."""
    versions = {needed: needed.version() for needed in listed()}
    if missing := [needed.name for needed, version in versions.items() if version is None]:
        raise UsageError(f"this Python ({sys.executable}) has no {', '.join(missing)}; {SETUP}")
    if old := [needed for needed, version in versions.items() if not needed.allows(version)]:
        found = ", ".join(f"{needed.name} {versions[needed]}" for needed in old)
        wanted = " ".join(f"'{needed.line}'" for needed in old)
        raise UsageError(f"too old: {found}; {sys.executable} -m pip install -U {wanted}, or {SETUP}")


def _release(version: str) -> tuple[int, ...]:
    """2.10.1rc2+cu126 -> (2, 10, 1). Trailing zeros do not count."""
    numbers = re.sub(r"[^\d.].*", "", version, flags=re.DOTALL).strip(".").split(".")
    release = [int(number) for number in numbers if number]
    while release and not release[-1]:
        release.pop()
    return tuple(release)
