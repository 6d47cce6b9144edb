"""Makes the stored pictures from the npm package of icon sets and a renderer: command/make_pictures.sh calls this.

No run imports it. What it writes hangs on the package, the renderer and this file only.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import importlib.metadata
import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from datasets.pictures import names, stored

PACKAGE = "@iconify/json 2.2.535"
PACKAGE_SHA256 = "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91"
RENDERER = "resvg-py", "0.5.0"

# Licences that allow copies and changes without a condition on what they become part of; any other set is left out.
LICENCES = ("MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "Unlicense", "CC-BY-4.0", "CC-BY-3.0")

# Icons: which sets and which names
NO_ICONS = ("Emoji", "Logos", "Programming")  # categories
ICONS_TOO = ("codicon",)  # a set of icons, whatever its category
NO_SETS = ("circle-flags", "cif", "fa6-brands", "fa-brands", "flag", "flagpack", "fluent-emoji", "ginetex")
NO_SETS += ("svg-spinners",)
STYLES = (
    "alt big bold broken bulk circle circled color colored duo duo-tone duotone fade fill filled flat free glyph icon "
    "icons large lg light line linear lines md medium micro mini o outline outlined pixel poly regular remix round "
    "rounded sharp sm small solid square squared stroke stroked symbol thick thin tone two two-tone twotone xl "
    "xs"
)  # words at the end of an icon's name that say how it is drawn, not what
FIRST_STYLES = "baseline bold fill filled line outline outlined round rounded sharp solid twotone"
MIN_SETS = 8  # in which a concept is drawn
SIZE = 32  # pixels per side of the committed pictures, by which all else is decided
BATCH = 4096  # drawings on their way to the processes
LEAST_INK, MOST_INK = 0.02, 0.9  # mean darkness of a picture that shows something
FEW = 5  # equal pictures that two sets may share and be no family
VARIANTS = 4  # pictures of a concept in a set
ORDERED = ("corner",)  # first words after which the order of the others counts
FILLERS = "face red sign symbol button of the and with a in"  # words that make no other concept

# Which sets are tested on, with all of their families; and how many pictures a concept needs, for training and test.
HELD_OUT = ("carbon", "fluent", "game-icons", "griddy-icons", "hugeicons", "la", "mingcute", "pixel")
DRAWN, WELL_DRAWN = (8, 1), (12, 3)
ICONS, SEQ_ICONS, DEVELOPMENT = 1000, 200, 100  # concepts

# Emoji: styles of training and test
EMOJI = ("fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "noto", "noto-v1", "streamline-emojis")
EMOJI_TEST = ("twemoji", "fxemoji", "emojione-monotone")
EMOJI_FAMILIES = {
    "emojione": ("emojione-monotone",),
    "fluent": EMOJI[:3],
    "fxemoji": ("fxemoji",),
    "noto": EMOJI[3:5],
    "streamline": EMOJI[5:],
    "twemoji": ("twemoji",),
}
NO_WORDS = "skin-tone|button|^flag-for|oclock|thirty"
SEQ_EMOJI = 300  # concepts

SHEET = 24, 24, 10  # concepts, sets of training, sets of test on a contact sheet
SHEET_COLOURS = 64


@dataclass(frozen=True)
class Source:
    """A drawing of the package: an icon of a set, and the concept it shows."""

    concept: str
    set: str
    icon: str


class Package:
    """The sets of icons in the npm package, read where they lie in its archive."""

    def __init__(self, file: Path):
        if (found := _sha256(file.read_bytes())) != PACKAGE_SHA256:
            raise SystemExit(f"{file}: is not {PACKAGE} (sha256 {found})")
        self.collections: dict[str, Any] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        with tarfile.open(file) as archive:
            for member in archive:
                name = member.name.removeprefix("package/")
                if name == "collections.json":
                    self.collections = json.load(archive.extractfile(member))
                elif name.startswith("json/") and name.endswith(".json"):
                    self.sets[Path(name).stem] = json.load(archive.extractfile(member))

    def licence(self, name: str) -> str | None:
        return self.collections[name]["license"].get("spdx")

    def author(self, name: str) -> str:
        return self.collections[name]["author"]["name"]

    def icons(self, name: str) -> Iterator[str]:
        """Names of a set that are drawn anew; aliases are not."""
        return (icon for icon, drawn in self.sets[name]["icons"].items() if not drawn.get("hidden"))

    def svg(self, source: Source, size: int) -> str | None:
        """The drawing on a square without ground, or None if it is another one turned."""
        collection, icon = self.sets[source.set], source.icon
        while icon not in collection["icons"]:
            alias = collection["aliases"][icon]
            if alias.keys() & {"rotate", "hFlip", "vFlip"}:
                return None
            icon = alias["parent"]
        drawn = {"left": 0, "top": 0, "width": 16, "height": 16} | collection | collection["icons"][icon]
        side = max(drawn["width"], drawn["height"])
        left, top = drawn["left"] - (side - drawn["width"]) / 2, drawn["top"] - (side - drawn["height"]) / 2
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" '
            f'viewBox="{left} {top} {side} {side}" width="{size}" height="{size}">{drawn["body"]}</svg>'
        )


# Which drawings show the same


def concept_of(icon: str) -> str:
    """What an icon shows, by its name without the words of style and the numbers at its ends."""
    words = [word for word in icon.split("-") if word]
    while len(words) > 1 and (words[-1] in STYLES.split() or words[-1].isdigit()):
        words.pop()
    while len(words) > 1 and words[0] in FIRST_STYLES.split():
        words.pop(0)
    if len(words) > 1:
        words = [names.WORDS.get(word, word) for word in words]
    return "-".join(words)


def key_of(concept: str) -> tuple[str, ...]:
    """What two spellings of a concept share: the words in any order, "corner-left-up" and its like apart."""
    words = concept.split("-")
    return tuple(words if words[0] in ORDERED else sorted(words))


def stem_of(concept: str) -> tuple[str, ...]:
    """As `key_of`, of one or many: concepts that share it stay on one side of every split."""
    words = [word.removesuffix("s") for word in concept.split("-") if word not in FILLERS.split()]
    return tuple(sorted(words) or [concept])


def one_name_each(counts: collections.Counter[str]) -> dict[str, str]:
    """Concept -> its name: of all names of one thing the one that most sets use. What means nothing is left out."""
    same = {key_of(name): key_of(group[0]) for group in names.groups(names.SAME) for name in group}
    spellings: dict[tuple[str, ...], list[str]] = collections.defaultdict(list)
    for concept in sorted(counts):
        spellings[same.get(key_of(concept), key_of(concept))].append(concept)
    without = {*names.BRANDS.split(), *names.SEVERAL_MEANINGS.split()}
    return {
        concept: max(group, key=lambda name: counts[name])
        for group in spellings.values()
        for concept in group
        if concept not in without and len(concept) > 1 and not concept.isdigit()
    }


def icon_sets(package: Package) -> list[str]:
    """Sets of icons, of several subjects, whose licence allows it."""
    return [
        name
        for name, about in sorted(package.collections.items())
        if (about.get("category") not in NO_ICONS or name in ICONS_TOO)
        and name not in NO_SETS
        and package.licence(name) in LICENCES
    ]


def icon_sources(package: Package) -> list[Source]:
    """The drawings of all concepts that enough sets have, a few of each set."""
    icons = {name: [(concept_of(icon), icon) for icon in package.icons(name)] for name in icon_sets(package)}
    named = one_name_each(collections.Counter(concept for own in icons.values() for concept in {c for c, _ in own}))
    drawn: dict[str, dict[str, dict[str, str]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for name, own in icons.items():
        for concept, icon in sorted(own, key=lambda pair: _by_number(pair[1])):
            if concept in named:
                # Of the sizes of one drawing the last, which is the largest, is taken.
                style = "-".join(word for word in icon.split("-") if not word.isdigit())
                drawn[named[concept]][name][style] = icon
    return [
        Source(concept, name, icon)
        for concept, sets in sorted(drawn.items())
        if len(sets) >= MIN_SETS
        for name, styles in sorted(sets.items())
        for icon in _spread(sorted(styles.values()), VARIANTS)
    ]


def _by_number(icon: str) -> list:
    return [(int(word), "") if word.isdigit() else (0, word) for word in icon.split("-")]


def _spread(values: list[str], count: int) -> list[str]:
    """`count` of the values, evenly over all of them."""
    if len(values) <= count:
        return values
    return [values[k * (len(values) - 1) // (count - 1)] for k in range(count)]


# Drawing


def rendered(drawing: str | None, grey: bool) -> np.ndarray | None:
    """A drawing as uint8: grey on white [S, S], or colours and coverage [4, S, S]; None if it cannot be drawn."""
    import resvg_py

    if drawing is None:
        return None
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=drawing, skip_system_fonts=True))
    except ValueError:
        return None
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).transpose(2, 0, 1)
    return as_grey(picture) if grey else picture


def as_grey(picture: np.ndarray) -> np.ndarray:
    """Colours and coverage uint8 [4, S, S] on white, as luma uint8 [S, S]."""
    red, green, blue, coverage = picture.astype(np.int64)
    luma = 299 * red + 587 * green + 114 * blue  # in 1/1000
    return ((luma * coverage + 255_000 * (255 - coverage) + 127_500) // 255_000).astype(np.uint8)


def render(package: Package, sources: list[Source], size: int, grey: bool, jobs: int) -> Iterator[np.ndarray | None]:
    """The drawings, one after the other."""
    drawings = (package.svg(source, size) for source in sources)
    if jobs == 1:
        yield from map(partial(rendered, grey=grey), drawings)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for _ in range(0, len(sources), BATCH):
            yield from pool.map(partial(rendered, grey=grey), itertools.islice(drawings, BATCH), chunksize=64)


# Which of them are kept


@dataclass(frozen=True)
class Drawn:
    """Drawings and their pictures at `SIZE`."""

    sources: list[Source]
    pictures: np.ndarray

    def only(self, kept: Iterable[int]) -> Drawn:
        rows = list(kept)
        return Drawn([self.sources[row] for row in rows], self.pictures[rows])

    def digests(self) -> list[str]:
        return [_sha256(picture.tobytes()) for picture in self.pictures]


def drawn(package: Package, sources: list[Source], grey: bool, jobs: int) -> Drawn:
    """What can be drawn and shows something: neither nearly empty nor nearly full of ink."""
    kept, pictures = [], []
    for source, picture in zip(sources, render(package, sources, SIZE, grey, jobs)):
        if picture is None or picture.shape[-2:] != (SIZE, SIZE):
            continue
        ink = 1 - (picture if grey else as_grey(picture)).mean() / 255
        if LEAST_INK <= ink <= MOST_INK:
            kept.append(source)
            pictures.append(picture)
    return Drawn(kept, np.stack(pictures))


def families_of(package: Package, drawings: Drawn, related: list[list[str]]) -> dict[str, str]:
    """Set -> a set that stands for its family: sets of one author, of one origin, or with the same pictures."""
    parents = {source.set: source.set for source in drawings.sources}

    def root(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    by_digest: dict[str, set[str]] = collections.defaultdict(set)
    for source, digest in zip(drawings.sources, drawings.digests()):
        by_digest[digest].add(source.set)
    shared = _pairs(by_digest.values())
    by_author = collections.defaultdict(list)
    for name in sorted(parents):
        by_author[package.author(name)].append(name)
    groups = [*related, *by_author.values(), *(list(pair) for pair, count in shared.items() if count > FEW)]
    for group in groups:
        first, *others = sorted({root(name) for name in group if name in parents}) or [""]
        for other in others:
            parents[other] = first
    return {name: root(name) for name in parents}


def without_duplicates(drawings: Drawn, held_out: set[str]) -> Drawn:
    """Each picture once: of a concept the first one, in training before test. Pictures of two concepts are left out."""
    digests = drawings.digests()
    concepts = collections.defaultdict(set)
    for source, digest in zip(drawings.sources, digests):
        concepts[digest].add(source.concept)
    taken: set[str] = set()
    kept = []
    for row in sorted(range(len(digests)), key=lambda row: drawings.sources[row].set in held_out):
        if digests[row] not in taken and len(concepts[digests[row]]) == 1:
            taken.add(digests[row])
            kept.append(row)
    return drawings.only(sorted(kept))


def alike(drawings: Drawn) -> set[str]:
    """Concepts that share some pictures with another one, and so may mean the same."""
    by_digest: dict[str, set[str]] = collections.defaultdict(set)
    for source, digest in zip(drawings.sources, drawings.digests()):
        by_digest[digest].add(source.concept)
    # A picture of many concepts is a set's default, and says nothing of them.
    shared = _pairs(concepts for concepts in by_digest.values() if len(concepts) <= 3)
    return {concept for pair, count in shared.items() if count > 1 for concept in pair}


def _pairs(groups: Iterable[set[str]]) -> collections.Counter[tuple[str, str]]:
    """How often two names are in one group."""
    return collections.Counter(pair for group in groups for pair in itertools.combinations(sorted(group), 2))


# Which concepts are classes


@dataclass(frozen=True)
class Split:
    """Drawings of the concepts of a dataset, in the order of concepts and sets."""

    name: str
    concepts: list[str]
    drawings: Drawn
    held_out: set[str]
    families: dict[str, str]
    development: list[str]

    def sources(self) -> list[Source]:
        return self.drawings.sources

    def sets(self) -> tuple[list[str], list[str]]:
        """Those of training, those of the test part."""
        used = sorted({source.set for source in self.drawings.sources})
        return [name for name in used if name not in self.held_out], [name for name in used if name in self.held_out]


def split_of(
    name: str,
    concepts: Iterable[str],
    drawings: Drawn,
    held_out: set[str],
    families: dict[str, str],
    development: Iterable[str] = (),
) -> Split:
    chosen = {*concepts}
    rows = [row for row, source in enumerate(drawings.sources) if source.concept in chosen]
    rows.sort(key=lambda row: (drawings.sources[row].concept, drawings.sources[row].set, drawings.sources[row].icon))
    return Split(name, sorted(chosen), drawings.only(rows), held_out, families, sorted(development))


def split_icons(package: Package, jobs: int) -> list[Split]:
    """The two sets of icons: `icons`, and `seq-icons` of other concepts."""
    drawings = drawn(package, icon_sources(package), True, jobs)
    families = families_of(package, drawings, names.groups(names.RELATED))
    outside = {families[name] for name in HELD_OUT}
    held_out = {name for name, family in families.items() if family in outside}
    doubtful = alike(drawings)
    drawings = without_duplicates(drawings, held_out)
    train, test = (
        collections.Counter(source.concept for source in drawings.sources if (source.set in held_out) == side)
        for side in (False, True)
    )
    sets = collections.Counter(concept for concept, _ in {(s.concept, s.set) for s in drawings.sources})
    well = {concept for concept in train if train[concept] >= WELL_DRAWN[0] and test[concept] >= WELL_DRAWN[1]}
    usable = {concept for concept in train if train[concept] >= DRAWN[0] and test[concept] >= DRAWN[1]}
    by_stem = collections.defaultdict(list)
    for concept in usable:
        by_stem[stem_of(concept)].append(concept)
    alone = [group[0] for group in by_stem.values() if len(group) == 1 and group[0] in well - doubtful]
    further = set(sorted(alone, key=_lot)[:SEQ_ICONS])
    pretraining = sorted(usable - further, key=lambda concept: (-sets[concept], concept))[:ICONS]
    development = sorted(well.intersection(pretraining), key=_lot)[:DEVELOPMENT]
    return [
        split_of("icons", pretraining, drawings, held_out, families, development),
        split_of("seq-icons", further, drawings, held_out, families),
    ]


def emoji_sources(package: Package) -> list[Source]:
    """The drawings of emoji that all styles of the test part have; by the names of the first of them."""
    icons = {name: emoji_names(package, name) for name in (*EMOJI, *EMOJI_TEST)}
    usual = icons[EMOJI_TEST[0]]
    without = {_letters(name) for name in names.NO_EMOJI.split()}
    return [
        Source(usual[letters], name, icons[name][letters])
        for letters in sorted(usual)
        if letters not in without
        and not re.search(NO_WORDS, usual[letters])
        and all(letters in icons[name] for name in EMOJI_TEST)
        for name in (*EMOJI, *EMOJI_TEST)
        if letters in icons[name]
    ]


def emoji_names(package: Package, name: str) -> dict[str, str]:
    """What an emoji is called, by its letters alone -> its name in a set."""
    collection = package.sets[name]
    found = {_letters(icon): icon for icon in (*collection.get("aliases", {}), *package.icons(name))}
    if name == "fxemoji":
        usual = names.pairs(names.FXEMOJI)
        found = {letters: icon for letters, icon in found.items() if icon not in usual}
        found |= {_letters(other): icon for icon, other in usual.items()}
    if name == "streamline-emojis":  # numbers several drawings of one
        found = {letters[:-1]: icon for letters, icon in found.items() if letters.endswith("1")} | found
    return found


def split_emoji(package: Package, icons: list[Split], jobs: int) -> Split:
    """Emoji of no concept of the icons; those with the most training pictures."""
    drawings = drawn(package, emoji_sources(package), False, jobs)
    families = {name: family for family, sets in EMOJI_FAMILIES.items() for name in sets}
    held_out = {*EMOJI_TEST}
    drawings = without_duplicates(drawings, held_out)
    same = {stem_of(name): stem_of(group[0]) for group in names.groups(names.SAME) for name in group}
    taken = {stem_of(concept) for split in icons for concept in split.concepts}
    taken |= {same[stem] for stem in taken if stem in same}
    pictures = collections.Counter(source.concept for source in drawings.sources)
    tests = collections.Counter(source.concept for source in drawings.sources if source.set in held_out)
    also = names.pairs(names.ALSO_ICONS)
    free = []
    for concept in sorted(pictures):
        stem = stem_of(also.get(concept, concept))
        if tests[concept] == len(EMOJI_TEST) and not {stem, same.get(stem, stem)} & taken:
            free.append(concept)
    most = sorted(free, key=lambda concept: (-pictures[concept], concept))[:SEQ_EMOJI]
    return split_of("seq-emoji", most, drawings, held_out, families)


# Writing


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


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name)


def _lot(name: str) -> str:
    """By which names are drawn, at random and always the same."""
    return _sha256(name.encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
