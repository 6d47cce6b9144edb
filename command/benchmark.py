"""What methods cost, by phase, beside the machine's limit: `python main.py benchmark`; `--against FILE` compares.

Each method is a run as training makes it, on random images; nothing is downloaded. docs/speed.md explains the numbers.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command.predict import check_file
from utils import requirements
from utils.args import Parser
from utils.errors import UsageError
from utils.runs import signals
from utils.runs.cores import Cores

if TYPE_CHECKING:  # they need torch, which --help does not wait for
    from command.workload import Subject
    from utils.plan import Plan
    from utils.report.speed import Case, Result

PROMPT_METHODS = ["l2p", "dualprompt", "coda", "mvp", "misa", "flyprompt", "singleprompt"]
BACKBONES = ["vit_tiny_icons", "reference"]
PRECISIONS = ["32", "bf16"]
MEASURING = ("methods", "backbones", "precisions", "device", "batch_size", "repeats", "seconds")  # options of that
BATCH_SIZE = 64
# Methods, repeats and seconds where nothing else is given. The tables of README are those of a suite.
USUAL = ([*PROMPT_METHODS, "mepo:dualprompt"], 5, 300.0)
GROWTH = "growth"  # a suite of its own: command/growth.py
SUITES = {"readme": ([*PROMPT_METHODS, *(f"mepo:{host}" for host in PROMPT_METHODS)], 5, 1800.0)}


def main(argv: list[str]) -> None:
    options = _parser().parse(argv)
    given = [name for name in ("json", *MEASURING) if getattr(options, name) is not None]
    if options.show and given:
        raise UsageError(f"--show and --{given[0]}: the results of --show are in a file already, nothing is measured")
    if options.suite == GROWTH:
        chosen = [
            *(name for name in given if name not in ("json", "device")),
            *(["against"] if options.against else []),
        ]
        if options.show or chosen:
            raise UsageError(
                f"--suite {GROWTH} and --{chosen[0] if chosen else 'show'}: it takes --json and --device alone"
            )
    for name in ("batch_size", "repeats", "seconds"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= 10**6:
            raise UsageError(f"--{name} {value:g}: give a number from 1 to 1,000,000")
    requirements.check()
    from utils.report import speed

    check_file(options.json, "--json")
    if options.suite == GROWTH:
        from command.growth import measure_growth
        from utils import device as devices

        device = devices.pick(options.device)
        with signals.obeyed(), Cores() as cores:
            cores.take(device)
            measure_growth(device, Path(options.json) if options.json else None)
        return
    before = speed.read(Path(options.against)) if options.against else None
    with signals.obeyed():
        result = speed.read(Path(options.show)) if options.show else measure_all(options, before)
        if options.json:
            speed.write(Path(options.json), result)
        print(*speed.heading(result), "", speed.summary(result), sep="\n")
        if options.suite is None:
            for case in result.cases:
                print("", case.title(), "", speed.phases(case), sep="\n")
        if before is not None:
            print("", f"Against {options.against}", "", speed.comparison(result, before), sep="\n")
        sys.stdout.flush()


def _parser() -> Parser:
    parser = Parser(prog="main.py benchmark", description="What methods cost, by phase, beside the machine's limit.")
    methods, repeats, seconds = USUAL
    wrapped = "METHOD, or METHOD:HOST for one that wraps another"
    add = parser.add_argument
    add("--methods", nargs="+", metavar="METHOD", help=f"{wrapped} [{' '.join(methods)}]")
    add("--backbones", nargs="+", metavar="STR", help=f"as --backbone, or reference [{' '.join(BACKBONES)}]")
    add("--precisions", nargs="+", metavar="{32,bf16}", help=f"arithmetic of forward passes [{' '.join(PRECISIONS)}]")
    add("--device", metavar="STR", help="cpu, cuda or cuda:<index> [cuda if there is one]")
    add("--batch_size", type=int, metavar="INT", help=f"images of a training batch; tests have twice [{BATCH_SIZE}]")
    add("--repeats", type=int, metavar="INT", help=f"at most, of each case [{repeats}]")
    add("--seconds", type=float, metavar="FLOAT", help=f"shared by all cases, each has one repeat [{seconds:g}]")
    suites = "readme: the table of README, every method and MePo on each, 18 minutes; growth: how cost grows"
    add("--suite", choices=[*SUITES, GROWTH], help=suites)
    add("--json", metavar="FILE", help="also write all repeats there")
    add("--show", metavar="FILE", help="measure nothing, take the results of that file")
    add("--against", metavar="FILE", help="results to compare with, phase by phase")
    return parser


def measure_all(options: Any, before: Result | None) -> Result:
    """Every method on every network at every precision. All that can be wrong is found before anything is measured.

    before: results that are to have a case in common. Raises UsageError.
    """
    from command.workload import plan_of, subjects_of
    from utils import device as devices
    from utils.machine import describe
    from utils.report.speed import Result
    from utils.runs.identity import git_commit, versions

    methods, repeats, seconds = USUAL if options.suite is None else SUITES[options.suite]
    methods, repeats, seconds = options.methods or methods, options.repeats or repeats, options.seconds or seconds
    batch_size = options.batch_size or BATCH_SIZE
    device, precisions = devices.pick(options.device), options.precisions or PRECISIONS
    left_out = options.precisions is None and devices.lacks_bf16(device)
    if left_out:
        precisions = ["32"]
    subjects = subjects_of(methods, options.backbones or BACKBONES, precisions)
    cases, until = [], time.monotonic() + seconds
    with Cores() as cores, tempfile.TemporaryDirectory() as work:
        plans = [plan_of(subject, batch_size, device, Path(work)) for subject in subjects]
        if before is not None:
            _check_common([_described(*pair) for pair in zip(subjects, plans)], before, options.against)
        if left_out:
            print("bf16 is left out: this CPU has no arithmetic for it; --precisions bf16 measures it", file=sys.stderr)
        cores.take(device)
        for k, (subject, plan) in enumerate(zip(subjects, plans)):
            share = (until - time.monotonic()) / (len(subjects) - k)
            cases.append(_measured(subject, plan, repeats, time.monotonic() + share, Path(work)))
        machine = describe(device) | {"commit": git_commit()} | versions()
    asked = {"methods": methods, "batch_size": batch_size, "repeats": repeats, "seconds": seconds}
    return Result(machine, asked, cases)


def _described(subject: Subject, plan: Plan) -> Case:
    """A case that has not been measured."""
    from command.workload import UPDATES, side_of
    from utils.report.speed import Case

    return Case(
        method=subject.title,
        backbone=subject.backbone,
        size=side_of(subject.backbone),
        precision=subject.precision,
        device=(plan.run.device or "cpu").partition(":")[0],
        batch_size=plan.run.batch_size,
        updates=UPDATES,
        flops={},
        as_written=None,
        repeats=[],
    )


def _check_common(cases: list[Case], before: Result, file: str) -> None:
    """Raises UsageError unless one of the cases is in the file, too."""
    if not {case.key() for case in cases} & {case.key() for case in before.cases}:
        raise UsageError(
            f"--against {file}: has none of these cases, each a method, network, size, precision, device and batch size"
        )


def _measured(subject: Subject, plan: Plan, repeats: int, until: float, work: Path) -> Case:
    """One case; says that it is done. until: time on the monotonic clock after which no further repeat begins."""
    from command.measured import measure
    from command.workload import as_written, trainer_of
    from utils import device as devices

    began = time.monotonic()
    gc.collect()  # the case before holds its memory in a circle
    try:
        trainer = trainer_of(plan, repeats + 2)
        flops, done = measure(trainer, plan, repeats, until, work / "checkpoints")
    except (RuntimeError, MemoryError) as error:
        if not devices.out_of_memory(error):
            raise
        raise MemoryError(
            f"{subject.title} on {subject.backbone}: out of memory; try a smaller --batch_size"
        ) from error
    finally:
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    case = replace(
        _described(subject, plan), flops=flops, as_written=as_written(plan, trainer.model.backbone), repeats=done
    )
    print(
        f"{case.title()}: {len(done)} repeat{'s' * (len(done) > 1)}, {time.monotonic() - began:.0f} s", file=sys.stderr
    )
    return case


if __name__ == "__main__":
    raise SystemExit("python main.py benchmark does this")
