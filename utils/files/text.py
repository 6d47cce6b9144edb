"""Text, JSON and YAML of files that may be anybody's: without waiting for a pipe, and without end."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import reason


def refuse_pipe(path: Path) -> None:
    """Raises OSError for a pipe or a device, which might never answer or end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))


def open_file(path: Path) -> BinaryIO:
    """A file to be read as bytes. Raises OSError, as `refuse_pipe` does too."""
    refuse_pipe(path)
    return open(path, "rb")


def read_text(path: Path, most: int | None = None) -> str:
    """Text of a file, its line ends as they are, a byte order mark dropped. Raises OSError, or ValueError for no UTF-8.

    most: bytes of a longer file that is not read, a ValueError too.
    """
    with open_file(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values. Raises ValueError for whatever is wrong with it."""
    import yaml

    class Plain(yaml.SafeLoader):
        """Without aliases, by which a few lines can stand for gigabytes, and without numbers that take minutes."""

        def construct_yaml_int(self, node: Any) -> int:
            if len(node.value) > 100:
                raise yaml.YAMLError("it holds a number of more than 100 digits")
            return super().construct_yaml_int(node)

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it holds an alias")
            return super().compose_node(parent, index)

    Plain.add_constructor("tag:yaml.org,2002:int", Plain.construct_yaml_int)
    try:
        return Plain(text).get_single_data()
    except Exception as error:  # of odd numbers, dates and depths it makes errors of all kinds
        raise ValueError(reason(error)) from None
