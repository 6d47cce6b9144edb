"""Contact sheets of the pictures, and the list of their licences. Used by `make` alone."""

from __future__ import annotations

import collections
import itertools

import numpy as np
from PIL import Image, ImageDraw

from datasets.pictures.choose import Split
from datasets.pictures.package import PACKAGE, SIZE, Package

SHEET = 24, 24, 10  # concepts, sets of training, sets of test on a contact sheet
SHEET_COLOURS = 64


def licences(package: Package, splits: list[Split]) -> str:
    """The text of LICENCES.md: who drew what, under which terms."""
    lines = [
        "# Licences of the pictures",
        "",
        "`icons.xz`, `seq-icons.xz` and `seq-emoji.xz` hold drawings of free sets, as they are in the npm package",
        f"`{PACKAGE}`, brought to {SIZE} x {SIZE} pixels, icons in grey. That is the only change. Each set keeps",
        "the licence of its authors. Made by `command/make_pictures.sh`; sets of other licences (non-commercial,",
        "share-alike, GPL, font licences, none stated) are left out.",
    ]
    for split in splits:
        training, test = split.sets()
        counts = collections.Counter(source.set for source in split.sources())
        lines += ["", f"## {split.name}", "", "| set | name | author | licence | pictures | part |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for part, sets in (("training", training), ("test", test)):
            for name in sets:
                about = package.collections[name]
                licence, author = about["license"], about["author"]
                lines.append(
                    f"| `{name}` | {_cell(about['name'])} | {_link(author['name'], author.get('url'))} | "
                    f"{_link(licence['spdx'], licence.get('url'))} | {counts[name]:,} | {part} |"
                )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def _link(text: str, address: str | None) -> str:
    return f"[{_cell(text)}]({address})" if address else _cell(text)


def sheet(split: Split) -> Image.Image:
    """Some concepts, a row each, in the sets that have most of them; those of the test part are to the right of the
    line."""
    drawn_by = collections.Counter(concept for concept, _ in {(s.concept, s.set) for s in split.sources()})
    ends = [k * len(split.concepts) // SHEET[0] for k in range(SHEET[0] + 1)]
    concepts = [
        max(split.concepts[start:end], key=lambda name: drawn_by[name]) for start, end in itertools.pairwise(ends)
    ]
    first: dict[tuple[str, str], np.ndarray] = {}
    for source, picture in zip(split.sources(), split.drawings.pictures):
        first.setdefault((source.concept, source.set), picture)
    columns = []
    for sets, most in zip(split.sets(), SHEET[1:]):
        filled = {name: sum((concept, name) in first for concept in concepts) for name in sets}
        columns.append(sorted(sorted(sets, key=lambda name: (-filled[name], name))[:most]))
    cell, text = SIZE + 4, 150
    line = text + len(columns[0]) * cell + 2
    canvas = Image.new("RGB", (text + sum(map(len, columns)) * cell + 8, len(concepts) * cell), "white")
    draw = ImageDraw.Draw(canvas)
    draw.line([(line, 0), (line, canvas.height)], fill="#D55E00", width=2)
    for row, concept in enumerate(concepts):
        draw.text((4, row * cell + 12), concept[:24], fill="black")
        for part, sets in enumerate(columns):
            for column, name in enumerate(sets):
                if (picture := first.get((concept, name))) is not None:
                    place = text + (column + part * len(columns[0])) * cell + part * 8, row * cell + 2
                    canvas.paste(_shown(picture), place)
    return canvas.convert("P", palette=Image.Palette.ADAPTIVE, colors=SHEET_COLOURS)


def _shown(picture: np.ndarray) -> Image.Image:
    """A picture on white."""
    if picture.ndim == 2:
        return Image.fromarray(picture)
    colour, coverage = picture[:3].astype(np.int64), picture[3:].astype(np.int64)
    painted = (colour * coverage + 255 * (255 - coverage) + 127) // 255
    return Image.fromarray(painted.astype(np.uint8).transpose(1, 2, 0))
