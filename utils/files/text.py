"""Text, JSON and YAML of files that may be anybody's: without waiting for a pipe, and without end."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import reason

# The line ends before the entries of a dictionary that is in no other, and of one that is in one other.
OUTER, INNER = re.compile(r"\n(?=[A-Za-z])"), re.compile(r"\n(?=  [A-Za-z])")
SECTION = re.compile(r"[A-Za-z]\w*:(?=\n  [A-Za-z])")  # the heading of a dictionary in a dictionary


def refuse_pipe(path: Path | str) -> None:
    """Raises OSError for a pipe or a device, which might never answer or end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # said by whoever opens it
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def open_file(path: Path | str) -> BinaryIO:
    """A file to be read as bytes. Raises OSError, as `refuse_pipe` does too."""
    refuse_pipe(path)
    return open(path, "rb")


def read_text(path: Path, most: int | None = None) -> str:
    """Text of a file, its line ends as they are, a byte order mark dropped. Raises OSError, or ValueError for no UTF-8.

    most: bytes of a longer file that is not read, a ValueError too.
    """
    return as_text(read_bytes(path, most))


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """As `read_text`, what the text is made of."""
    with open_file(path) as file:
        if most is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, most) + 1)  # room for the most would cost more than most files do
        if len(content) > size:  # it grows
            content += file.read(most + 1 - len(content))
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def as_text(content: bytes) -> str:
    """The text of a file's bytes. Raises ValueError for no UTF-8."""
    return content.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str, check: Callable[[Any, Any], None] | None = None) -> Any:
    """The value of a YAML text of plain values. Raises ValueError for whatever is wrong with it.

    check: raises ValueError for a name and a value of the outermost dictionary that may not be.

    What equal entries of texts stand for is parsed and checked once, and is one object, which nobody may change: the
    settings of thousands of runs differ in few entries.
    """
    if (found := _entries(text, OUTER, check)) is not None:
        return found
    whole = _whole_yaml(text)
    if check is not None and isinstance(whole, dict):
        for name, value in whole.items():
            check(name, value)
    return whole


def _entries(text: str, ends: re.Pattern, check: Callable[[Any, Any], None] | None) -> dict[str, Any] | None:
    """The dictionary of a text, entry by entry; None unless each is as `_one_entry` wants it. ends: see `OUTER`."""
    found: dict[str, Any] = {}
    *parts, last = ends.split(text)
    for part in (*(f"{part}\n" for part in parts), last):
        name, value = _one_entry(part, check)
        if name is None or name in found:
            return None
        found[name] = value
    return found


@functools.lru_cache(maxsize=2**14)
def _one_entry(part: str, check: Callable[[Any, Any], None] | None) -> tuple[str | None, Any]:
    """Name and value of a text that is one entry of a dictionary; (None, None) for every other, for one that is not as
    it should be, and for one that may have an anchor or end the document."""
    with contextlib.suppress(ValueError):
        value = None if "&" in part or "\n..." in part else _section(part) or _whole_yaml(part)
        if isinstance(value, dict) and [type(name) for name in value] == [str]:
            ((name, own),) = value.items()
            if check is not None:
                check(name, own)
            return name, own
    return None, None


def _section(part: str) -> dict[Any, Any] | None:
    """The value of a text that is a dictionary in a dictionary, entry by entry; None for every other."""
    if heading := SECTION.match(part):
        name, _ = _one_entry(f"{heading[0]}\n", None)
        inner = _entries(part[heading.end() + 1 :], INNER, None)
        return None if name is None or inner is None else {name: inner}
    return None


def _whole_yaml(text: str) -> Any:
    quick, plain = _loaders()
    if quick is not None and "&" not in text:  # without an anchor there is no alias
        with contextlib.suppress(Exception):  # the other one says what is wrong
            return quick(text).get_single_data()
    try:
        return plain(text).get_single_data()
    except Exception as error:  # of odd numbers, dates and depths it makes errors of all kinds
        raise ValueError(reason(error)) from None


@functools.cache
def _loaders() -> tuple[Any, Any]:
    """The loader of libyaml, None without that library, and the one that knows aliases and refuses them."""
    import yaml

    def construct_yaml_int(loader: Any, node: Any) -> int:
        if len(node.value) > 100:  # some forms of numbers take minutes
            raise yaml.YAMLError("it holds a number of more than 100 digits")
        return yaml.SafeLoader.construct_yaml_int(loader, node)

    class Plain(yaml.SafeLoader):
        """Without aliases, by which a few lines can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it holds an alias")
            return super().compose_node(parent, index)

    Plain.add_constructor("tag:yaml.org,2002:int", construct_yaml_int)
    if not yaml.__with_libyaml__:
        return None, Plain

    class Quick(yaml.CSafeLoader):
        """Ten times as fast."""

    Quick.add_constructor("tag:yaml.org,2002:int", construct_yaml_int)
    return Quick, Plain
