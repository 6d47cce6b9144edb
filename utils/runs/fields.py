"""What may stand in the files of a run folder, which may be somebody else's: kinds, lengths and characters."""

from __future__ import annotations

import re
from typing import Any

from utils.args import SEEDS
from utils.errors import FORBIDDEN
from utils.plan import PARTS

NAME = re.compile(r"\w[\w.+-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
LONGEST_TEXT = 4096  # characters
MOST_ENTRIES = 10_000  # of a list
MOST_NAMES = 300  # of a dictionary
MOST_THREADS = 4096
DEEPEST = 3  # dictionaries and lists in each other


def check_entry(name: Any, value: Any) -> None:
    """Raises ValueError unless this is an entry that `config.yaml` can hold; names the field."""
    check_plain({name: value}, "")
    if name in PARTS:
        require({} if value is None and name != "run" else value, [], name)
        for option, own in (value or {}).items():
            entries = own if isinstance(own, list) else [own]
            if not option.isidentifier() or any(isinstance(entry, dict | list) for entry in entries):
                raise ValueError(f"{name}.{option} is {own!r:.40}, no value of an option")
    if name == "run":
        _check_run(value)
    elif name == "origin":
        require(value or {}, [], name)
        for option, origin in (value or {}).items():
            if not isinstance(origin, str | None):
                raise ValueError(f"origin.{option} is {origin!r:.40}, not a text")
    elif name in ("stream_sha256", "backbone_sha256", "code_sha256"):
        check_digest(value, name)
    elif name == "threads" and value is not None:
        if type(value) is not int or not 1 <= value <= MOST_THREADS:
            raise ValueError(f"threads is {value!r:.40}, not a number of them")
    elif name in ("git_commit", "versions"):
        _check_code({name: value}, "")
    elif name == "identity" and value is not None:
        require(value, ["incidental", "read"], "identity")
        require(value["read"], [], "identity.read")
        texts = value["incidental"], [digest for digest in value["read"].values() if digest is not None]
        if not isinstance(texts[0], list) or not all(isinstance(text, str) for group in texts for text in group):
            raise ValueError("identity is no names of options and digests")
    elif name == "resumed" and value is not None:
        require(value, ["versions", "git_commit", "code_sha256"], "resumed")
        _check_code(value, "resumed.")


def _check_run(options: dict[str, Any]) -> None:
    require(options, ["model", "dataset", "scenario", "seed"])
    for name in ("model", "dataset", "scenario"):
        check_name(options[name], f"run.{name}")
    for name in SEEDS:
        seed = options.get(name)
        if type(seed) is not int and not (seed is None and name != "seed"):
            raise ValueError(f"run.{name} is {seed!r:.40}, not a whole number")


def _check_code(config: dict[str, Any], where: str) -> None:
    if not isinstance(config.get("git_commit"), str | None):
        raise ValueError(f"{where}git_commit is no text")
    check_digest(config.get("code_sha256"), f"{where}code_sha256")
    require(config.get("versions") or {}, [], f"{where}versions")
    if not all(isinstance(version, str | None) for version in (config.get("versions") or {}).values()):
        raise ValueError(f"{where}versions holds what is no text")


def require(table: Any, names: list[str], where: str = "") -> None:
    if not isinstance(table, dict):
        place = f" ({where})" if where else ""
        raise ValueError(f"found {type(table).__name__} where names and values belong{place}")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Raises ValueError for what is neither None, a number or text of bounded length, nor made of these."""
    if isinstance(value, dict | list):
        if depth > DEEPEST or len(value) > (MOST_NAMES if isinstance(value, dict) else MOST_ENTRIES):
            raise ValueError(f"{where or 'it'} has too many entries, or is nested too deeply")
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"{where or 'it'} has the name {name!r:.40}, which is no text")
            if not _is_plain(name):
                check_plain(name, f"a name in {where or 'it'}")
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, entry in named:
            if not _is_plain(entry):
                check_plain(entry, f"{where}.{name}" if where else str(name), depth + 1)
    elif isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise ValueError(f"{where:.80} has {len(value):,} characters, more than {LONGEST_TEXT:,}")
        if odd := FORBIDDEN.search(value):
            raise ValueError(f"{where:.80} holds the character {odd[0]!a}")
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError(f"{where:.80} is a number of more than 64 bits")
    elif not (value is None or isinstance(value, int | float)):
        raise ValueError(f"{where:.80} is a {type(value).__name__}, no plain value")


def _is_plain(value: Any) -> bool:
    """Whether `check_plain` has nothing to say of a value that is no list and no dictionary: as nearly always."""
    kind = type(value)
    if kind is str:  # what can be printed holds nothing forbidden, and is told sooner
        return len(value) <= LONGEST_TEXT and (value.isprintable() or not FORBIDDEN.search(value))
    return value is None or kind is bool or kind is float or kind is int and abs(value) < 2**64


def check_name(value: Any, where: str) -> None:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"{where} is {value!r:.40}, which no name can be")


def check_digest(value: Any, where: str) -> None:
    if value is not None and not (isinstance(value, str) and DIGEST.fullmatch(value)):
        raise ValueError(f"{where} is {value!r:.40}, no SHA-256")
