"""MNIST, 10 handwritten digits, 60,000 / 10,000 images of 28x28 pixels.

LeCun et al., 1998; 12 MB; CC BY-SA 3.0. The four files of the original, compressed or not, as torchvision keeps them.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from torch import Generator, Tensor

from datasets.base import Places, PublicDataset
from utils.data.augment import random_shift
from utils.data.download import Download
from utils.errors import UsageError
from utils.files.text import open_file

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
LARGEST = 16 + 60_000 * 28 * 28  # bytes of a file, its header included
FILES = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


class SeqMnist(PublicDataset):
    num_classes = 10
    native_size = 28
    grey = True
    mean = (0.1307, 0.1307, 0.1307)
    std = (0.3081, 0.3081, 0.3081)
    folders = ("MNIST/raw", "MNIST", "mnist")
    markers = (tuple(f"{name}.gz" for name in FILES), tuple(FILES))
    address = "http://yann.lecun.com/exdb/mnist/"
    downloads = tuple(
        Download(f"{MIRROR}{name}.gz", f"{name}.gz", f"md5:{md5}", most=10**8) for name, md5 in FILES.items()
    )
    download_to = "MNIST/raw"
    counts = (60_000, 10_000)

    def read(self, folder: Path, places: Places, train: bool) -> tuple[np.ndarray, np.ndarray]:
        return read_digits(folder, train)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Moves by up to two pixels of 28; neither digits nor clothes, whose shoes point one way, are mirrored."""
        return random_shift(images, max(1, images.shape[-1] // 14), generator)


def read_digits(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 28, 28], one stored channel seen three times, and labels [N]."""
    images, labels = (read_idx(folder, name) for name in list(FILES)[0 if train else 2 :][:2])
    if labels.ndim != 1 or images.shape != (len(labels), 28, 28):
        raise UsageError(
            f"{folder}: images {list(images.shape)} and labels {list(labels.shape)} do not fit; fetch the files again"
        )
    return np.broadcast_to(images[:, None], (len(images), 3, 28, 28)), labels


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The array of bytes in an IDX file, compressed or not."""
    packed = folder / f"{name}.gz"
    file = packed if packed.is_file() else folder / name
    try:
        with open_file(file) as raw, gzip.open(raw) if file == packed else raw as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it holds more than {LARGEST} bytes")
        zero, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if (zero, kind) != (0, 8):
            raise ValueError("not an IDX file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UsageError(f"{file}: cannot be read ({error}); delete it and fetch it again") from None
