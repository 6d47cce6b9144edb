"""Accuracy of the learner of a run on any folder of its classes: `python main.py evaluate RUN --data_dir DIR`.

Per class, and which class is taken for which as a picture. The folder has a folder per class, named as the run's.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from command.predict import add_common, check_batch, check_file, say_notes
from utils import requirements
from utils.args import Parser
from utils.errors import UsageError, printable
from utils.runs import signals
from utils.runs.cores import Cores

if TYPE_CHECKING:
    import numpy as np

    from command.opened import Opened

SHOWN = 5  # names in a line
PICTURE = "confusion.png"


def main(argv: list[str]) -> None:
    parser = Parser(prog="main.py evaluate", description="Accuracy of the learner of a run on a folder of its classes.")
    parser.add_argument("run", metavar="RUN", help="folder of a run that has ended")
    parser.add_argument("--data_dir", metavar="DIR", required=True, help="folder with a folder of images per class")
    parser.add_argument("--picture", metavar="FILE", help=f"where to draw the confusion matrix [RUN/{PICTURE}]")
    parser.add_argument("--csv", metavar="FILE", help="also write the matrix to a table, a row per true class")
    add_common(parser)
    options = parser.parse(argv)
    check_batch(options.batch_size)
    requirements.check()
    from command.opened import open_run
    from utils.runs.plots import draw_confusion

    picture = options.picture or str(Path(options.run, PICTURE))
    with signals.obeyed(), Cores() as cores:
        opened = open_run(options.run, options.device, options.plugins, to_learn=False)
        check_file(picture, "--picture")
        check_file(options.csv, "--csv")
        paths, slots = listed(opened, Path(options.data_dir))
        cores.take(opened.trainer.device)
        say_notes(opened, options.batch_size)
        counts = confusion(opened, paths, slots, options.batch_size)
        names = [printable(name) for name in opened.names]
        print(*lines(counts, names), sep="\n", flush=True)
        if options.csv:
            write_csv(Path(options.csv), counts, opened.names)
        title = f"{opened.plan.run.model}, {Path(options.data_dir).name}: {100 * share(counts):.1f} % right"
        if draw_confusion(Path(picture), counts, names, printable(title)):
            print(picture)


def listed(opened: Opened, folder: Path) -> tuple[list[Path], list[int]]:
    """Images of the classes that the learner has met, and their columns. Says which classes it does not know.

    Raises UsageError for a folder without class folders, or with none of these classes.
    """
    from utils.data.listing import class_folders, own_parts

    if not folder.is_dir():
        raise UsageError(printable(f"--data_dir {folder}: no such folder, or not readable"))
    columns = {name: column for column, name in enumerate(opened.names)}
    parts = own_parts(folder) if not {entry.name for entry in folder.iterdir()} & columns.keys() else None
    if parts is not None:
        folder = parts[1]
        print(printable(f"note: {folder} is the test part, and is taken"), file=sys.stderr)
    found = class_folders(folder, skip_empty=True, nested=True)
    for note in found.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    unknown = [name for name in found.names if name not in columns]
    if unknown:
        told = ", ".join(unknown[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
        met = f"the run has met {len(columns)} classes ({', '.join([*columns][:SHOWN])}"
        met += ", ...)" if len(columns) > SHOWN else ")"
        if len(unknown) == len(found.names):
            raise UsageError(printable(f"{folder}: no class of the run: {told}; {met}"))
        left_out = sum(found.names[label] not in columns for label in found.labels)
        print(printable(f"note: unknown to the run, {left_out} images left out: {', '.join(unknown)}"), file=sys.stderr)
    kept = [(path, columns[found.names[k]]) for path, k in zip(found.paths, found.labels) if found.names[k] in columns]
    return [path for path, _ in kept], [column for _, column in kept]


def confusion(opened: Opened, paths: list[Path], slots: list[int], batch_size: int | None) -> np.ndarray:
    """How many images of each class (row) were taken for each (column), int64 [C, C]. Says which cannot be read.

    Raises UsageError if none can.
    """
    import numpy as np
    from tqdm import tqdm

    counts = np.zeros((len(opened.names), len(opened.names)), np.int64)
    with tqdm(total=len(paths), desc="evaluate", unit="image", disable=None, leave=False) as bar:
        for (path, found), slot in zip(opened.predictions(paths, batch_size), slots, strict=True):
            if isinstance(found, str):
                bar.write(printable(f"warning: {path}: cannot be read ({found}); left out"), file=sys.stderr)
            else:
                counts[slot, int(found.argmax())] += 1
            bar.update()
    if not counts.any():
        raise UsageError("no image can be read")
    return counts


def share(counts: np.ndarray) -> float:
    """Of the images that were taken for what they are."""
    return float(counts.trace() / counts.sum())


def lines(counts: np.ndarray, names: list[str]) -> list[str]:
    """What to say of a confusion matrix: the accuracy, and that of each class."""
    width = max(map(len, names))
    told = [f"accuracy {100 * share(counts):.2f} % of {counts.sum():,} images"]
    for row, name in enumerate(names):
        number, right = int(counts[row].sum()), int(counts[row, row])
        if not number:
            told.append(f"  {name:{width}}  no images")
            continue
        others = [k for k in (-counts[row]).argsort(kind="stable").tolist() if k != row and counts[row, k]][:1]
        taken = f", most often taken for {names[others[0]]} ({counts[row, others[0]]})" if others else ""
        told.append(f"  {name:{width}}  {100 * right / number:6.2f} % of {number:,}{taken}")
    return told


def write_csv(file: Path, counts: np.ndarray, names: list[str]) -> None:
    from utils.files.atomic import written_whole

    with (
        written_whole(file) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as out,
    ):
        table = csv.writer(out)
        table.writerow(["class", "images", "accuracy", *names])
        for name, row, right in zip(names, counts.tolist(), counts.diagonal().tolist()):
            table.writerow([name, sum(row), f"{right / sum(row):.6f}" if sum(row) else "", *row])


if __name__ == "__main__":
    raise SystemExit("python main.py evaluate does this")
