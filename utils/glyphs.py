"""Characters as images: which ones, how they are rendered, and how one character is varied like handwriting.

The source is the DejaVu fonts (free licence, shipped inside matplotlib). Letters and symbols that all twelve faces have
are rendered at one common size; near-duplicates and everything that resembles a digit are dropped. What is left is
shuffled once: `PRETRAINING` and `DOWNSTREAM` cut two disjoint sets of classes out of it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from utils import kept
from utils.augment import affine_matrices, uniform
from utils.errors import UsageError
from utils.plots import import_matplotlib

SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique")
MONO = ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique")
SERIF = ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic")
FACES = SANS + MONO + SERIF

PRETRAINING = slice(0, 1000)  # of `characters`
DOWNSTREAM = slice(1000, 1300)

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
    array, fault = kept.open_array(path)
    if array is None:
        if fault:
            kept.warn_of(path, fault)
        made = make()
        # Two runs that start together both draw, the same; one that dies leaves nothing under the final name.
        with kept.sealed(path, {}) as temporary, open(temporary, "wb") as file:
            np.save(file, made, allow_pickle=False)
        array, fault = kept.open_array(path)
    if array is None:
        raise UsageError(f"{path}: cannot be used, {fault or 'it is gone'}; name another --cache_dir")
    return array


def is_cached(folder: Path, name: str, settings: tuple) -> bool:
    """Whether `cached` would find the array, without making it."""
    return kept.open_array(_cache_file(folder, name, settings))[0] is not None


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


# From a mask to an image: light ink on a darker ground, like the handwritten digits of scikit-learn.


def sample_masks(masks: np.ndarray, classes: np.ndarray, samples: int) -> Tensor:
    """`samples` masks of each class, the faces in turn: uint8 [len(classes) * samples, 1, MASK_SIZE, MASK_SIZE].

    masks: [all classes, faces, MASK_SIZE, MASK_SIZE]. classes: rows of it [K].
    """
    labels = classes.repeat(samples)
    faces = np.tile(np.arange(samples) % masks.shape[1], len(classes))
    return torch.from_numpy(masks[labels, faces])[:, None]


def handwrite(masks: Tensor, generator: Generator) -> Tensor:
    """Varies stroke and shape: uint8 masks [B, 1, MASK_SIZE, MASK_SIZE] to ink coverage in [0, 1] [B, 1, 32, 32]."""
    return _warp(_vary_stroke(masks.float() / 255, generator), generator)


def dilate(images: Tensor) -> Tensor:
    """Maximum over 3 x 3 pixels, [B, C, H, W] to the same; with both signs turned it is the minimum.

    One axis after the other, by shifted copies: several times faster on a processor than `max_pool2d`.
    """
    for axis in (2, 3):
        length = images.shape[axis]
        before, after = images.narrow(axis, 0, length - 1), images.narrow(axis, 1, length - 1)
        wider = torch.maximum(before, after)  # [..., i] covers i and i + 1
        inner = torch.maximum(wider.narrow(axis, 0, length - 2), wider.narrow(axis, 1, length - 2))
        images = torch.cat([wider.narrow(axis, 0, 1), inner, wider.narrow(axis, length - 2, 1)], dim=axis)
    return images


def draw_tones(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Grey levels in [0, 1]: ink [B, 1, 1, 1] in 0.55-1 and ground [B, 1, 32, 32] in 0-0.35, at least 0.35 darker."""
    ink = uniform((count, 1, 1, 1), 0.55, 1.0, generator)
    darkest_allowed = (ink - 0.35).clamp(max=0.35)
    level = darkest_allowed * torch.rand(count, 1, 1, 1, generator=generator)
    corners = uniform((count, 1, 2, 2), -0.08, 0.08, generator)
    slope = F.interpolate(corners, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=True)
    return ink, (level + slope).clamp(min=0).minimum(darkest_allowed)


def paint(coverage: Tensor, ink: Tensor, ground: Tensor) -> Tensor:
    """Ink over ground in proportion to coverage; all broadcast to [B, C, 32, 32]."""
    return ground + (ink - ground) * coverage


def add_noise(images: Tensor, generator: Generator) -> Tensor:
    """Grey pixel noise of a random strength per image, deviation up to 0.05; [B, C, H, W] in [0, 1] to the same."""
    count, _, height, width = images.shape
    deviation = uniform((count, 1, 1, 1), 0.0, 0.05, generator)
    noise = deviation * torch.randn(count, 1, height, width, generator=generator)
    return (images + noise.to(images.device, non_blocking=True)).clamp(0, 1)


def to_bytes(images: Tensor) -> np.ndarray:
    """Float images in [0, 1] to uint8 of the same shape."""
    return (images * 255).round().to(torch.uint8).numpy()


def _vary_stroke(masks: Tensor, generator: Generator) -> Tensor:
    """Thins the strokes by up to half a pixel or thickens them by up to two, on each side. [B, 1, S, S] to the same."""
    thin, thick = -dilate(-masks), dilate(masks)
    thicker = dilate(thick)
    amount = uniform((len(masks), 1, 1, 1), -0.5, 2.0, generator)
    varied = masks + amount.clamp(-1, 0) * (masks - thin) + amount.clamp(0, 1) * (thick - masks)
    return varied + (amount - 1).clamp(0, 1) * (thicker - thick)


def _warp(masks: Tensor, generator: Generator) -> Tensor:
    """Turns, slants, scales, moves and bends each mask: [B, 1, S, S] to [B, 1, 32, 32]."""
    count = len(masks)
    degrees = uniform((count,), -15, 15, generator)
    shear = uniform((count,), -0.2, 0.2, generator)
    zoom = uniform((count, 2), 0.7, 1.35, generator)
    shift = uniform((count, 2), -0.1, 0.1, generator)  # 0.1 is 1.6 pixels of the image
    size = [count, 1, IMAGE_SIZE, IMAGE_SIZE]
    grid = F.affine_grid(affine_matrices(degrees, shear, zoom, shift), size, align_corners=False)
    # Few independent displacements, smoothly interpolated, bend strokes as a hand does.
    bends = uniform((count, 2, 4, 4), -0.1, 0.1, generator)
    bends = F.interpolate(bends, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)
    grid = grid + bends.permute(0, 2, 3, 1)
    return F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0, 1)
