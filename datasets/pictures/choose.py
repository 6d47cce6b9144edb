"""Which drawings show the same, which of them are kept, and what is trained and tested on. Used by `make` alone."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from datasets.pictures import names
from datasets.pictures.package import Drawn, Package, Source, drawn, sha256_of

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
    found: dict[str, dict[str, dict[str, str]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for name, own in icons.items():
        for concept, icon in sorted(own, key=lambda pair: _by_number(pair[1])):
            if concept in named:
                # Of the sizes of one drawing the last, which is the largest, is taken.
                style = "-".join(word for word in icon.split("-") if not word.isdigit())
                found[named[concept]][name][style] = icon
    return [
        Source(concept, name, icon)
        for concept, sets in sorted(found.items())
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


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name)


def _lot(name: str) -> str:
    """By which names are drawn, at random and always the same."""
    return sha256_of(name.encode())
