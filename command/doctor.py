"""Looks over an installation and its folders, and says what to do about each fault: `python main.py doctor`.

Installed packages, devices, data folders, weights, products of stages, run folders and their checkpoints. It writes
nothing but the list of ImageNet's files that every run keeps. Exit code 0 without a fault, 1 with one.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from utils import requirements
from utils.args import Parser
from utils.errors import UsageError, printable, reason
from utils.files.disk import check_writable, unlisted
from utils.files.manifest import MANIFEST, changed_files, read_manifest
from utils.registry import DATASETS
from utils.runs import identity, signals

OK, NOTE, FAULT = "ok", "note", "FAULT"
ROOM = 2**30  # bytes that a folder for results should have left
PRODUCTS = ("meta_epoch_*.safetensors", "covariance.npy", "e_prompt.pt")  # of stages
Finding = tuple[str, str]  # how bad it is, and what it is


def main(argv: list[str]) -> int:
    parser = Parser(prog="main.py doctor", description=(__doc__ or "").split(": `")[0])
    parser.add_argument("--data_dir", default="data", help="folder of the datasets [data]")
    parser.add_argument("--cache_dir", default="data", help="folder of decoded images and features [data]")
    parser.add_argument("--checkpoint_dir", default="checkpoints", help="folder of weights and products [checkpoints]")
    parser.add_argument("--results", default="runs", help="folder of run folders [runs]")
    parser.add_argument("--deep", action="store_true", help="read every image of the datasets that are there")
    return examine(parser.parse(argv))


def examine(options: argparse.Namespace) -> int:
    """Prints all findings; gives the exit code."""
    faults = 0
    with signals.obeyed():
        for title, findings in examinations(options):
            print(f"{title}")
            for level, text in readable(findings):
                print(f"  {level:5}  {printable(text)}", flush=True)
                faults += level == FAULT
    print(f"{faults} fault{'s' * (faults != 1)}" if faults else "no fault")
    return 1 if faults else 0


def readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a part, up to what cannot be read."""
    try:
        yield from findings
    except OSError as error:
        yield FAULT, f"{error.filename}: {error.strerror or reason(error)}; the rest of this part was not looked at"


def examinations(options: argparse.Namespace) -> Iterator[tuple[str, Iterator[Finding]]]:
    """Title and findings of every part, in order; the later parts need what the first one looks at."""
    packages = list(installation(requirements.FILE))
    yield "installation", iter(packages)
    if any(level == FAULT for level, _ in packages):
        return
    yield "devices", devices()
    written = ("cache_dir", "checkpoint_dir", "results")
    yield "folders", folders({name: Path(getattr(options, name)) for name in written})
    yield "datasets", datasets(Path(options.data_dir), Path(options.cache_dir), options.deep)
    yield "features of test images", kept_features(Path(options.cache_dir))
    yield "weights", weights(Path(options.checkpoint_dir))
    yield "products of stages", products(Path(options.checkpoint_dir))
    yield "runs", runs(Path(options.results))


def installation(file: Path) -> Iterator[Finding]:
    """Python, and every package that is asked for: its version, and whether it can be imported."""
    level = OK if sys.version_info >= (3, 10) else FAULT
    yield level, f"Python {platform.python_version()}" + ("" if level == OK else "; 3.10 or newer is needed")
    for needed in requirements.listed(file):
        version = needed.version()
        if version is None:
            yield FAULT, f"{needed.name} is not installed; bash command/setup.sh, or pip install '{needed.line}'"
            continue
        if not needed.allows(version):
            yield (
                FAULT,
                f"{needed.name} {version} is installed, {needed.line} is needed; pip install -U '{needed.line}'",
            )
            continue
        try:
            importlib.import_module(needed.module)
        except Exception as error:  # a package that does not fit the others can fail in any way
            yield FAULT, f"{needed.name} {version} cannot be imported ({reason(error)}); install it again"
            continue
        yield OK, f"{needed.name} {version}"


def devices() -> Iterator[Finding]:
    """Which devices torch sees, and whether they compute."""
    import torch

    from utils.device import lacks_bf16

    names = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    for name in names:
        about = f"{torch.get_num_threads()} threads"
        try:
            if name != "cpu":
                free, total = torch.cuda.mem_get_info(name)
                about = f"{torch.cuda.get_device_name(name)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            ones = torch.ones(64, 64, device=name)
            for dtype in (torch.float32, torch.bfloat16):
                if not bool((ones.to(dtype) @ ones.to(dtype) == 64).all()):
                    raise ArithmeticError(f"a product of matrices in {dtype} is wrong")
            slow = ", no arithmetic for bf16" if lacks_bf16(torch.device(name)) else ""
            yield OK, f"{name}: {about}{slow}"
        except (RuntimeError, ArithmeticError) as error:
            yield FAULT, f"{name}: {about}; it does not compute ({reason(error)}); use another --device"
    if len(names) == 1 and shutil.which("nvidia-smi"):
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield FAULT, f"there is an NVIDIA driver, but torch, built {built}, sees no GPU; install a torch that fits it"


def folders(given: dict[str, Path]) -> Iterator[Finding]:
    """Whether files can be written where they are to go. given: option -> folder."""
    for option, path in given.items():
        try:
            there = check_writable(path, f"--{option}")
        except UsageError as error:
            yield FAULT, f"{error}; name another folder"
            continue
        free = shutil.disk_usage(there).free
        text = f"--{option} {path}: {free / 2**30:.1f} GiB free"
        yield (OK, text) if free >= ROOM else (FAULT, f"{text}; make room, checkpoints and results may not fit")
        for line in unlisted(path) if there == path.absolute() and option != "cache_dir" else ():
            yield FAULT, f"{line}; make it readable"
        for file in path.rglob(".*.part") if option != "cache_dir" else ():  # decoding clears up its own
            yield NOTE, f"{file} was left by a process that was killed; it can be removed if nothing runs"


def datasets(data: Path, cache: Path, deep: bool) -> Iterator[Finding]:
    """Benchmarks that are there: their images counted, and with `deep` read. The others are named."""

    from datasets.base import Places, PublicDataset

    absent = []
    for name in DATASETS.files():
        kind = DATASETS.load(name)
        if name == "seq-folder" or not issubclass(kind, PublicDataset):
            continue
        dataset = kind()
        folder = dataset.find(data)
        if folder is None:
            absent.append(name)
            continue
        counts: list[tuple[int, int, str]] = []

        def count(found: int, published: int, what: str, counts: list = counts) -> None:
            counts.append((found, published, what))

        dataset.compare_count = count
        survey, bad = None, []
        try:
            places = Places(data, cache, 224)
            survey = dataset.survey(places)
            bad = list(_unreadable(dataset.images(places))) if deep else []
        except (UsageError, OSError) as error:
            yield FAULT, f"{name}: {error}"
        for found, published, what in counts:
            if found != published:
                yield FAULT, f"{name}: {found:,} {what}, published: {published:,}; unpack or --download it again"
        for fault in bad:
            yield FAULT, f"{name}: {fault}; replace it, or leave it out with --skip_bad"
        if survey and survey.counts and not bad and all(found == published for found, published, _ in counts):
            yield OK, f"{name}: {survey.counts[0]:,} training and {survey.counts[1]:,} test images in {folder}"
    if absent:
        yield NOTE, f"not below {data}: {', '.join(absent)}; docs/datasets.md says where each comes from"
    for file in sorted(file for part in ("decoded", *DATASETS.files()) for file in (cache / part).glob("*.npy")):
        yield _cached(file)


def _cached(file: Path) -> Finding:
    """Whether a kept array is the one that was written; it is read for that, whatever its time says."""
    import numpy as np

    from utils.data import cache

    seal = cache.read_note(cache.seal_of(file))
    if seal is None:
        return NOTE, f"{file}: nothing tells what was written (an older version?); it is made again, or delete it"
    if fault := cache.array_fault(file, seal, trusting=False):
        return FAULT, f"{file}: {fault}; delete it, it is made again"
    return OK, f"{file}: {len(np.load(file, mmap_mode='r')):,} images, as they were written"


def kept_features(cache: Path) -> Iterator[Finding]:
    """What runs keep of their test images, as they read it."""
    from utils.data import features

    files = sorted((cache / features.FOLDER).glob(features.FILES))
    for file in files:
        if fault := features.fault(file):
            yield FAULT, f"{file}: {fault}; delete it, it is computed again"
    size, most = sum(file.stat().st_size for file in files) / 2**20, features.LIMIT // 2**20
    yield OK, f"{len(files)} files in {cache / features.FOLDER}, {size:.1f} of at most {most:,} MiB"


def _unreadable(paths: list[Path]) -> Iterator[str]:
    from utils.data.decode import decode

    for path in paths:
        try:
            decode(path, 32, "squash")
        except Exception as error:  # Pillow raises many types; whichever it is, the file is no usable image
            yield f"{path} cannot be read ({reason(error)})"


def weights(checkpoints: Path) -> Iterator[Finding]:
    """The shipped network, and the pretrained ones that are there, read as a run reads them."""
    import torch

    import backbone

    absent = []
    for name in (*backbone.TRAINED_ON, *backbone.SOURCES):
        try:
            file = backbone.weights_file(name, None, checkpoints)
        except UsageError:
            absent.append(name)
            continue
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the numbers go nowhere
                yield OK, f"{name}: {file}: {backbone.load_weights(backbone.build(name), file)}"
        except UsageError as error:
            yield FAULT, f"{name}: {error}; fetch it again"
    if absent:
        yield NOTE, f"not in {checkpoints}: {', '.join(absent)}; docs/backbones.md says where each comes from"


def products(checkpoints: Path) -> Iterator[Finding]:
    """What the stages of MePo and MISA made, against the digests that were taken when it was made."""
    from backbone.products import data_of

    made = sorted(file.parent for file in checkpoints.glob(f"*/*/{MANIFEST}"))
    for folder in made:
        try:
            changed = changed_files(folder, read_manifest(folder))
        except UsageError as error:
            yield FAULT, f"{error}"
            continue
        if changed:
            yield FAULT, f"{folder}: {', '.join(changed)}: not as made; remove the folder, the stage is repeated"
        elif data_of(folder) is None:
            yield NOTE, f"{folder}: as made, but it does not say which data it was made from"
        else:
            yield OK, f"{folder}"
    for folder in sorted({file.parent for kind in PRODUCTS for file in checkpoints.glob(f"*/*/{kind}")} - {*made}):
        yield NOTE, f"{folder}: without a manifest, so it may be unfinished; a run that needs it makes it again"
    if not made:
        yield NOTE, f"none in {checkpoints}"


def runs(results: Path) -> Iterator[Finding]:
    """Run folders: files against their digests, versions, and whether unfinished ones can go on."""
    from utils.runs.reading import read_class_accuracies, read_metrics, read_run, run_folders

    whole, here = 0, identity.versions()
    others: Counter[str] = Counter()
    older = 0
    for folder in sorted(run_folders(results)):
        try:
            run = read_run(folder)
            if run.summary is not None:
                read_metrics(folder)
                read_class_accuracies(folder)
        except UsageError as error:
            yield FAULT, f"{error}"
            continue
        if run.summary is None:
            yield from _unfinished(folder)
            continue
        changed, there = changed_files(folder, run.summary.sha256), run.config.get("versions") or {}
        if changed:
            yield FAULT, f"{folder}: {', '.join(changed)}: not as written; repeat the run"
            continue
        whole += 1
        older += identity.read(run.config) is None
        for package, version in here.items():
            if there.get(package) != version:
                others[f"made with {package} {there.get(package)}, here is {version}"] += 1
    if older:
        yield NOTE, f"{older} runs do not say which data and weights they read; a version before this made them"
    yield (OK, f"{whole} complete runs in {results}") if whole else (NOTE, f"no complete run in {results}")
    for text, count in others.items():
        yield NOTE, f"{count} runs {text}; numbers may differ in the last digits"


def _unfinished(folder: Path) -> Iterator[Finding]:
    from utils.runs import checkpoint

    kept = checkpoint.found(folder / "checkpoints")
    faults = [f"{path} {fault}" for path in kept if (fault := checkpoint.verify(path))]
    for fault in faults:
        yield FAULT, f"{fault}; it is passed over, and can be removed"
    if len(faults) < len(kept):
        yield NOTE, f"{folder}: not complete; --resume auto, or --resume {folder}, goes on with it"
    else:
        yield NOTE, f"{folder}: not complete, and without a checkpoint; remove it, or repeat the run"


if __name__ == "__main__":
    raise SystemExit("python main.py doctor does this")
