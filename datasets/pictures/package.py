"""The drawings of the npm package of icon sets, and their pictures. Used by `make` alone."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACKAGE = "@iconify/json 2.2.535"
PACKAGE_SHA256 = "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91"
RENDERER = "resvg-py", "0.5.0"
SIZE = 32  # pixels per side of the committed pictures, by which all else is decided
BATCH = 4096  # drawings on their way to the processes
LEAST_INK, MOST_INK = 0.02, 0.9  # mean darkness of a picture that shows something


@dataclass(frozen=True)
class Source:
    """A drawing of the package: an icon of a set, and the concept it shows."""

    concept: str
    set: str
    icon: str


class Package:
    """The sets of icons in the npm package, read where they lie in its archive."""

    def __init__(self, file: Path):
        if (found := sha256_of(file.read_bytes())) != PACKAGE_SHA256:
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


@dataclass(frozen=True)
class Drawn:
    """Drawings and their pictures at `SIZE`."""

    sources: list[Source]
    pictures: np.ndarray

    def only(self, kept: Iterable[int]) -> Drawn:
        rows = list(kept)
        return Drawn([self.sources[row] for row in rows], self.pictures[rows])

    def digests(self) -> list[str]:
        return [sha256_of(picture.tobytes()) for picture in self.pictures]


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


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
