"""Tables and pictures of a comparison, from run folders: `python main.py report runs`."""

from __future__ import annotations

import sys
from pathlib import Path

from utils import requirements
from utils.args import Parser
from utils.runs import signals


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py report", description="Tables and pictures of a comparison, from run folders.")
    parser.add_argument("runs", nargs="*", default=["runs"], help="run folders, or folders above them [runs]")
    parser.add_argument("--out", metavar="DIR", help="where to write [the folder that the given runs share]")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="also the paired difference of each row to the row of this name; 'host': of each row 'mepo (X)' to X",
    )
    parser.add_argument("--over", metavar="OPTION", help="also A_auc over the values of this option of numbers: lr ...")
    parser.add_argument(
        "--interval",
        action="store_true",
        help="mean and 95%% bootstrap interval over seeds instead of mean and deviation; of runs with --eval_train "
        "also both accuracies over the classes learnt, of numbers the error over the functions learnt",
    )
    options = parser.parse(argv)
    requirements.check()
    from utils.files.disk import unlisted
    from utils.report.comparison import report
    from utils.runs.reading import shared_folder

    given = [Path(name) for name in options.runs]
    with signals.obeyed():
        for line in [line for folder in given if folder.is_dir() for line in unlisted(folder)]:
            print(f"warning: {line}; no run in it counts", file=sys.stderr)
        out = Path(options.out) if options.out else shared_folder(given)
        report(given, out, options.baseline, options.over, options.interval)


if __name__ == "__main__":
    raise SystemExit("python main.py report does this")
