"""Which runs are the same run: those that compute the same from the same, wherever it lies.

A run is known by the options that decide what is computed and by the content of what it reads: its data with their
labels, weights, products of stages. It writes both into `config.yaml` when it begins: the options, of which
`identity.incidental` names those that do not decide, and `identity.read`, SHA-256 by name. Runs of older versions have
no such section; what they read is not known, and nobody guesses.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from utils.args import RunArgs, TaskArgs, method_options, option_metadata
from utils.errors import UsageError
from utils.files.manifest import sha256
from utils.plan import PARTS, Plan
from utils.registry import DATASETS, METHODS, ROOT, plugin_folders

NOTHING = (None, "none", "random")  # values of options that read nothing
STATED = ("stream_sha256", "backbone_sha256")  # beside the section; what follows from all that was read
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "matplotlib")  # the last draws the glyphs
PERIOD, FITTED = "run.eval_period", ": a tenth of the stream"  # end of its origin
SHORT = 8  # digits of a digest that are shown


# What a run is


def config(plan: Plan, read: Mapping[str, str | None] = MappingProxyType({})) -> dict[str, Any]:
    """What `config.yaml` says of a run. read: digests by name, `option_digests` among them; empty where only options
    are compared."""
    incidental = [
        f"{part}.{name}"
        for part, options in plan.parts().items()
        for name, told in option_metadata(type(options)).items()
        if not told["decides"] or told["reads"] is not None
    ]
    return plan.settings() | {"identity": {"incidental": incidental, "read": dict(read)}}


def option_digests(plan: Plan, to_come: tuple[str, ...] = ()) -> dict[str, str]:
    """Option (method.x ...) -> SHA-256 of the file or files that it names, or the word that stands there instead.

    Not of the weights, for which there is `backbone.fingerprint`. to_come: folders that nobody has filled yet, which
    are left out with what is to lie in them. Raises UsageError for others that are not there.
    """
    found = {}
    for part, options in plan.parts().items():
        for name, told in option_metadata(type(options)).items():
            value = getattr(options, name)
            if told["reads"] is not None and name != "backbone_path" and not _is_to_come(value, to_come):
                found[f"{part}.{name}"] = value if value in NOTHING else _digest(name, Path(value), told["reads"])
    return found


def _is_to_come(value: str | None, to_come: tuple[str, ...]) -> bool:
    return value is not None and any(place in to_come for place in (value, str(Path(value).parent)))


def _digest(option: str, path: Path, files: tuple[str, ...]) -> str:
    try:
        if not files:
            return sha256(path)
        return hashlib.sha256("".join(sha256(path / file) for file in files).encode()).hexdigest()
    except OSError as error:
        raise UsageError(f"--{option} {path}: cannot be read ({error.strerror})") from None


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """Option (run.x, method.x, host.x, data.x) -> value, of those that decide what is computed; seeds among them."""
    section = config.get("identity")
    incidental = {*(_always_incidental() if section is None else section["incidental"])}
    if str(_origin_of_period(config)).endswith(FITTED):  # it follows from the stream, which differs with the seed
        incidental.add(PERIOD)
    return {
        key: value
        for part in PARTS
        for name, value in (config.get(part) or {}).items()
        if (key := f"{part}.{name}") not in incidental
    }


def _origin_of_period(config: dict[str, Any]) -> Any:
    return (config.get("origin") or {}).get("eval_period")


def _always_incidental() -> set[str]:
    """For runs that do not say it: the options of every run and dataset that do not decide."""
    known = {"data.download", "run.class_order"}
    return {*known, *(f"run.{name}" for name, told in option_metadata(RunArgs).items() if not told["decides"])}


def read(config: dict[str, Any]) -> dict[str, str | None] | None:
    """Name -> SHA-256 of what a run read; None for a run that does not say it."""
    section = config.get("identity")
    return None if section is None else section["read"]


# Which runs are the same


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What the run with the config `there` has other than the one that is to begin with `here`, an entry each.

    What only one of them says is passed over, but for options, one that `there` does not know counting as its default,
    and for files that were asked for here.
    """
    old, new, origin = deciding(there), deciding(here), here.get("origin") or {}
    if "command line" not in (_origin_of_period(there), _origin_of_period(here)):
        # It follows from dataset and stream, by a rule that may be another in another version; a run keeps its own.
        for options in (old, new):
            options.pop(PERIOD, None)
    incidental = here["identity"]["incidental"]
    found = [f"{name} is {old[name]!r:.80} there, {new[name]!r:.80} here" for name in new if _differs(name, old, new)]
    lacking = [name for name in new if name not in old and name.partition(".")[2] in origin]
    defaults = _defaults(here) if lacking else {}
    found += [f"{name} is {new[name]!r:.80} here and unknown there" for name in lacking if new[name] != defaults[name]]
    found += [f"{name} is {old[name]!r:.80} there and unknown here" for name in old if name not in {*new, *incidental}]
    contents = (
        (read(there) or {}, read(here) or {}),
        ({k: there.get(k) for k in STATED}, {k: here.get(k) for k in STATED}),
    )
    for before, now in contents:
        both = [name for name in now if before.get(name) is not None and now[name] is not None]
        found += [
            f"{name} has the content {before[name]:.{SHORT}} there, {now[name]:.{SHORT}} here"
            for name in both
            if before[name] != now[name]
        ]
    if (known := read(there)) is not None:
        new_files = {name: digest for name, digest in (read(here) or {}).items() if digest and name not in known}
        asked = [name for name in new_files if origin.get(name.partition(".")[2]) == "command line"]
        found += [f"{name} has the content {new_files[name]:.{SHORT}} here and is unknown there" for name in asked]
    return found


def _defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Option -> default in this version, of a config that this version has just made."""
    method = METHODS.load(config["run"]["model"]).Args
    hosts = [METHODS.load(config["method"][name]).Args for name in method_options(method)]
    kinds = [("run", RunArgs), ("tasks", TaskArgs), ("method", method), *(("host", host) for host in hosts)]
    kinds.append(("data", DATASETS.load(config["run"]["dataset"]).Args))
    return {f"{part}.{name}": told["default"] for part, kind in kinds for name, told in option_metadata(kind).items()}


def _differs(name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    return name in old and old[name] != new[name]


def without_content(here: dict[str, Any]) -> dict[str, Any]:
    """A config that agrees with every run of the same options."""
    return here | {"identity": here["identity"] | {"read": {}}} | dict.fromkeys(STATED)


def same_run(runs: list[tuple[Path, dict[str, Any]]], here: dict[str, Any]) -> Path | None:
    """The first of these folders with their configs whose run also read what `here` reads."""
    return next((f for f, config in runs if read(config) is not None and not differences(config, here)), None)


def why_another(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Why a run with the config `there` cannot be taken for the one of `here`."""
    return "; ".join(differences(there, here)) or "a version that did not record what a run reads has begun it"


# The code


def code() -> dict[str, Any]:
    """What computes: versions of Python and packages, commit of the code, and the SHA-256 of its files."""
    return {"versions": versions(), "git_commit": git_commit(), "code_sha256": code_sha256()}


def code_changes(config: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed in the code since a run with this config was last begun or gone on with, an entry each."""
    before = config.get("resumed") or config
    found = []
    name = "git_commit" if before.get("code_sha256") is None else "code_sha256"  # older versions knew the commit only
    if before.get(name) != now[name]:
        commits = before.get("git_commit"), now["git_commit"]
        files = "the code" if commits[0] != commits[1] else "files of the code or of plugins"
        found.append(f"{files} (commit {commits[0]}, now {commits[1]})")
    old = before.get("versions") or {}
    found += [
        f"{name} {old[name]}, now {new}" for name, new in now["versions"].items() if old.get(name) not in (None, new)
    ]
    return found


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """Commit of the code, with '+' if files differ from it or are new; None outside a git checkout of the code."""
    top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    if not top or not head or Path(top).resolve() != ROOT:  # a copy of the code inside another repository
        return None
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", *_CODE)
    return head + ("+" if changed else "")


_CODE = ("main.py", "backbone", "command", "datasets", "models", "utils", "requirements.txt")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_sha256() -> str:
    """Digest of all Python files that a run may import from here and from plugin folders: names and content."""
    files = [(ROOT, ROOT / "main.py")]
    for folder in ("backbone", "command", "datasets", "models", "utils"):
        files += [(ROOT, file) for file in sorted((ROOT / folder).rglob("*.py"))]
    for root in plugin_folders():
        files += [(root, file) for file in sorted(root.rglob("*.py"))]
    digest = hashlib.sha256()
    for root, file in files:
        digest.update(f"{file.relative_to(root).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()
