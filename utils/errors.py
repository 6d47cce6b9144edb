"""The one exception that the command line turns into a single line and exit code 2."""


class UsageError(Exception):
    """Bad input. The message says in one line what is wrong, where, and what to do."""
