"""The door: `python main.py --model mepo --dataset seq-digits` trains, `python main.py COMMAND ...` does the rest.

`python main.py --help` lists methods, datasets and commands. Exit codes: 0 done, 1 it failed, 2 bad input, 75 told to
stop (a scheduler may requeue), 130 interrupted.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import os
import signal
import sys
from collections.abc import Callable

ROOT = os.path.dirname(os.path.abspath(__file__))
OURS = ("backbone", "command", "datasets", "models", "utils")  # packages of which others have the names

if __name__ == "__main__":  # ours, whatever other package of that name there is, or was imported when Python started
    sys.path.insert(0, ROOT)
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]

from utils.errors import UsageError, reason  # noqa: E402
from utils.runs import signals  # noqa: E402


def main(argv: list[str]) -> int:
    """Does what the words say; gives the exit code."""
    # Threads that wait for each other spin for a moment only, then sleep, so that they do not hold cores that other
    # programs need. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    return answer(lambda: dispatch(argv), debug="--debug" in argv and argv[0].startswith("-"))


def dispatch(argv: list[str]) -> int | None:
    """Hands the words to the command that they name, else to training."""
    import importlib

    from utils import plan as plans
    from utils.registry import resolve_command
    from utils.runs.cores import Cores

    if argv and not argv[0].startswith("-"):
        return importlib.import_module(f"command.{resolve_command(argv[0])}").main(argv[1:])
    with Cores(early=not {"--dry_run", *plans.HELP} & {*argv}) as cores:
        plan = plans.parse(argv)
        if isinstance(plan, str):
            print(plan)
            return 0
        from command.train import command  # the last of what takes seconds, before signals reach anything but this

        command(plan, cores)
    return 0


def answer(work: Callable[[], int | None], debug: bool = False) -> int:
    """Exit code of what is done: what it gives itself, or by how it ended, which is said in one line.

    debug: errors are raised instead.
    """
    try:
        return work() or 0
    except (signals.Stopped, KeyboardInterrupt) as stop:
        print(signals.last_words(stop), file=sys.stderr)
        return getattr(stop, "code", signals.INTERRUPTED)
    except (UsageError, FloatingPointError, MemoryError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        if debug:
            raise
        from utils.files.disk import FULL

        print(f"error: {error.filename or 'a file'}: {error.strerror or reason(error)}", file=sys.stderr)
        return 1 if error.errno in (*FULL, errno.EFBIG) else 2


def begin() -> None:
    """First of all in a process that is a command, before what takes seconds to import: signals and the console."""
    if hasattr(builtins, "__IPYTHON__"):  # of a notebook, whose process goes on after this
        return
    for number in signals.CODES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signals.quit_at_once)
    from utils import requirements  # here, so that no signal comes before its handler
    from utils.runs import console

    if sys.version_info < (3, 10):  # noqa: UP036  (this file runs on older ones, so that they are answered)
        text = f"Python {sys.version.split()[0]} ({sys.executable}) is too old, 3.10 or newer is needed"
        print(f"error: {text}; {requirements.SETUP}", file=sys.stderr)
        sys.exit(2)
    console.outlive()


def leave(code: int) -> None:
    """Ends the process with this exit code."""
    if code == signals.INTERRUPTED:  # sys.exit lets it die of SIGINT instead where C code met the interrupt
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    begin()
    leave(main(sys.argv[1:]))
