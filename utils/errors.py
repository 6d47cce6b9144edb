"""The one exception that the command line turns into a single line and exit code 2, and what fits such a line."""

from __future__ import annotations

import re

# Control characters, line ends, and halves of characters but for those by which Python spells other encodings.
FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")


class UsageError(Exception):
    """Bad input. The message says in one line what is wrong, where, and what to do."""


def reason(error: object) -> str:
    """What an error of a library says, as one line of at most 200 characters; its kind if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def printable(text: str) -> str:
    """Text of one line that a terminal only shows: characters that do more, or cannot be written, as their escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
