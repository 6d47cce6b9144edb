"""Characters as masks: which ones there are, and how each is rendered; kept once they are.

The source is the DejaVu fonts (free licence, shipped inside matplotlib). Letters and symbols that all twelve faces have
are rendered at one common size; near-duplicates and everything that resembles a digit are dropped. What is left is
shuffled once, 1,414 of them: `PRETRAINING` and `DOWNSTREAM` cut two disjoint sets of classes out of it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator

from utils.data.cache import made_once, open_array, sealed
from utils.requirements import import_matplotlib

SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique")
MONO = ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique")
SERIF = ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic")
FACES = SANS + MONO + SERIF

PRETRAINING = slice(0, 1000)  # of `characters`
DOWNSTREAM = slice(1000, 1300)
NOT_PRETRAINING = slice(1000, None)  # `DOWNSTREAM` and 114 more

MASK_SIZE = 64  # pixels per side of a rendered mask, twice the image, so that strokes can be varied finely
IMAGE_SIZE = 32
FILL = 0.7  # share of the mask that the larger side of a glyph covers; the rest is room for turning and moving
MAX_SIMILARITY = 0.93  # between two kept characters
MAX_DIGIT_SIMILARITY = 0.82  # between a kept character and any digit
COMPARED_FACES = (SANS[0], MONO[0], SERIF[0])
DIGITS = "0123456789"
SHUFFLE_SEED = 0
VERSION = 1  # raise it when the code below draws differently, so that cached files are made anew


def cached(folder: Path, name: str, settings: tuple, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that `make` returns, memory-mapped from `folder`; made and written on the first call, and again where
    its bytes are no longer those that were written.

    settings: everything the array depends on beside this file's constants; it is hashed into the file name.
    """
    path = _cache_file(folder, name, settings)

    def write() -> None:
        made = make()
        # One that dies leaves nothing under the final name.
        with sealed(path, {}) as temporary, open(temporary, "wb") as file:
            np.save(file, made, allow_pickle=False)

    return made_once(path, write)[0]


def is_cached(folder: Path, name: str, settings: tuple) -> bool:
    """Whether `cached` would find the array, without making it."""
    return open_array(_cache_file(folder, name, settings))[0] is not None


def _cache_file(folder: Path, name: str, settings: tuple) -> Path:
    constants = (VERSION, MASK_SIZE, IMAGE_SIZE, FILL, MAX_SIMILARITY, MAX_DIGIT_SIMILARITY, SHUFFLE_SEED)
    key = hashlib.sha256(repr((constants, settings)).encode()).hexdigest()[:12]
    return folder / f"{name}-{key}.npy"


# Which characters, and their masks.


def characters(root: Path) -> str:
    """All usable characters in their fixed random order; cached under `root`."""
    codes = cached(root / "glyphs", "characters", (), lambda: np.array([ord(c) for c in _select()], dtype=np.int64))
    return "".join(map(chr, codes.tolist()))


def base_masks(root: Path, chosen: str, faces: tuple[str, ...]) -> np.ndarray:
    """Coverage of each character in each face: uint8 [characters, faces, MASK_SIZE, MASK_SIZE]; cached under `root`."""
    return cached(
        root / "glyphs", "masks", (chosen, faces), lambda: np.stack([render(chosen, face) for face in faces], axis=1)
    )


def render(text: str, face: str) -> np.ndarray:
    """Each character of `text` centred, its larger side FILL of the mask: uint8 [len(text), MASK_SIZE, MASK_SIZE]."""
    import_matplotlib()
    from matplotlib.ft2font import LoadFlags

    font = _open(face)
    # Hints fit outlines to the pixel grid, differently in each FreeType version.
    flags = LoadFlags.NO_HINTING
    masks = np.zeros((len(text), MASK_SIZE, MASK_SIZE), dtype=np.uint8)
    for mask, character in zip(masks, text):
        font.set_size(MASK_SIZE, 72)  # at 72 dpi a point is a pixel
        left, bottom, right, top = font.load_char(ord(character), flags=flags).bbox  # in 1/64 pixel
        extent = max(right - left, top - bottom) / 64
        if not extent:  # a blank
            continue
        font.set_size(MASK_SIZE * FILL * MASK_SIZE / extent, 72)
        font.set_text(character, flags=flags)
        font.draw_glyphs_to_bitmap(antialiased=True)
        _paste_centred(mask, _crop(np.asarray(font.get_image())))
    return masks


def digit_similarity(text: str) -> np.ndarray:
    """Largest cosine of each character to any digit, float [len(text)].

    Compared at the same size and stretched to the same box as well: "o" is a "0" made wider.
    """
    similarity = np.zeros(len(text))
    for face in COMPARED_FACES:
        ours, digits = render(text, face), render(DIGITS, face)
        for view in (_unit, _unit_stretched):
            similarity = np.maximum(similarity, (view(ours) @ view(digits).T).max(axis=1))
    return similarity


def _select() -> list[str]:
    """Letters and symbols of all faces without blanks, digit-like ones and near-duplicates, shuffled."""
    common = sorted(set.intersection(*(set(_open(face).get_charmap()) for face in FACES)))
    text = "".join(chr(code) for code in common if unicodedata.category(chr(code))[0] in "LS")
    masks = [render(text, face) for face in COMPARED_FACES]
    usable = (digit_similarity(text) < MAX_DIGIT_SIMILARITY) & masks[0].any(axis=(1, 2))
    similarity = sum(unit @ unit.T for unit in map(_unit, masks)) / len(masks)
    kept: list[int] = []
    for index in usable.nonzero()[0]:
        if similarity[index, kept].max(initial=0) < MAX_SIMILARITY:
            kept.append(index)
    order = torch.randperm(len(kept), generator=Generator().manual_seed(SHUFFLE_SEED))
    return [text[kept[position]] for position in order.tolist()]


def _open(face: str):
    """The matplotlib font object of one face."""
    matplotlib = import_matplotlib()
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"))


def _crop(image: np.ndarray) -> np.ndarray:
    """`image` [H, W] without its empty margins."""
    rows, columns = image.any(axis=1).nonzero()[0], image.any(axis=0).nonzero()[0]
    if not len(rows):
        return image[:0, :0]
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _paste_centred(mask: np.ndarray, image: np.ndarray) -> None:
    """Writes `image` [H, W] into the middle of the larger `mask` [MASK_SIZE, MASK_SIZE]."""
    (height, width), (top, left) = image.shape, [(MASK_SIZE - side) // 2 for side in image.shape]
    mask[top : top + height, left : left + width] = image


def _unit(masks: np.ndarray) -> np.ndarray:
    """Masks [N, S, S] averaged over 2 x 2 pixels, as unit vectors [N, S * S / 4]."""
    halved = F.avg_pool2d(torch.from_numpy(masks)[:, None].double(), 2)
    return F.normalize(halved.flatten(1), dim=1).numpy()


def _unit_stretched(masks: np.ndarray) -> np.ndarray:
    """Masks [N, S, S], each glyph stretched to fill the square, as unit vectors [N, S * S / 4]."""
    size = (MASK_SIZE // 2, MASK_SIZE // 2)
    stretched = torch.zeros(len(masks), *size, dtype=torch.float64)
    for result, glyph in zip(stretched, map(_crop, masks)):
        if glyph.size:
            source = torch.from_numpy(glyph)[None, None].double()
            result.copy_(F.interpolate(source, size, mode="bilinear", antialias=True)[0, 0])
    return F.normalize(stretched.flatten(1), dim=1).numpy()
