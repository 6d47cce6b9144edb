"""Finds methods and datasets by file, without importing them: the file name is the name on the command line.

Every `*.py` of a folder but `base.py` and names with a leading underscore counts. A plugin folder given with
`--plugins DIR` adds `DIR/models/*.py` and `DIR/datasets/*.py`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from utils import requirements
from utils.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


class Registry:
    """The files of one folder, each of which defines one subclass of `base`.

    folder: "models" or "datasets". base: name of the class in `<folder>/base.py` that entries extend.
    separator: how words are joined on the command line; "-" and "_" are both understood. aliases: other names.
    """

    def __init__(self, folder: str, base: str, separator: str, aliases: dict[str, str] | None = None):
        self.folder, self.base, self.separator, self.aliases = folder, base, separator, aliases or {}
        self.plugins: list[Path] = []

    def files(self) -> dict[str, Path]:
        """Name on the command line -> file, sorted by name."""
        found: dict[str, Path] = {}
        for parent in (ROOT, *self.plugins):
            for path in (parent / self.folder).glob("*.py"):
                if path.stem == "base" or path.stem.startswith("_"):
                    continue
                name = path.stem.replace("_", self.separator)
                if name in found:
                    raise UsageError(f"{path}: the name '{name}' is taken by {found[name]}; rename the file")
                found[name] = path
        return dict(sorted(found.items()))

    def resolve(self, name: str) -> str:
        """The registered spelling of `name`; an unknown name is answered with the nearest one."""
        files = self.files()
        spelt = name.strip().lower().replace("-", self.separator).replace("_", self.separator)
        spelt = self.aliases.get(spelt, spelt)
        if spelt in files:
            return spelt
        near = difflib.get_close_matches(spelt, files, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(files)}"
        raise UsageError(f"unknown {self.folder[:-1]} '{name}'; {hint}")

    def is_known(self, name: str) -> bool:
        try:
            return bool(self.resolve(name))
        except UsageError:
            return False

    def describe(self, name: str) -> str:
        """First line of the file's docstring, read without running the file."""
        return first_line(self.files()[name])

    def load(self, name: str) -> Any:
        """Imports the file of `name` and returns the one class it defines."""
        path = self.files()[self.resolve(name)]
        requirements.check()
        self._refuse_others()
        module = self._import(path)
        base = getattr(importlib.import_module(f"{self.folder}.base"), self.base)
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise UsageError(f"{path} must define exactly one subclass of {self.base}, found {len(own)}")
        return own[0]

    def _refuse_others(self) -> None:
        """Raises UsageError if another package of this folder's name was imported in this process, as in a notebook."""
        there = getattr(sys.modules.get(self.folder), "__path__", None)
        if self.folder in sys.modules and [os.path.realpath(path) for path in there or ()] != [str(ROOT / self.folder)]:
            raise UsageError(
                f"another package named '{self.folder}' was imported before ({sys.modules[self.folder].__file__}); "
                "use a process of its own, as `python main.py` is, or import ours first"
            )

    def _import(self, path: Path) -> ModuleType:
        if path.parent.parent == ROOT:
            return importlib.import_module(f"{self.folder}.{path.stem}")
        name = f"plugin_{self.folder}_{path.stem}"
        if name not in sys.modules:
            spec: Any = importlib.util.spec_from_file_location(name, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]


def commands() -> dict[str, str]:
    """What there is beside training, by name, with a line each: files of command/ with a function `main(argv)`."""
    found = {}
    for path in sorted((ROOT / "command").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            found[path.stem] = first_line(path)
    return found


def resolve_command(name: str) -> str:
    """The name itself; an unknown one is answered with the nearest one."""
    known = commands()
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"unknown command '{name}'; {hint}; training has none: python main.py --model METHOD ...")


def first_line(path: Path) -> str:
    """First line of a file's docstring, read without running the file."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"(cannot be read: {error})"
    return text.strip().splitlines()[0] if text else ""


METHODS = Registry("models", "ContinualModel", "_")
DATASETS = Registry("datasets", "Dataset", "-", aliases={"seq-imagenet-r": "seq-imr"})


def plugin_folders() -> list[Path]:
    """The folders that `add_plugins` added."""
    return list(METHODS.plugins)


def add_plugins(folder: str) -> None:
    """Adds the methods and datasets of a plugin folder to the registries."""
    path = Path(os.path.realpath(folder))  # like isdir, it never raises
    if not any(os.path.isdir(path / kind) for kind in ("models", "datasets")):
        raise UsageError(f"--plugins {folder}: neither {path}/models nor {path}/datasets is a folder")
    for registry in (METHODS, DATASETS):
        if path not in registry.plugins:
            registry.plugins.append(path)
