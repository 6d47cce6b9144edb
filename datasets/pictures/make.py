"""Makes the stored pictures from the npm package of icon sets and a renderer: command/make_pictures.sh calls this.

No run imports it. What it writes hangs on the package, the renderer, and the files of this folder.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
from pathlib import Path

import numpy as np

from datasets.pictures import stored
from datasets.pictures.choose import Split, split_emoji, split_icons
from datasets.pictures.package import PACKAGE, RENDERER, SIZE, Package, render
from datasets.pictures.shown import licences, sheet


def write(package: Package, split: Split, folder: Path, size: int, jobs: int) -> None:
    """The file of a dataset, its pictures at `size`."""
    training, test = split.sets()
    sets, sources = [*training, *test], split.sources()
    by_family = collections.defaultdict(list)
    for name in sets:
        by_family[split.families[name]].append(name)
    about = stored.About(
        size=size,
        concepts=split.concepts,
        sets=sets,
        training_sets=len(training),
        families=[by_family[family] for family in sorted(by_family)],
        development=[split.concepts.index(concept) for concept in split.development],
    )
    grey = split.name != "seq-emoji"
    pictures = split.drawings.pictures if size == SIZE else render(package, sources, size, grey, jobs)
    labels = np.array([split.concepts.index(source.concept) for source in sources])
    from_sets = np.array([sets.index(source.set) for source in sources])
    shape = (size, size) if grey else (4, size, size)
    stored.write(folder, split.name, about, labels, from_sets, pictures, shape)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="command/make_pictures.sh", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help=f"archive of {PACKAGE}, as npm packs it")
    parser.add_argument("--size", type=int, default=SIZE, help=f"side of a picture in pixels [{SIZE}]")
    parser.add_argument("--out", type=Path, help="folder for the files; must be given for another size")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of the pictures; none: no sheets")
    parser.add_argument("--jobs", type=int, default=1, help="processes that draw [1]")
    options = parser.parse_args(argv)
    if options.out is None and options.size != SIZE:
        parser.error(f"--size {options.size}: name a folder for it with --out")
    try:
        version = importlib.metadata.version(RENDERER[0])
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != RENDERER[1]:
        parser.error(
            f"{' '.join(RENDERER)} draws the pictures, {version} is installed; command/make_pictures.sh does it"
        )
    folder = options.out or stored.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    package = Package(options.package)
    icons = split_icons(package, options.jobs)
    splits = [*icons, split_emoji(package, icons, options.jobs)]
    for split in splits:
        write(package, split, folder, options.size, options.jobs)
        sizes = [sum((source.set in split.held_out) == side for source in split.sources()) for side in (False, True)]
        counts = [len({split.families[name] for name in part}) for part in split.sets()]
        print(
            f"{split.name}: {len(split.concepts):,} concepts, {sizes[0]:,} training and {sizes[1]:,} test pictures of "
            f"{len(split.sets()[0])} and {len(split.sets()[1])} sets in {counts[0]} and {counts[1]} families, "
            f"{stored.file_of(folder, split.name).stat().st_size / 1e6:.2f} MB"
        )
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            sheet(split).save(options.sheets / f"{split.name}.png", optimize=True)
    stored.write_sums(folder, [split.name for split in splits])
    (folder / "LICENCES.md").write_text(licences(package, splits), encoding="utf-8")


if __name__ == "__main__":
    main()
