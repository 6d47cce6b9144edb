"""Small copies of the public datasets: the true names and formats inside, a few tiny images per class.

The colour of an image tells its label and its number within the class, so that tests see whether the two fit.
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.data.download import LOCK
from utils.errors import UsageError
from utils.registry import DATASETS, ROOT

# Pictures


def colour(label: int, index: int = 0) -> tuple[int, int, int]:
    """Of image `index` (0 ... 3) of a class; JPEG keeps it to within 5 levels."""
    return 12 * (label % 20) + 6, 12 * (label // 20 % 20) + 6, 60 * index + 12 * (label // 400) + 6


def told(images: np.ndarray) -> tuple[list[int], list[int]]:
    """Labels and numbers within the class that the colours of images [N, 3, S, S] tell."""
    red, green, blue = images[:, :, images.shape[2] // 2, images.shape[3] // 2].astype(int).T
    return (red // 12 + 20 * (green // 12) + 400 * (blue % 60 // 12)).tolist(), (blue // 60).tolist()


@lru_cache(None)
def picture(label: int, index: int, form: str, size: tuple[int, int] = (8, 8)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour(label, index)).save(content, form)
    return content.getvalue()


def write(file: Path, content: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def classes_below(folder: Path, names: list[str], count: int, ending: str = ".jpg", form: str = "JPEG", first: int = 0):
    """`count` images in a folder per class, the first of them with number `first`."""
    for label, name in enumerate(names):
        for index in range(first, first + count):
            write(folder / name / f"{name}_{index}{ending}", picture(label, index, form))


def add(file: tarfile.TarFile, name: str, content: bytes = b"", kind=tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    file.addfile(member, io.BytesIO(content))


def pack(folder: Path, archive: Path) -> None:
    """All of `folder` as a zip or tar archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as file:
            for path in sorted(folder.iterdir()):
                file.add(path, path.name)


# Formats that are no pictures


class _Python2(pickle._Pickler):
    """Writes strings as Python 2 did, whose bytes and text were one type."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        content = value if isinstance(value, bytes) else value.encode("latin-1")
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(content) -> bytes:
    """As the batches of CIFAR are: protocol 2, numpy 1's names, strings of bytes."""
    out = io.BytesIO()
    _Python2(out, 2).dump(content)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_rows(labels: list[int], indices: list[int]) -> np.ndarray:
    """uint8 [N, 3072]."""
    colours = np.array([colour(label, index) for label, index in zip(labels, indices)], dtype=np.uint8)
    return colours.repeat(1024, axis=1)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def digits(labels: np.ndarray) -> np.ndarray:
    """uint8 [N, 28, 28]: a field whose grey tells the digit, on black."""
    images = np.zeros((len(labels), 28, 28), dtype=np.uint8)
    images[:, 6:16, 8:20] = 20 + 25 * labels[:, None, None]
    return images


# The datasets, as trees below a folder


# Of ImageNet-R and, in part, of Tiny ImageNet; sorted, as all but the list of the latter is.
WNIDS = ["n01443537", *(f"n{2000000 + 37 * k:08d}" for k in range(1, 200))]


def cifar10(folder: Path) -> None:
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        labels = list(range(10)) if number < 5 else list(range(10)) * 2
        indices = [number % 4] * 10 if number < 5 else [0] * 10 + [1] * 10
        content = {
            "batch_label": f"batch {number + 1} of 5",
            "labels": labels,
            "data": cifar_rows(labels, indices),
            "filenames": [f"picture_\xe9_{label}.png" for label in labels],
        }
        write(folder / "cifar-10-batches-py" / name, python2_pickle(content))
    meta = {"num_cases_per_batch": 10000, "label_names": [f"name {k}" for k in range(10)], "num_vis": 3072}
    write(folder / "cifar-10-batches-py" / "batches.meta", python2_pickle(meta))
    write(folder / "cifar-10-batches-py" / "readme.html", "<p>CIFAR-10</p>")


def cifar100(folder: Path) -> None:
    for name, count in (("train", 2), ("test", 1)):
        labels, indices = list(range(100)) * count, [k for k in range(count) for _ in range(100)]
        content = {
            "filenames": [f"picture_\xe9_{label}.png" for label in labels],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "data": cifar_rows(labels, indices),
        }
        write(folder / "cifar-100-python" / name, python2_pickle(content))
    meta = {"fine_label_names": [f"fine {k}" for k in range(100)], "coarse_label_names": [f"c {k}" for k in range(20)]}
    write(folder / "cifar-100-python" / "meta", python2_pickle(meta))
    write(folder / "cifar-100-python" / "file.txt~", "")


def tinyimg(folder: Path) -> None:
    root = folder / "tiny-imagenet-200"
    wnids = WNIDS[::-1]
    write(root / "wnids.txt", "".join(f"{wnid}\n" for wnid in wnids))
    write(root / "words.txt", "".join(f"{wnid}\tthing, object\n" for wnid in WNIDS))
    annotations = []
    for label, wnid in enumerate(wnids):
        for index in range(2):
            write(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", picture(label, index, "JPEG"))
        write(root / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t7\t7\n")
        number = (label * 7) % 200  # classes come mixed
        write(root / "val" / "images" / f"val_{number}.JPEG", picture(label, 2, "JPEG"))
        annotations.append((number, f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n"))
        write(root / "test" / "images" / f"test_{label}.JPEG", picture(label, 3, "JPEG"))
    write(root / "val" / "val_annotations.txt", "".join(line for _, line in sorted(annotations)))


def imr(folder: Path) -> None:
    classes_below(folder / "imagenet-r", WNIDS[:200], 4)
    write(folder / "imagenet-r" / "README.txt", "".join(f"{wnid} thing\n" for wnid in WNIDS[:200]))


CUB = ["001.Black_footed_Albatross", *(f"{k:03d}.Bird_{k}" for k in range(2, 201))]


def cub200(folder: Path) -> None:
    root = folder / "CUB_200_2011"
    classes_below(root / "images", CUB, 3)
    names = [f"{name}/{name}_{index}.jpg" for name in CUB for index in range(3)]
    write(root / "images.txt", "".join(f"{k} {name}\n" for k, name in enumerate(names, 1)))
    write(root / "image_class_labels.txt", "".join(f"{k} {(k - 1) // 3 + 1}\n" for k in range(1, 601)))
    write(root / "train_test_split.txt", "".join(f"{k} {int(k % 3 != 2)}\n" for k in range(1, 601)))
    write(root / "classes.txt", "".join(f"{k} {name}\n" for k, name in enumerate(CUB, 1)))
    write(root / "attributes" / "class_attribute_labels_continuous.txt", "0.0 27.7\n")
    write(folder / "attributes.txt", "1 has_bill_shape::curved\n")


TISSUES = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]


def nct(folder: Path) -> None:
    classes_below(folder / "NCT-CRC-HE-100K", TISSUES, 2, ".tif", "TIFF")


def crc(folder: Path) -> None:
    classes_below(folder / "CRC-VAL-HE-7K", TISSUES, 1, ".tif", "TIFF", first=2)


def gtsrb_training(folder: Path) -> None:
    root = folder / "GTSRB" / "Final_Training" / "Images"
    for label in range(43):
        lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
        for index in range(3):
            name = f"{index:05d}_00000.ppm"
            write(root / f"{label:05d}" / name, picture(label, index, "PPM", (9, 12)))
            lines.append(f"{name};9;12;1;1;8;11;{label}")
        write(root / f"{label:05d}" / f"GT-{label:05d}.csv", "\r\n".join(lines))
    write(folder / "GTSRB" / "Readme-Images.txt", "GTSRB\n")


GTSRB_TEST = [(f"{k:05d}.ppm", (k * 5) % 43) for k in range(50)]


def gtsrb_test(folder: Path) -> None:
    root = folder / "GTSRB" / "Final_Test" / "Images"
    for name, label in GTSRB_TEST:
        write(root / name, picture(label, 3, "PPM", (12, 9)))
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2", *(f"{n};12;9;1;1;11;8" for n, _ in GTSRB_TEST)]
    write(root / "GT-final_test.test.csv", "\n".join(rows))


def gtsrb_classes(folder: Path) -> None:
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [head, *(f"{name};12;9;1;1;11;8;{label}" for name, label in GTSRB_TEST)]
    write(folder / "GT-final_test.csv", "\n".join(rows))


STYLES = """
    Abstract_Expressionism Action_painting Analytical_Cubism Art_Nouveau_Modern Baroque Color_Field_Painting
    Contemporary_Realism Cubism Early_Renaissance Expressionism Fauvism High_Renaissance Impressionism
    Mannerism_Late_Renaissance Minimalism Naive_Art_Primitivism New_Realism Northern_Renaissance Pointillism Pop_Art
    Post_Impressionism Realism Rococo Romanticism Symbolism Synthetic_Cubism Ukiyo_e
""".split()  # noqa: SIM905


def wikiart(folder: Path) -> None:
    for label, style in enumerate(STYLES):
        for index in range(3):
            name = f"hélène-martin_sans-titre-{index}.jpg"
            write(folder / "wikiart" / style / name, picture(label, index, "JPEG", (10, 14)))


def omniglot(folder: Path, part: str, names: list[str]) -> None:
    """Twenty drawings of each character, whose cells of 21 pixels tell label and number; numbered in another order than
    that of the names, as the true ones are."""
    for label, name in enumerate(names):
        for index in range(20):
            cells = ~np.array([(20 * label + index) >> k & 1 for k in range(25)], dtype=bool).reshape(5, 5)
            content = io.BytesIO()
            Image.fromarray(cells.repeat(21, axis=0).repeat(21, axis=1)).save(content, "PNG")
            write(folder / part / name / f"{900 - label:04d}_{index + 1:02d}.png", content.getvalue())


def mnist(folder: Path) -> None:
    for name, count in (("train", 30), ("t10k", 10)):
        labels = np.arange(count) % 10
        write(folder / f"{name}-images-idx3-ubyte.gz", gzip.compress(idx(digits(labels)), mtime=0))
        write(folder / f"{name}-labels-idx1-ubyte.gz", gzip.compress(idx(labels), mtime=0))


@dataclass(frozen=True)
class Case:
    """A dataset that is fetched. builders: make the content of its archives, in their order; MNIST's single one makes
    the four files themselves. parts: images of the training and the test part. classes: published number of them.
    missing: a file without which it cannot be used, and a word of the answer."""

    name: str
    builders: tuple[Callable[[Path], None], ...]
    parts: tuple[int, int]
    classes: int
    options: dict = field(default_factory=dict)
    missing: tuple[str, str] = ("", "")


CASES = {
    case.name + "".join(f"-{value}" for value in case.options.values()): case
    for case in (
        Case("seq-cifar10", (cifar10,), (50, 20), 10, missing=("CIFAR/cifar-10-batches-py/data_batch_3", "No such")),
        Case("seq-cifar100", (cifar100,), (200, 100), 100, missing=("CIFAR/cifar-100-python/test", "not there")),
        Case("seq-tinyimg", (tinyimg,), (400, 200), 200, missing=("tiny-imagenet-200/wnids.txt", "not there")),
        Case("seq-imr", (imr,), (600, 200), 200, missing=("imagenet-r/n01443537/n01443537_0.jpg", "hold no image")),
        Case("seq-cub200", (cub200,), (480, 120), 200),
        Case(
            "seq-cub200",
            (cub200,),
            (400, 200),
            200,
            {"split": "official"},
            ("CUB_200_2011/train_test_split.txt", "--split official reads images.txt and train_test_split.txt"),
        ),
        Case("seq-nch", (nct, crc), (18, 9), 9, missing=("NCH/CRC-VAL-HE-7K/ADI/ADI_2.tif", "hold no image")),
        Case("seq-gtsrb", (gtsrb_training, gtsrb_test, gtsrb_classes), (103, 26), 43),
        Case(
            "seq-gtsrb",
            (gtsrb_training, gtsrb_test, gtsrb_classes),
            (129, 50),
            43,
            {"split": "official"},
            ("GTSRB/GT-final_test/GT-final_test.csv", "GT-final_test/GT-final_test.csv"),
        ),
        Case("seq-wikiart", (wikiart,), (64, 17), 27),
        Case("seq-mnist", (mnist,), (30, 10), 10, missing=("MNIST/raw/t10k-labels-idx1-ubyte.gz", "not there")),
        Case(
            "seq-fmnist", (mnist,), (30, 10), 10, missing=("FashionMNIST/raw/train-images-idx3-ubyte.gz", "not there")
        ),
        Case("perm-mnist", (mnist,), (30, 10), 10),
        Case("rot-mnist", (mnist,), (30, 10), 10),
    )
}


def archives_of(case: Case, downloads, folder: Path) -> None:
    """Makes the files that `downloads` fetch, in `folder`, and leaves nothing else."""
    for number, build in enumerate(case.builders):
        work = folder / f"work{number}"
        build(work)
        if build is mnist:
            for file in work.iterdir():
                os.replace(file, folder / file.name)
        else:
            pack(work, folder / downloads[number].name)
        shutil.rmtree(work)


def digest(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


# A server


class Server(ThreadingHTTPServer):
    """Gives the bytes of `files` by name, and keeps the names that were asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []

    def downloads(self, official, checked: bool = True) -> tuple:
        """The official downloads, from here; with the digests of the files of now, or with none."""
        return tuple(
            replace(
                download,
                url=f"http://127.0.0.1:{self.server_address[1]}/{download.name}",
                digest=digest(self.files[download.name]) if checked else None,
            )
            for download in official
        )

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.strip("/")
        self.server.asked.append(name)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(self.server.files[name])))
        self.end_headers()
        self.wfile.write(self.server.files[name])


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    with Server(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


# What tests of them need


def answer(call, *parts) -> str:
    """The one line of a refusal, which names all of `parts`."""
    with pytest.raises(UsageError) as info:
        call()
    message = str(info.value)
    assert "\n" not in message
    assert [str(part) for part in parts if str(part) not in message] == [], message
    return message


class Gadget:
    """Calls a function when it is unpickled."""

    def __init__(self, call: Callable, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@contextmanager
def nobody() -> Iterator[Path]:
    """Bound by permissions for a while, which root is not otherwise; gives a folder.

    Root stays root, so that it can import what lies in a folder of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            if not sys.platform.startswith("linux"):
                pytest.skip("no permission binds root")
            above_permissions(False)
        try:
            if os.geteuid() == 0 and not all(
                os.access(path, os.R_OK | os.X_OK) for path in (ROOT, *filter(os.path.exists, sys.path))
            ):
                pytest.skip("the checkout is another user's, and closed")
            yield Path(folder)
        finally:
            if os.geteuid() == 0:
                above_permissions(True)
            for path in (Path(folder), *Path(folder).rglob("*")):
                path.chmod(0o777)


def above_permissions(wanted: bool) -> None:
    """Gives root's right to pass over permissions back to this thread, or takes it away (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    rights = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capget(header, sets) == 0:
        sets[0] = sets[0] | (rights & sets[1]) if wanted else sets[0] & ~rights
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "capabilities cannot be changed")


# Datasets made of them

SIZE = 32  # side of decoded images in the tests


def dataset_of(name: str, **options):
    kind = DATASETS.load(CASES[name].name if name in CASES else name)
    return kind(kind.Args(**(CASES[name].options if name in CASES else {}) | options))


@contextmanager
def official(monkeypatch, case: Case, files: dict[str, bytes], checked: bool = True):
    """The dataset's official address is a server of `files`."""
    kind = DATASETS.load(case.name)
    with serving(files) as server:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(kind, "downloads", server.downloads(kind.downloads, checked))
        yield server


def shown(part) -> tuple[list[int], list[int]]:
    """Labels of a part, and those that its images tell."""
    images, labels = part
    return labels.tolist(), told(images)[0]


# Archives of a few files

CONTENT = bytes(range(256)) * 1200  # 300 kB: several chunks
TREE = {"top/a.txt": b"alpha", "top/deep/b.bin": CONTENT, "other.txt": b"other"}


def packed(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2"}[path.suffix]
        with tarfile.open(path, mode) as file:
            for name, content in members.items():
                add(file, name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def refused(*parts: object):
    """Expects a UsageError of one line that names all of `parts`."""

    class Refused:
        def __enter__(self):
            self.raised = pytest.raises(UsageError)
            self.info = self.raised.__enter__()

        def __exit__(self, *error):
            caught = self.raised.__exit__(*error)
            message = str(self.info.value)
            assert "\n" not in message
            assert [str(part) for part in parts if str(part) not in message] == [], message
            return caught

    return Refused()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)
