"""The one exception that the command line turns into a single line and exit code 2, and what fits such a line."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input. The message says in one line what is wrong, where, and what to do."""


def reason(error: Exception) -> str:
    """What an error of a library says, as one line of at most 200 characters; its kind if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def printable(text: str) -> str:
    """Text of one line that a terminal only shows: characters that do more, or cannot be written, as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
