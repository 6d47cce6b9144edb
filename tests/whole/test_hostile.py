"""Files made to do harm, given to everything that reads files: refused in one line, and nothing else happens."""

from __future__ import annotations

import ast
import collections
import contextlib
import gzip
import io
import json
import os
import pickle
import re
import signal
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import backbone
from datasets.base import Places
from datasets.drawing.characters import cached
from models.mepo import load_covariance
from models.misa import load_prompts
from tests.miniatures import Gadget
from tests.tiny import CPU, ROOT, WIDTH, tiny_vit
from utils.data.decode import decoded
from utils.data.listing import Listed, read_list, remembered_listing
from utils.errors import UsageError
from utils.files.archives import unpack
from utils.files.manifest import read_manifest, sha256
from utils.files.pickles import read_arrays
from utils.files.tensors import read_tensors
from utils.registry import DATASETS
from utils.runs import checkpoint
from utils.runs.description import FILE as LEARNER
from utils.runs.description import read_description
from utils.runs.reading import read_class_accuracies, read_metrics, read_run
from utils.runs.resume import candidates, config_of

TRACE = "trace-of-a-gadget"  # a file that appears in the working folder if anything in a corpus file runs
RUN = {"model": "er", "dataset": "seq-digits", "scenario": "si-blurry", "seed": 1}


def in_memory(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def torch_file(content, legacy: bool = False) -> bytes:
    return in_memory(lambda file: torch.save(content, file, _use_new_zipfile_serialization=not legacy))


def npy(array: np.ndarray) -> bytes:
    return in_memory(lambda file: np.save(file, array, allow_pickle=True))


def header(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def tensors(entries: dict, body: bytes = bytes(8), length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def tar(name: str = "a.txt", **changes) -> bytes:
    def write(file):
        with tarfile.open(fileobj=file, mode="w") as archive:
            for path, changed in (("plain.txt", {}), (name, changes)):
                member = tarfile.TarInfo(path)
                member.size = 4
                for key, value in changed.items():
                    setattr(member, key, value)
                archive.addfile(member, io.BytesIO(b"evil"))

    return in_memory(write)


def head(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf()


def zipped(*names: str, mode: int = 0o100644) -> bytes:
    def write(file):
        with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name in names:
                member = zipfile.ZipInfo(name)
                member.external_attr = mode << 16
                archive.writestr(member, "evil")

    return in_memory(write)


def picture(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def laughs(levels: int) -> list:
    """Lists of ten times the same list, a few bytes in a pickle."""
    content = [1] * 10
    for _ in range(levels):
        content = [content] * 10
    return content


def mat(levels: int, zeros: int) -> bytes:
    """A .mat file of cells in cells, or of zeros, packed."""
    preamble = struct.pack("<IIII", 6, 8, 6 if zeros else 1, 0) + struct.pack("<IIii", 5, 8, 1, zeros or 1)
    name = struct.pack("<II", 1, 11) + b"annotations".ljust(16, b"\0")
    inner = preamble + struct.pack("<II", 1, 0)  # without a name
    tags = [struct.pack("<II", 14, len(inner) * (levels - k) + 8 * (levels - k - 1)) for k in range(levels)]
    start = preamble + name + (struct.pack("<II", 9, 8 * zeros) if zeros else b"".join(tag + inner for tag in tags))
    pack = zlib.compressobj()
    packed = pack.compress(struct.pack("<II", 14, len(start) + 8 * zeros) + start)
    packed += b"".join(pack.compress(bytes(2**20)) for _ in range(0, 8 * zeros, 2**20)) + pack.flush()
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed


def packed(steps: bytes) -> bytes:
    """What torch.save could have written around the steps of a pickle, deflated."""

    def write(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + steps + b".")
            archive.writestr("archive/version", "3\n")

    return in_memory(write)


def doubled(levels: int, first: bytes, pair: bytes) -> bytes:
    """Steps for things of two of the one before, so that each is twice as much. pair: %b is the one before."""
    steps = [pair % ((b"h" + bytes([k]),) * 2) + b"q" + bytes([k + 1]) for k in range(levels)]
    return first + b"q\x00" + b"".join(steps)


TOUCH, OPEN = Gadget(os.system, f"touch {TRACE}"), Gadget(open, TRACE, "w")
STATE = {"norm.weight": torch.zeros(2)}
STACK_GLOBAL = b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + b"\x8c" + bytes([len(f"touch {TRACE}")])
SYSTEM = f"cposix\nsystem\n(S'touch {TRACE}'\ntR.".encode()
DEEP = 20_000

PICKLES = {
    "call": pickle.dumps({"data": TOUCH}),
    "open": pickle.dumps({"data": OPEN}),
    "eval": pickle.dumps({"data": Gadget(eval, f"open({TRACE!r}, 'w')")}),
    "old protocol": SYSTEM,
    "instance": f"(S'touch {TRACE}'\niposix\nsystem\n.".encode(),
    "name on the stack": STACK_GLOBAL + f"touch {TRACE}".encode() + b"\x85R.",
    "attribute of a module": b"cbuiltins\ngetattr\n(cposix\n__dict__\nS'get'\ntR.",
    "nested name": b"\x80\x04\x8c\x05torch\x8c\x14serialization.os.env\x93.",
    "deep lists": b"(l" * DEEP + b"." + b"a" * 9,
    "deep tuples as a key": b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
    "list of one list": pickle.dumps({"data": laughs(9)}, 2),
    "endless index": b"\x80\x02]r\xff\xff\xff\x7f.",
    "class with a state": pickle.dumps(collections.OrderedDict(data=OPEN)),
}
WEIGHTS = {
    "gadget": torch_file(STATE | {"extra": TOUCH}),
    "gadget, legacy": torch_file(STATE | {"extra": OPEN}, legacy=True),
    "gadget in a container": torch_file({"state_dict": {"norm.weight": Gadget(eval, f"open({TRACE!r}, 'w')")}}),
    "no tensors": torch_file([1, 2, 3]),
    "tensor with no numbers": torch_file({"norm.weight": torch.empty(2, device="meta")}),
    "cut": torch_file(STATE)[:-40],
}
FULL_MARK = b"J\xff\xff\xff\x7f"  # the largest number of four bytes
# A few bytes that stand for gigabytes, or for hours of a reader.
SMALL = {
    "millions of lists": packed(b"]" * 20_000_000),
    "tuples as a key": packed(b"}" + doubled(40, b"K\x01", b"%b%b\x86") + b"K\x01s"),
    "lists as a name": packed(b"(" + doubled(60, b"]", b"](%b%be") + b"tQ"),
    "lists as a function": packed(doubled(60, b"]", b"](%b%be") + b")R"),
    "lists that are filled late": packed(
        b"".join(b"]q" + bytes([k]) for k in range(60))
        + b"".join(b"h%c(h%ch%ce" % (k + 1, k, k) for k in reversed(range(59)))
        + b")R"
    ),
    "array of bytes": packed(b"cbuiltins\nbytearray\n" + FULL_MARK + b"\x85R"),
    "tensor of a size": packed(b"ctorch\nFloatTensor\n" + FULL_MARK + b"\x85R"),
    "new tensor of a size": packed(b"ctorch\nFloatTensor\n" + FULL_MARK + b"\x85\x81"),
    "array of bytes in two steps": packed(
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nctorch\nTensor\n" + FULL_MARK + b"\x85NtR"
    ),
    "counted over and over": packed(
        b"(ccollections\nCounter\nq\x00(" + b"K\x01" * 1000 + b"l\x85q\x01" + b"h\x00h\x01R" * 30_000 + b"l"
    ),
    "code of host names": packed(
        b"c_codecs\nencode\nX" + struct.pack("<I", 600_000) + "\u4e2d".encode() * 200_000 + b"X\4\0\0\0idna\x86R"
    ),
    "storage of a size": torch_file(STATE, legacy=True).replace(b"cpuq\x06K\2", b"cpuq\x06" + FULL_MARK),
    "storage of a size, zip": packed(
        b"((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu" + FULL_MARK + b"tQl"
    ),
    "pickle in capitals": packed(b"}" + doubled(40, b"K\x01", b"%b%b\x86") + b"K\x01s").replace(b"data", b"DATA"),
}
ARRAYS = {
    "objects": npy(np.array([OPEN, None], dtype=object)),
    "objects in an archive": in_memory(lambda file: np.savez(file, data=np.array([TOUCH], dtype=object))),
    "code in its header": header(f"{{'descr': open({TRACE!r}, 'w'), 'fortran_order': False, 'shape': (1,)}}\n"),
    "size of 2**60": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,)}\n"),
    "size below zero": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n"),
    "pickle by name": pickle.dumps(OPEN),
}
SAFETENSORS = {
    "endless header": tensors({}, length=2**63),
    "header behind the end": tensors({}, length=10**6),
    "tensor behind the end": tensors({"norm.weight": entry([4], 0, 16)}),
    "tensors over each other": tensors({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}),
    "offsets below zero": tensors({"a": entry([2], -8, 0)}),
    "shape of 2**80": tensors({"a": entry([2**40, 2**40], 0, 8)}),
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "deep JSON": struct.pack("<Q", 2 * DEEP) + b"[" * DEEP + b"]" * DEEP,
}
YAMLS = {
    "call": b"!!python/object/apply:os.system ['touch " + TRACE.encode() + b"']",
    "call as a value": b"run: !!python/object/apply:builtins.open ['" + TRACE.encode() + b"', 'w']",
    "name": b"data: !!python/name:os.system ''",
    "new object": b"data: !!python/object/new:os.popen ['touch " + TRACE.encode() + b"']",
    "laughs": b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121)),
    "deep": b"[" * DEEP,
    "empty number": b"run: !!int ''",
    "no month": b"run: 2020-99-99",
    "no text": b"\xff\xfe\x00",
}
JSONS = {
    "deep": b"[" * DEEP,
    "deep and closed": b'{"a": ' * DEEP + b"1" + b"}" * DEEP,
    "infinity": b'{"format": Infinity, "A_auc": 1e999}',
    "digits": b'{"format": ' + b"9" * 5000 + b"}",
    "list": b"[1, 2]",
    "word": b'"evil"',
}
TABLES = {"no table": b"\0\1\2", "no columns": b"a,b\n1,2\n", "words": b"kind,samples_seen\nx\n", "nothing": b""}
ARCHIVES = {
    "tar": {
        "name that goes up": tar("../evil.txt"),
        "name from the root": tar("/evil-at-the-root.txt"),
        "link": tar("door", type=tarfile.SYMTYPE, linkname="..", size=0),
        "hard link": tar("door", type=tarfile.LNKTYPE, linkname="../../evil.txt", size=0),
        "device": tar("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, size=0),
        "pipe": tar("pipe", type=tarfile.FIFOTYPE, size=0),
        "name that is there twice": tar("plain.txt"),
        "size below zero": tar()[:124] + b"\xff" * 12 + tar()[136:],
    },
    "tar.gz": {
        "name of 100 MB": gzip.compress(head("long", 10**8, tarfile.GNUTYPE_LONGNAME) + bytes(10**8)),
        "header of 100 MB": gzip.compress(head("pax", 10**8, tarfile.XHDTYPE) + bytes(10**8)),
        "bomb": gzip.compress(tar()[:1024] + head("zeros", 2**27) + bytes(2**27 + 1024)),
        "bomb after its end": gzip.compress(tar() + bytes(2**27)),
    },
    "zip": {
        "name that goes up": zipped("../evil.txt"),
        "name from the root": zipped("/evil-at-the-root.txt"),
        "name of another system": zipped("..\\evil.txt"),
        "link": zipped("door", mode=0o120777),
        "name that is there twice": zipped("a.txt", "a.txt"),
        "bomb": in_memory(lambda file: zipfile.ZipFile(file, "w", 8).writestr("zeros", bytes(2**27))),
    },
}
MATS = {"deep": mat(200_000, 0), "bomb": mat(0, 2**26)}
PICTURES = {
    "60,000 pixels a side": picture(60_000, 60_000),
    "program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + TRACE.encode() + b") (w) file closefile\n",
    "pickle": PICKLES["call"],
    "cut": picture(8, 8),
}


PIPE = b"a pipe"  # as a content: the file is one


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    if content == PIPE:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    return file


def weights(place: Path, name: str, content: bytes) -> list[Callable]:
    file = put(place / name, content)
    prompts = torch.nn.Parameter(torch.zeros(10, 4, WIDTH))
    put(place / "pool" / "e_prompt.pt", content)
    return [
        lambda: backbone.load_weights(tiny_vit(), file),
        lambda: load_prompts(prompts, place / "pool" / "e_prompt.pt"),
        lambda: load_covariance(file, WIDTH),
    ]


def run_with(place: Path, name: str, content: bytes) -> Path:
    folder = place / "results" / "seq-digits" / "er" / "run"
    put(folder / "config.yaml", json.dumps({"run": RUN}).encode())
    put(folder / name, content)
    return folder


def found_no_run(place: Path) -> None:
    """`candidates` passes such a folder over."""
    here = {"run": RUN, "method": {"lr": 1}, "identity": {"incidental": [], "read": {}}}
    assert candidates(str(place / "results"), here) == []
    raise UsageError("passed over")


def no_state(folder: Path) -> None:
    """`checkpoint.load` passes such a state over, with a warning of one line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert checkpoint.load(folder, CPU) is None
    assert said.getvalue().startswith("warning: ") and said.getvalue().count("\n") == 1
    raise UsageError("passed over")


def state_with(place: Path, part: str, content: bytes) -> Path:
    """A checkpoint whose digests are right."""
    made = checkpoint.save(put(place / "checkpoints" / "x", b"").parent, {"value": torch.zeros(2)})
    put(made / part, content)
    if part != checkpoint.MANIFEST and content != PIPE:
        digests = {name: sha256(made / name) for name in (checkpoint.TENSORS, checkpoint.TREE)}
        put(made / checkpoint.MANIFEST, json.dumps({"format": checkpoint.FORMAT} | digests).encode())
    return made.parent


def dataset(place: Path, name: str) -> Callable:
    return lambda: DATASETS.load(name)().load(Places(place, place / "cache", 32), True)


def cifar(place: Path, content: bytes) -> list[Callable]:
    for k in range(1, 6):
        put(place / "cifar-10-batches-py" / f"data_batch_{k}", content)
    put(place / "cifar-10-batches-py" / "test_batch", content)
    return [
        dataset(place, "seq-cifar10"),
        lambda: read_arrays(place / "cifar-10-batches-py" / "test_batch", {"data": ()}),
    ]


def cars(place: Path, content: bytes) -> list[Callable]:
    for name in ("cars_train_annos.mat", "cars_annos.mat", "cars_test_annos_withlabels.mat"):
        for folder in ("devkit", "."):
            put(place / "CARS196" / folder / name, content)
    for name in ("cars_train", "cars_test"):
        (place / "CARS196" / name).mkdir()
    return [dataset(place, "seq-cars196")]


def digits(place: Path, content: bytes) -> list[Callable]:
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        put(place / "MNIST" / "raw" / f"{name}-idx{3 if 'images' in name else 1}-ubyte.gz", content)
    return [dataset(place, "seq-mnist")]


def image(place: Path, content: bytes) -> list[Callable]:
    file = put(place / "images" / "cat" / "a.jpg", content)
    return [lambda: decoded(place / "images", [file], 8, "squash", place / "cache", "own train", False)]


def archive(place: Path, ending: str, content: bytes) -> list[Callable]:
    file = put(place / f"data.{ending}", content)
    return [lambda: unpack(file, place / "unpacked")]


def run_files(place: Path, name: str, content: bytes) -> list[Callable]:
    folder = run_with(place, name, content)
    readers: list[Callable] = [lambda: read_run(folder)]
    if name == "config.yaml":
        readers += [lambda: config_of(folder), lambda: found_no_run(place)]
        put(folder / "checkpoints" / "x", b"")
    return readers


def state_of_a_run(place: Path, part: str, content: bytes) -> list[Callable]:
    checkpoint.write_state(place, {"value": torch.zeros(2)})
    put(place / part, content)
    return [lambda: checkpoint.read_state(place, CPU)]


# Kind of file -> (the files, what puts one where it belongs and gives the calls that read it).
CORPUS: dict[str, tuple[dict[str, bytes], Callable[[Path, bytes], list[Callable]]]] = {
    **{
        f"{kind} as {name}": (files, lambda place, content, name=name: weights(place, name, content))
        for name in ("w.pth", "w.safetensors", "w.npz", "w.npy")
        for kind, files in (
            ("pickle", PICKLES),
            ("torch", WEIGHTS),
            ("array", ARRAYS),
            ("tensors", SAFETENSORS),
        )
    },
    "pickle of CIFAR": (PICKLES | WEIGHTS, cifar),
    "annotations of cars": ({name: PICKLES[name] for name in ("call", "deep lists")} | MATS, cars),
    "digits": ({"bomb": gzip.compress(bytes(2**27)), **PICKLES}, digits),
    "picture": (PICTURES, image),
    "list of images": (YAMLS, lambda place, content: [lambda: read_list(put(place / "list.yaml", content))]),
    "config": (YAMLS, lambda place, content: run_files(place, "config.yaml", content)),
    "summary": (JSONS, lambda place, content: run_files(place, "summary.json", content)),
    "metrics": (TABLES, lambda place, content: [lambda: read_metrics(run_with(place, "metrics.csv", content))]),
    "accuracies": (
        TABLES,
        lambda place, content: [lambda: read_class_accuracies(run_with(place, "per_class.csv", content))],
    ),
    "description of a learner": (
        JSONS,
        lambda place, content: [lambda: read_description(put(place / LEARNER, content).parent)],
    ),
    "state of a learner, tree": (
        JSONS | {"place": b'{"tensor": 5}', "no name": b'{"tensor": ["a", false]}'},
        lambda place, content: state_of_a_run(place, checkpoint.TREE, content),
    ),
    "state of a learner, tensors": (
        SAFETENSORS | PICKLES | {"nothing": b"", "other names": save({"x": torch.zeros(1)})},
        lambda place, content: state_of_a_run(place, checkpoint.TENSORS, content),
    ),
    "manifest of a product": (
        {name: content for name, content in JSONS.items() if name not in ("infinity", "digits")},
        lambda place, content: [lambda: read_manifest(put(place / "manifest.json", content).parent)],
    ),
    **{
        f"checkpoint, {part}": (
            files,
            lambda place, content, part=part: [lambda: no_state(state_with(place, part, content))],
        )
        for part, files in (
            (checkpoint.MANIFEST, JSONS),
            (
                checkpoint.TREE,
                {name: JSONS[name] for name in ("deep", "deep and closed")} | {"place": b'{"tensor": 5}'},
            ),
            (checkpoint.TENSORS, SAFETENSORS | {"nothing": b"", "other names": save({"x": torch.zeros(1)})}),
        )
    },
    **{
        f"archive .{ending}": (files, lambda place, content, ending=ending: archive(place, ending, content))
        for ending, files in ARCHIVES.items()
    },
}
PAIRS = [(kind, name) for kind, (files, _) in CORPUS.items() for name in files]


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*")}


@pytest.mark.parametrize("kind, name", PAIRS, ids=[f"{kind}: {name}" for kind, name in PAIRS])
@pytest.mark.filterwarnings("ignore")
def test_hostile_file_is_refused(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, prepare = CORPUS[kind]
    place = tmp_path / "place"
    place.mkdir()
    for read in prepare(place, files[name]):
        with pytest.raises(UsageError) as refusal:
            read()
        assert str(refusal.value) and "\n" not in str(refusal.value)
    assert everything(tmp_path) - everything(place) == {place}, "something was written outside of its folder"
    assert not [path for path in place.rglob("*") if TRACE in path.name or path.name.startswith("evil")]
    assert not Path("/evil-at-the-root.txt").exists()


def drawn(place: Path) -> list[Path]:
    """A cached array and its seal."""
    assert cached(place / "glyphs", "masks", (), lambda: np.arange(3)).tolist() == [0, 1, 2]
    return sorted((place / "glyphs").iterdir(), key=lambda file: file.suffix, reverse=True)


def listed(place: Path) -> list[Path]:
    (place / "images" / "a").mkdir(parents=True, exist_ok=True)
    found = Listed([place / "images" / "a" / "1.png"], [0], ["a"], {}, [])
    assert remembered_listing(place / "images", place / "cache", lambda _: found) == found
    return [*(place / "cache" / "listings").iterdir()]


@pytest.mark.parametrize("make", [drawn, listed])
@pytest.mark.filterwarnings("ignore")
def test_hostile_caches_are_made_again(make, tmp_path, monkeypatch, capsys, patience):
    """Arrays, seals and listings that are not what was written, pipes among them."""
    monkeypatch.chdir(tmp_path)
    for number in range(len(make(tmp_path / "place"))):
        for content in (*ARRAYS.values(), *JSONS.values(), PIPE):
            file = make(tmp_path / "place")[number]
            file.unlink()
            put(file, content)
            make(tmp_path / "place")
            assert "made again" in capsys.readouterr().err
    assert not Path(TRACE).exists()


@pytest.fixture
def patience(tmp_path):
    """Ten seconds, for what could wait forever."""

    def impatient(*_):
        for pipe in tmp_path.rglob("*"):
            with contextlib.suppress(OSError):  # that nobody waits for it
                if pipe.is_fifo():  # lets go a thread that does
                    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pytest.fail("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, impatient)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", SMALL)
def test_small_files_are_not_read_into_gigabytes(name, tmp_path, patience):
    """Refused for what they would build, before anything is built."""
    file = put(tmp_path / "w.pth", SMALL[name])
    assert len(SMALL[name]) < 61_000
    with pytest.raises(UsageError, match="cannot be read as tensors") as refusal:
        read_tensors(file)
    told = "builds more than|fills what|holds more than these|in a code|more numbers than"
    assert re.search(told, str(refusal.value))


def test_large_checkpoints_are_still_read(tmp_path):
    """As many things as a network of 3,000 tensors, its optimiser and its schedule have."""
    weight = torch.zeros(2)
    states = {number: {"exp_avg": weight, "exp_avg_sq": weight, "step": 3} for number in range(3000)}
    network = collections.OrderedDict((f"blocks.{number}.weight", weight) for number in range(3000))
    schedule = {"milestones": collections.Counter([30, 60]), "rates": [0.1] * 10_000}
    content = {"model": network, "optimizer": {"state": states, "params": list(range(3000))}, "schedule": schedule}
    assert read_tensors(put(tmp_path / "w.pth", torch_file(content)))["schedule"] == schedule
    assert read_tensors(put(tmp_path / "w.pth", torch_file(content, legacy=True)))["model"].keys() == network.keys()


@pytest.mark.parametrize("kind", [kind for kind in CORPUS if not kind.startswith("archive")])
def test_nothing_waits_for_a_pipe(kind, tmp_path, patience):
    """In place of the file. An archive is one that we fetched."""
    for read in CORPUS[kind][1](tmp_path, PIPE):
        with pytest.raises(UsageError):
            read()
    assert [file for file in everything(tmp_path) if file.is_fifo()]


def test_the_corpus_is_large_and_armed(tmp_path, monkeypatch):
    """At least thirty files, and the gadgets do run where a file is trusted."""
    assert len({content for files, _ in CORPUS.values() for content in files.values()}) >= 60
    monkeypatch.chdir(tmp_path)
    for name in ("call", "open", "eval", "old protocol", "instance", "name on the stack", "class with a state"):
        with contextlib.suppress(Exception):
            pickle.loads(PICKLES[name])
        assert Path(TRACE).exists(), name
        Path(TRACE).unlink()


def test_plain_files_pass(tmp_path):
    """The same readers take what is in order."""
    torch.save(STATE, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth").keys() == STATE.keys()
    put(tmp_path / "list.yaml", b"data: [a/1.png, b/2.png]")
    assert [entry.name for entry in read_list(tmp_path / "list.yaml")] == ["a/1.png", "b/2.png"]
    unpack(put(tmp_path / "data.tar", tar()[:1024] + bytes(1024)), tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "plain.txt").read_bytes() == b"evil"


# What the code may not say


def forbidden(source: str) -> list[str]:
    """Calls in a Python source by which a file could run code or leave its folder."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "os.system", "os.popen"):
            faults.append(name)
        if name.startswith(("pickle.", "cPickle.", "dill.", "joblib.")) and last in ("load", "loads", "Unpickler"):
            faults.append(name)
        if name.startswith("yaml.") and last in ("load", "load_all", "unsafe_load", "full_load"):
            faults.append(name)
        if last == "load" and name.startswith("torch.") and given.get("weights_only") != "True":
            faults.append(f"{name} without weights_only=True")
        if given.get("weights_only", "True") != "True" or given.get("allow_pickle", "False") != "False":
            faults.append(f"{name} that trusts a file")
        if given.get("shell", "False") != "False":
            faults.append(f"{name} with a shell")
        if last == "extractall" or (last == "extract" and given.get("filter") != "'data'" and "zip" not in source):
            faults.append(f"{name} without a filter")
    return faults


SOURCES = [
    ROOT / "main.py",
    *(f for part in ("backbone", "models", "datasets", "utils") for f in (ROOT / part).rglob("*.py")),
]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_code_trusts_no_file(file):
    assert forbidden(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "pickle.load(f)",
        "pickle.loads(b)", "yaml.load(f, L)", "yaml.unsafe_load(f)", "eval(t)", "exec(t)", "os.system(t)",
        "subprocess.run(t, shell=True)", "archive.extractall(d)", "archive.extract(m, d)", "pickle.Unpickler(f).load()",
    ],
)  # fmt: skip
def test_the_check_of_the_code_can_fail(source):
    assert forbidden(source)
