"""The best value of an option, from validation runs: `python main.py choose RUNS --option lr --by A_train --rule mode`.

Standard output has the value alone, so that a script can take it: `lr=$(python main.py choose ...)`. Votes and the
table go to standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from utils import requirements
from utils.args import Parser
from utils.errors import UsageError
from utils.runs import signals


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py choose", description="The best value of an option, from validation runs.")
    parser.add_argument("runs", metavar="RUNS", nargs="+", help="run folders, or folders above them")
    parser.add_argument("--option", metavar="NAME", required=True, help="in which the runs differ: lr ...")
    parser.add_argument("--by", metavar="MEASURE", required=True, help="of summary.json: A_train, A_last ...")
    parser.add_argument(
        "--rule",
        choices=["mode", "mean"],
        required=True,
        help="mode: the value that is best for most seeds (equal for a seed: the largest; equal votes: the smallest); "
        "mean: that of the best mean over seeds (equal: the smallest)",
    )
    options = parser.parse(argv)
    requirements.check()
    from utils.report.choice import choose
    from utils.report.markup import markdown_table
    from utils.runs.reading import find_runs, read_run
    from utils.training.metrics import MEASURES

    if options.by not in MEASURES:
        raise UsageError(f"--by {options.by}: no such measure; choose from {', '.join(MEASURES)}")
    with signals.obeyed():
        runs = [read_run(folder) for folder in find_runs([Path(name) for name in options.runs])]
        choice = choose(runs, options.option, options.by, options.rule)
        print(markdown_table(choice.table(options.option)), file=sys.stderr)
        print(choice.value)


if __name__ == "__main__":
    raise SystemExit("python main.py choose does this")
