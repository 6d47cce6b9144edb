"""Classes of pictures, or of folders of them, by the learner of a run: `python main.py predict RUN PATH...`.

A line per picture, in the order given: its most probable classes with their probabilities, or why it cannot be read.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils import requirements
from utils.args import Parser
from utils.errors import UsageError, printable
from utils.runs import signals
from utils.runs.cores import Cores

if TYPE_CHECKING:  # it needs torch, which --help does not wait for
    from torch import Tensor

    from command.opened import Opened

SHOWN = 5  # classes of a picture


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py predict", description="Classes of pictures by the learner of a run.")
    parser.add_argument("run", metavar="RUN", help="folder of a run that has ended")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="image, or folder with images in it and below")
    parser.add_argument("--top", type=int, default=SHOWN, help=f"most probable classes of each picture [{SHOWN}]")
    parser.add_argument("--csv", metavar="FILE", help="also write them to a table")
    add_common(parser)
    options = parser.parse(argv)
    if options.top < 1:
        raise UsageError(f"--top {options.top}: give a number of classes, at least 1")
    check_batch(options.batch_size)
    requirements.check()
    from command.opened import open_run

    with signals.obeyed(), Cores() as cores:
        paths = list(pictures([Path(name) for name in options.paths]))
        check_file(options.csv, "--csv")
        opened = open_run(options.run, options.device, options.plugins, to_learn=False)
        cores.take(opened.trainer.device)
        say_notes(opened, options.batch_size)
        rows = predict(opened, paths, options.top, options.batch_size)
        if options.csv:
            write_csv(Path(options.csv), min(options.top, len(opened.names)), rows)


def add_common(parser: Parser) -> None:
    """Options of everything that asks a learner."""
    parser.add_argument(
        "--batch_size", type=int, metavar="INT", help="pictures at a time [--eval_batch_size of the run]"
    )
    parser.add_argument("--device", metavar="STR", help="cpu, cuda or cuda:<index> [cuda if there is one]")
    parser.add_argument("--plugins", metavar="DIR", help="folder with the run's models/*.py and datasets/*.py")


def check_batch(size: int | None) -> None:
    if size is not None and size < 1:
        raise UsageError(f"--batch_size {size}: give a number of pictures, at least 1")


def check_file(file: str | None, option: str) -> None:
    """Raises UsageError if a file cannot be written there."""
    from utils.files.disk import check_writable

    if file is not None:
        if Path(file).is_dir():
            raise UsageError(f"{option} {file}: is a folder; name a file")
        check_writable(Path(file).absolute().parent, option)


def pictures(given: list[Path]) -> Iterator[Path]:
    """The files that are named, and the images of folders, in the order given. Raises UsageError for what is not there,
    cannot be listed, or is a folder without images."""
    from utils.data.listing import images_below

    for path in given:
        try:
            is_folder = path.is_dir()
            if not is_folder and not path.exists():
                raise UsageError(printable(f"{path}: no such file or folder"))
        except OSError as error:
            raise UsageError(printable(f"{path}: {error.strerror}")) from None
        if not is_folder:
            yield path
            continue
        found = images_below(path)
        for note in found.notes:
            print(printable(f"note: {note}"), file=sys.stderr)
        yield from found.paths


def say_notes(opened: Opened, batch_size: int | None) -> None:
    """What is worth knowing of all predictions of this learner."""
    size = batch_size or opened.plan.run.eval_batch_size
    if opened.by_batch:
        print(
            f"note: {opened.by_batch}: a prediction depends on the other pictures of its batch of {size} "
            "(--batch_size), and on their order",
            file=sys.stderr,
        )
    if opened.plan.run.scenario == "task-il":
        print("note: the run was told the task of each image; here all classes met compete", file=sys.stderr)


def predict(opened: Opened, paths: list[Path], top: int, batch_size: int | None) -> list[list[str]]:
    """Prints a line per picture; gives the rows of the table."""
    from tqdm import tqdm

    rows = []
    with tqdm(total=len(paths), desc="predict", unit="image", disable=None, leave=False) as bar:
        for path, found in opened.predictions(paths, batch_size):
            if isinstance(found, str):
                line, row = f"cannot be read ({found})", [str(path), found]
            else:
                best = most_probable(opened.names, found, top)
                line = ", ".join(f"{name} {share:.3f}" for name, share in best)
                row = [str(path), "", *(text for name, share in best for text in (name, f"{share:.6f}"))]
            bar.write(printable(f"{path}: {line}"), file=sys.stdout)
            bar.update()
            rows.append(row)
    sys.stdout.flush()
    return rows


def most_probable(names: list[str], probabilities: Tensor, top: int) -> list[tuple[str, float]]:
    """The `top` names with the largest probabilities [C], equal ones in their order."""
    order = probabilities.argsort(descending=True, stable=True)[:top].tolist()
    return [(names[k], float(probabilities[k])) for k in order]


def write_csv(file: Path, classes: int, rows: list[list[str]]) -> None:
    """file, error, class_1, probability_1, ...: empty cells where there is nothing."""
    from utils.files.atomic import written_whole

    heading = ["file", "error"]
    heading += [f"{what}_{k}" for k in range(1, classes + 1) for what in ("class", "probability")]
    with (
        written_whole(file) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as out,
    ):
        table = csv.writer(out)
        table.writerow(heading)
        table.writerows(row + [""] * (len(heading) - len(row)) for row in rows)


if __name__ == "__main__":
    raise SystemExit("python main.py predict does this")
