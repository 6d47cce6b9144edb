"""Which images a folder or a list holds, and which class each belongs to; reads no image."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

from utils.data.cache import read_note, warn_of, write_note
from utils.errors import UsageError
from utils.files.text import parse_yaml, read_text

VERSION = 3  # of what counts as an image; a new one makes new listings
EXTENSIONS = (
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".png",
        ".apng",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".bmp",
        ".dib",
    ),
    *(".tif", ".tiff", ".webp", ".gif"),
)
AVIF = (".avif", ".avifs")  # where Pillow reads it
# What systems and programs leave in folders, in any case; hidden files and resource forks (._x) begin with a dot.
LITTER = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "system volume information", "$recycle.bin"),
    *("lost+found", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "recycler", "found.000"),
    "__pycache__",
}
# What stands together in a folder that runs, reports or `python -m venv` made, whatever else is there.
OURS = (
    *(("config.yaml", name) for name in ("metrics.csv", "stream.csv", "stream.png", ".lock")),
    *(("table.md", "table.tex", "seeds.csv"), ("pyvenv.cfg",), ("decoded/*.npy",), ("glyphs/*.npy",)),
    ("listings/*.json",),
)
PERHAPS_OURS = ("config.yaml", "manifest.json")  # in a folder without images: a run that was killed early, a product
TRAINING = ("train", "training")
TESTING = ("test", "testing", "val", "valid", "validation")  # the first that is there is taken
TRAINING_NAMES, TESTING_NAMES = "train or training", "test, testing, val, valid or validation"
SHOWN = 3  # names in a message


class Listed(NamedTuple):
    """Images and their labels; names of the classes by label; files of other kinds by ending; what was left out."""

    paths: list[Path]
    labels: list[int]
    names: list[str]
    others: dict[str, int]
    notes: list[str]


@lru_cache
def extensions() -> tuple[str, ...]:
    from PIL import features

    return EXTENSIONS + (AVIF if "avif" in features.modules and features.check("avif") else ())


def is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


class Tree:
    """The class folders below a folder, and the images below each. Every folder is entered once, whatever links say.

    own: folders in it that hold no data, those of the run itself above all. Raises UsageError if the folder cannot be
    listed. Attributes: names of the classes, sorted; beside: images that lie beside the class folders; others:
    files that are not looked at, by ending; left_out: why, of each folder that is.
    """

    def __init__(self, folder: Path, own: Iterable[Path] = ()):
        self.folder, self.root = folder, os.path.realpath(folder)
        self.own = {os.path.realpath(path) for path in own} - {self.root}
        self.others: Counter[str] = Counter()
        self.left_out: dict[str, str] = {}
        self.entered = {self.root}
        names, beside = [], []
        try:
            for entry in sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
                if is_litter(entry.name):
                    continue
                if not entry.is_dir():
                    beside.append(entry.name)
                elif self._enter(entry.path):
                    names.append(entry.name)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from None
        self.names = sorted(names)
        self.beside = sorted(name for name in beside if name.lower().endswith(extensions()))
        self.others.update(_ending(name) for name in beside)

    @property
    def notes(self) -> list[str]:
        return [f"{path} {why}" for path, why in self.left_out.items()]

    def check(self) -> None:
        """Raises UsageError if there are no class folders."""
        if not self.names:
            beside = f", but {len(self.beside):,} images; a folder per class is needed" if self.beside else ""
            raise UsageError(f"{self.folder}: holds no class folders{beside}{unseen(self.others)}")

    def images(self, name: str) -> list[Path]:
        """Those below a class folder, in the order of torchvision's ImageFolder."""
        found = []
        for parent, folders, files in os.walk(self.folder / name, onerror=_unlisted, followlinks=True):
            folders[:] = [
                folder for folder in folders if not is_litter(folder) and self._enter(os.path.join(parent, folder))
            ]
            files = [file for file in files if not is_litter(file)]
            own = [file for file in files if file.lower().endswith(extensions())]
            if len(own) < len(files):
                self.others.update(_ending(file) for file in {*files} - {*own})
            found.append((parent, sorted(own)))
        return [Path(parent, file) for parent, files in sorted(found) for file in files]

    def _enter(self, path: str) -> bool:
        real = os.path.realpath(path)
        if real in self.own:
            self.left_out[path] = "is left out, it is no data"
            return False
        # A link into the folder itself leads to what is met anyway, if nothing hides it; one to above leads back here.
        again = os.path.islink(path) and (self._is_met(real) or f"{self.root}{os.sep}".startswith(f"{real}{os.sep}"))
        if again or real in self.entered:
            self.left_out[path] = "leads to a folder that is there already, left out"
            return False
        if self._made_here(path):
            self.left_out[path] = "is left out, runs or Python made it"
            return False
        self.entered.add(real)
        return True

    def _is_met(self, real: str) -> bool:
        inside = real.startswith(f"{self.root}{os.sep}")
        return inside and not any(map(is_litter, os.path.relpath(real, self.root).split(os.sep)))

    def _made_here(self, path: str) -> bool:
        """Whether all of a folder was made by runs, reports or Python, at whatever depth: no image lies beside that."""
        waiting, met, made = [path], set(), False
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in met:
                continue
            met.add(real)
            if real in self.own or any(all(_holds(folder, name) for name in mark) for mark in OURS):
                made = True
                continue
            made = made or any(own.startswith(f"{real}{os.sep}") for own in self.own)
            made = made or any(_holds(folder, name) for name in PERHAPS_OURS)
            try:
                for entry in os.scandir(folder):
                    if is_litter(entry.name):
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif entry.name.lower().endswith(extensions()):
                        return False
            except OSError:  # said by whoever lists it
                return False
        return made


def _holds(folder: str, name: str) -> bool:
    return next(Path(folder).glob(name), None) is not None if "*" in name else os.path.lexists(f"{folder}/{name}")


def class_names(folder: Path, own: Iterable[Path] = ()) -> list[str]:
    """Names of the class folders, sorted. Raises UsageError if there are none."""
    tree = Tree(folder, own)
    tree.check()
    return tree.names


def images_below(folder: Path) -> Listed:
    """All images in a folder and below, by name in each; no classes. Raises UsageError if there are none, or if a
    folder cannot be listed."""
    tree = Tree(folder)
    paths = [folder / name for name in tree.beside]
    paths += [path for name in tree.names for path in tree.images(name)]
    if not paths:
        raise UsageError(f"{folder}: holds no image{unseen(tree.others)}")
    return Listed(paths, [], [], dict(tree.others), [*tree.notes, *not_looked_at(tree.others)])


def class_folders(
    folder: Path,
    skip_empty: bool = False,
    known: Sequence[str] | None = None,
    nested: bool = False,
    own: Iterable[Path] = (),
) -> Listed:
    """Images below `folder/<class>/` and their labels, in the order of torchvision's ImageFolder.

    known: names of the classes by label; None: the folders that are there, sorted. nested: images may all lie in
    folders of their class. Raises UsageError for a folder without classes, with another class than the known ones, or
    that cannot be read, for a class most of whose images lie deeper unless nested, and for one without an image unless
    skip_empty, which is none then.
    """
    tree = Tree(folder, own)
    tree.check()
    images = {name: tree.images(name) for name in tree.names}
    empty = [name for name, own_images in images.items() if not own_images]
    for name, found in images.items():
        deeper = [path for path in found if path.parent != folder / name]
        if not nested and 2 * len(deeper) > len(found):
            alone = len(images) - len(empty) == 1
            raise UsageError(_too_deep(folder, name, deeper[0], alone))
    if empty:
        message = f"{folder}: {len(empty)} class folders hold no image ({', '.join(empty[:SHOWN])}"
        message += ", ...)" if len(empty) > SHOWN else ")"
        if not skip_empty:
            raise UsageError(f"{message}; remove them, or --skip_bad{unseen(tree.others)}")
        print(f"warning: {message}; left out", file=sys.stderr)
        images = {name: own_images for name, own_images in images.items() if own_images}
    names = list(images) if known is None else list(known)
    label_of = {name: label for label, name in enumerate(names)}
    if unknown := [name for name in images if name not in label_of]:
        raise UsageError(f"{folder}: class {unknown[0]} is not one of the {len(label_of)} known ones")
    paths = [path for own_images in images.values() for path in own_images]
    labels = [label_of[name] for name, own_images in images.items() for _ in own_images]
    beside = [f"{len(tree.beside):,} images lie beside the class folders and are not looked at"] if tree.beside else []
    return Listed(paths, labels, names, dict(tree.others), tree.notes + beside)


def _too_deep(folder: Path, name: str, image: Path, alone: bool) -> str:
    """Says of a class folder whose images lie deeper where to point; image: the first of these; alone: no other class
    folder holds any."""
    above = image.parent.parent
    above = above.parent if above.name.lower() in (*TRAINING, *TESTING) else above
    if not alone:
        advice = f"put them into the class folder itself; parts are named {TRAINING_NAMES}, and {TESTING_NAMES}"
    else:
        advice = f"give {above} instead" if above != folder else "put them into the class folder itself"
    where = f"its images lie in folders ({image.relative_to(folder)})" if image.is_relative_to(folder) else "links"
    return f"{folder / name}: no class, {where}; {advice}"


def _unlisted(error: OSError) -> None:
    raise UsageError(f"{error.filename}: cannot be listed ({error.strerror})")


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()[:16]


def unseen(others: dict[str, int]) -> str:
    """The end of a message that says that there are no images."""
    return "".join(f"; {line}" for line in not_looked_at(others))


def not_looked_at(others: dict[str, int]) -> list[str]:
    """The line that says so of files that are no images by their ending, if there are any."""
    counts = Counter({ending: count for ending, count in others.items() if ending not in extensions()})
    if not counts:
        return []
    kinds = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in counts.most_common(5))
    return [f"{counts.total():,} files are not looked at: {kinds}{', ...' if len(counts) > 5 else ''}"]


def part_folder(folder: Path, words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder of a part, by the first of its usual names in any case that is there; the others that are, too, but
    for links to a folder that is named already.

    Raises UsageError if one name is there twice.
    """
    try:
        there = [entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name.lower() in words]
    except OSError:
        return None, []
    there.sort(key=lambda name: (words.index(name.lower()), name))
    first: dict[str, str] = {}
    for name in there:
        first.setdefault(os.path.realpath(folder / name), name)
    there = list(first.values())
    if twice := [(a, b) for a, b in zip(there, there[1:]) if a.lower() == b.lower()]:
        raise UsageError(f"{folder}: holds {' and '.join(twice[0])}; rename or remove one of them")
    return (folder / there[0] if there else None), there[1:]


def own_parts(folder: Path, own: Iterable[Path] = ()) -> tuple[Path, Path, list[str]] | None:
    """Training and test folder of somebody's own images, and what is to be said of it; None where it has no parts.

    Raises UsageError where they are not all there or where classes stand beside them.
    """
    training, more = part_folder(folder, TRAINING)
    testing, others = part_folder(folder, TESTING)
    if training is not None and more:
        raise UsageError(f"{folder}: holds {training.name} and {more[0]}; rename or remove one of them")
    if training is None or testing is None:
        there, names = (training, TESTING_NAMES) if testing is None else (testing, TRAINING_NAMES)
        if there is None:
            return None
        raise UsageError(f"{folder}: holds {there.name}, but no folder {names}")
    tree = Tree(folder, own)
    parts = [training.name, testing.name, *others]
    taken = {os.path.realpath(folder / name) for name in parts}
    stray = [name for name in tree.names if os.path.realpath(folder / name) not in taken]
    if full := [name for name in stray if tree.images(name)]:
        raise UsageError(f"{folder}: holds {full[0]} with images beside {' and '.join(parts)}; move it out of there")
    notes = [f"{folder / name} is not looked at, {testing.name} is the test part" for name in others]
    notes += [f"{folder / name} holds no image" for name in stray]
    notes += [f"{path} {why}" for path, why in tree.left_out.items() if os.path.realpath(path) not in taken]
    return training, testing, notes


def remembered_listing(folder: Path, cache: Path, listing: Callable[[Path], Listed], *settings: object) -> Listed:
    """What `listing(folder)` gives, kept in a file until a class folder or `settings` change."""
    try:
        state = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from None
    key = hashlib.sha256(repr((VERSION, str(folder.resolve()), state, settings)).encode()).hexdigest()[:12]
    file = cache / "listings" / f"{key}.json"
    note = read_note(file)
    if note is not None:
        names, *rest = note
        return Listed([folder / name for name in names], *rest)
    if os.path.lexists(file):
        warn_of(file, "this list is not as it was written")
    listed = listing(folder)
    write_note(file, [[os.path.relpath(path, folder) for path in listed.paths], *listed[1:]])
    return listed


# Lists


class Entry(NamedTuple):
    """An image of a list: class/file, its label if one is given, and where this stands."""

    name: str
    label: int | None
    where: str

    @property
    def folder(self) -> str:
        return self.name.split("/")[0]


def read_list(file: Path) -> list[Entry]:
    """Entries of a list file: a path per line, with or without a label after it, or CODA-Prompt's YAML with the keys
    `data` and, if labels are given, `targets`.

    Of a path the last two parts count: what comes before differs between machines.
    """
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as a list of images ({error})") from None
    if file.suffix.lower() in (".yaml", ".yml"):
        rows = _yaml_rows(file, text)
    else:
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                path, *after = re.split(r"\s+(-?\d{1,9})$", line.strip())[:2]
                rows.append((path, int(after[0]) if after else None, f"{file}, line {number}"))
    if not rows or not all(_is_name(name) for name, _, _ in rows):
        raise UsageError(f"{file}: holds no paths of images")
    entries = []
    for name, label, where in rows:
        parts = Path(name).parts[-2:]
        if len(parts) < 2 or parts[0] in ("/", ".."):
            raise UsageError(f"{where}: {name} is no path of the form class/file")
        entries.append(Entry("/".join(parts), label, where))
    return entries


def _yaml_rows(file: Path, text: str) -> list[tuple[str, int | None, str]]:
    try:
        content = parse_yaml(text)
        names, labels = content["data"], content.get("targets")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"{file}: holds no list under the key 'data'") from None
    if not isinstance(names, list):
        raise UsageError(f"{file}: holds no paths of images")
    labels = [None] * len(names) if labels is None else labels
    if (
        not isinstance(labels, list)
        or len(labels) != len(names)
        or not all(type(y) in (int, type(None)) for y in labels)
    ):
        raise UsageError(f"{file}: the list under 'targets' holds no label for each of the {len(names)} paths")
    return [(name, label, f"{file}, entry {k}") for k, (name, label) in enumerate(zip(names, labels), 1)]


def labels_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Label of each class that lists name: as they give it, else its place among the sorted names.

    Raises UsageError for labels that contradict each other, are no 0 ... C - 1, or lack for some.
    """
    classes = sorted({entry.folder for entry in entries})
    if all(entry.label is None for entry in entries):
        return {name: label for label, name in enumerate(classes)}
    by_class: dict[str, Entry] = {}
    by_label: dict[int, Entry] = {}
    for entry in entries:
        if entry.label is None:
            raise UsageError(f"{entry.where}: {entry.name} has no label, others have one")
        first = by_class.setdefault(entry.folder, entry)
        if first.label != entry.label:
            raise UsageError(
                f"{entry.where}: {entry.name} has label {entry.label}, but {first.label} is that of {first.folder} "
                f"({first.where})"
            )
        other = by_label.setdefault(entry.label, entry)
        if other.folder != entry.folder:
            raise UsageError(
                f"{entry.where}: {entry.name} has label {entry.label}, but that is the one of {other.folder} "
                f"({other.where})"
            )
        if not 0 <= entry.label < len(classes):
            raise UsageError(f"{entry.where}: label {entry.label} of {len(classes)} classes; they count from 0")
    return {name: cast(int, entry.label) for name, entry in by_class.items()}


def read_class_order(choice: str, num_classes: int, names: Sequence[str] | None) -> list[int] | None:
    """Labels in the order that `--class_order` asks for, None for a random one.

    choice: random, natural (by label) or a file with a class per line, by its name or, if no name is like that, by its
    label. names: of the classes by label, if they have any. Raises UsageError unless the file names each once.
    """
    if choice in ("random", "natural"):
        return None if choice == "random" else list(range(num_classes))
    try:
        text = read_text(Path(choice))
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--class_order {choice}: neither random, natural, nor a file to be read ({problem})"
        ) from None
    label_of = {str(label): label for label in range(num_classes)}
    label_of |= {name: label for label, name in enumerate(names or ())}
    lines: dict[int, int] = {}  # label -> where it stands
    for number, line in enumerate(re.split(r"\r?\n|\r", text), 1):
        if not line.strip():
            continue
        label = label_of.get(line, label_of.get(line.strip()))
        if label is None:
            known = "names" if names else f"numbers 0 ... {num_classes - 1}"
            raise UsageError(f"{choice}, line {number}: {line.strip()!r:.80} is no class; they have {known}")
        if label in lines:
            raise UsageError(f"{choice}, line {number}: {line.strip()!r:.80} is there already, in line {lines[label]}")
        lines[label] = number
    if missing := [label for label in range(num_classes) if label not in lines]:
        first = names[missing[0]] if names else missing[0]
        raise UsageError(f"{choice}: names {len(lines)} of {num_classes} classes; {first} is the first that is missing")
    return list(lines)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()
