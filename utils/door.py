"""The door of every command: what it needs, its console, its first moments, and its end in one line."""

from __future__ import annotations

import atexit
import builtins
import errno
import os
import signal
import sys
from collections.abc import Callable

from utils import signals
from utils.errors import UsageError, reason

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = ("backbone", "datasets", "models")  # packages of which others have the names
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def begin(packages: bool = True) -> None:
    """First of all in a process that is a command, before what takes seconds to import.

    packages: those that runs need are there, else the process ends with exit code 2.
    """
    if hasattr(builtins, "__IPYTHON__"):  # of a notebook, whose process goes on after this
        return
    for number in signals.CODES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signals.quit_at_once)
    from utils import console, requirements  # here, so that no signal comes before its handler

    if sys.version_info < (3, 10):  # noqa: UP036  (this file runs on older ones, so that they are answered)
        text = f"Python {sys.version.split()[0]} ({sys.executable}) is too old, 3.10 or newer is needed"
        print(f"error: {text}; {requirements.SETUP}", file=sys.stderr)
        sys.exit(2)
    console.outlive()
    sys.path.insert(0, ROOT)
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]  # of another package that Python imported when it started
    if packages and (code := answer(requirements.check)):
        sys.exit(code)


def answer(command: Callable[[], int | None], debug: bool = False) -> int:
    """Exit code of a command: 0 done, 1 it failed, 2 bad input, 75 told to stop, 130 interrupted; what it gives itself.

    Says in one line why it ended. debug: errors are raised instead.
    """
    try:
        return command() or 0
    except (signals.Stopped, KeyboardInterrupt) as stop:
        print(signals.last_words(stop), file=sys.stderr)
        return getattr(stop, "code", signals.INTERRUPTED)
    except (UsageError, FloatingPointError, MemoryError, OSError) as error:
        if debug:
            raise
        of_disk = isinstance(error, OSError)
        text = f"{error.filename or 'a file'}: {error.strerror or reason(error)}" if of_disk else error
        print(f"error: {text}", file=sys.stderr)
        bad_input = error.errno not in FULL if of_disk else isinstance(error, UsageError)
        return 2 if bad_input else 1


def leave(code: int) -> None:
    """Ends the process with this exit code."""
    if code == signals.INTERRUPTED:  # sys.exit lets it die of SIGINT instead where C code met the interrupt
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
