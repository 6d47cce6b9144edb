"""The one exception that the command line turns into a single line and exit code 2, and what fits such a line."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input. The message says in one line what is wrong, where, and what to do."""


def reason(error: Exception) -> str:
    """What an error of a library says, in a line: its first, or its kind if it says nothing; at most 200 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
