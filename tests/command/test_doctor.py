"""python main.py doctor: every fault is found, with what to do about it, and a sound place has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import backbone
import main
from command import doctor
from tests.miniatures import nobody
from tests.tiny import weights_of
from utils import plan as plans
from utils.data import cache, features
from utils.files.manifest import write_manifest
from utils.runs import checkpoint


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty place; examines it with further options and gives exit code and lines."""
    monkeypatch.chdir(tmp_path)

    def examine(*words: str, capsys) -> tuple[int, list[str]]:
        code = main.main(["doctor", *words])
        return code, capsys.readouterr().out.splitlines()

    return examine


@pytest.fixture(scope="module")
def finished(tmp_path_factory, glyph_weights):
    """A complete run, to be copied and spoilt."""
    results = tmp_path_factory.mktemp("runs")
    words = ["--model", "er", "--dataset", "seq-digits", "--online_iter", "1", "--device", "cpu"]
    words += ["--backbone_path", str(glyph_weights), "--results", str(results)]
    assert main.main(words) == 0
    return results


def faults(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.startswith("  FAULT")]


def test_a_sound_place_has_no_fault(place, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "runs")
    code, lines = place(capsys=capsys)
    assert (code, lines[-1]) == (0, "no fault")
    assert "  ok     1 complete runs in runs" in lines
    assert any(line.startswith("  ok     vit_tiny_glyphs: ") for line in lines)
    assert [line for line in lines if not line.startswith(" ")] == [
        "installation", "devices", "folders", "datasets", "features of test images", "weights", "products of stages",
        "runs", "no fault",
    ]  # fmt: skip


def test_it_changes_nothing(place, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "runs")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    place(capsys=capsys)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_packages_that_lack_or_are_too_old(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\n\nno-such-package>=2\nnumpy>=1000\ntorch\n")
    found = list(doctor.installation(file))
    assert found[0][0] == doctor.OK
    assert found[1][0] == doctor.FAULT and "pip install 'no-such-package>=2'" in found[1][1]
    assert found[2][0] == doctor.FAULT and "pip install -U 'numpy>=1000'" in found[2][1]
    assert found[3] == (doctor.OK, f"torch {torch.__version__.split('+')[0]}")


def test_a_package_that_cannot_be_imported(tmp_path, monkeypatch):
    def fail(name):
        raise ImportError("libfoo.so:\ncannot open")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    file = tmp_path / "requirements.txt"
    file.write_text("numpy\n")
    ((_, _), (level, text)) = doctor.installation(file)
    assert level == doctor.FAULT and text.endswith("cannot be imported (libfoo.so: cannot open); install it again")


def test_nothing_else_is_looked_at_without_the_packages(place, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "installation", lambda file: iter([(doctor.FAULT, "torch is not installed")]))
    code, lines = place(capsys=capsys)
    assert (code, lines) == (1, ["installation", "  FAULT  torch is not installed", "1 fault"])


def test_a_device_that_does_not_compute(monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(64, 64))
    level, text = next(doctor.devices())
    assert level == doctor.FAULT and text.startswith("cpu: ") and "it does not compute (a product of matrices" in text


def test_a_driver_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    *_, (level, text) = doctor.devices()
    assert level == doctor.FAULT and "sees no GPU" in text


def test_folders(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".summary.json.1.part").touch()
    found = list(doctor.folders({"results": tmp_path / "runs", "cache_dir": tmp_path / "file" / "cache"}))
    assert found[0][0] == doctor.OK and found[0][1].startswith(f"--results {tmp_path / 'runs'}: ")
    assert found[1][0] == doctor.NOTE and ".summary.json.1.part was left by a process that was killed" in found[1][1]
    assert found[2][0] == doctor.FAULT and found[2][1].endswith("file is no folder); name another folder")
    monkeypatch.setattr(doctor, "ROOM", 2**62)
    assert next(doctor.folders({"results": tmp_path}))[0] == doctor.FAULT


def test_folder_without_permission():
    with nobody() as place:
        (place / "closed").mkdir(0o555)
        level, text = next(doctor.folders({"results": place / "closed" / "runs"}))
        assert level == doctor.FAULT and "no permission to write in" in text


def test_data_that_lack_images_or_hold_bad_ones(place, tmp_path, capsys):
    for part in ("train", "test"):
        for name in ("n01443537", "n01484850"):
            folder = tmp_path / "data" / "imagenet-r" / part / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "a.png")
    (tmp_path / "data" / "imagenet-r" / "test" / "n01484850" / "b.jpg").write_bytes(b"\xff\xd8 no image")
    code, lines = place(capsys=capsys)
    assert code == 1
    (classes, training, test) = (next(f for f in faults(lines) if what in f) for what in ("class", "training", "test "))
    assert "seq-imr: 2 class folders in data/imagenet-r/train, published: 200; unpack or --download it" in classes
    assert "seq-imr: 2 training images" in training and "published: 24,000" in training
    assert "seq-imr: 3 test images" in test and "published: 6,000" in test
    assert "b.jpg" not in "".join(lines)
    _, lines = place("--deep", capsys=capsys)
    assert any("n01484850/b.jpg cannot be read" in f and "replace it, or leave it out" in f for f in faults(lines))
    assert not (tmp_path / "data" / "decoded").exists()


def test_data_that_cannot_be_listed(place, tmp_path, capsys):
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (tmp_path / "data" / "cifar-10-batches-py" / name).write_bytes(b"no pickle")
    code, lines = place(capsys=capsys)
    assert code == 1 and any(f.startswith("FAULT  seq-cifar10: ") and "data_batch_1" in f for f in faults(lines))


def test_features_of_test_images(place, tmp_path, capsys):
    folder = tmp_path / "data" / "features"
    for value in (1.0, 2.0):
        part = torch.full((1000,), value)
        features.kept_features(folder, {"w": torch.ones(2)}, [value], 1000, [part.clone])
    code, lines = place(capsys=capsys)
    assert code == 0 and "  ok     2 files in data/features, 0.0 of at most 1,024 MiB" in lines
    file = sorted(folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-1])
    code, lines = place(capsys=capsys)
    (line,) = faults(lines)
    assert code == 1 and str(file.relative_to(tmp_path)) in line and line.endswith("; delete it, it is computed again")


def keep(file: Path) -> None:
    with cache.sealed(file, {}) as temporary, open(temporary, "wb") as out:
        np.save(out, np.zeros((3, 3, 8, 8), dtype=np.uint8))


@pytest.mark.parametrize("folder", ["decoded", "glyphs", "seq-glyphs"])
def test_caches_are_read_and_compared(folder, place, tmp_path, capsys):
    whole, cut, spoilt, old = (tmp_path / "data" / folder / f"{name}.npy" for name in "abcd")
    for file in (whole, cut, spoilt, old):
        keep(file)
    cache.seal_of(old).unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    state = spoilt.stat()
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
    cache.write_note(cache.seal_of(spoilt), cache.read_note(cache.seal_of(spoilt)) | {"stamp": cache.stamp(spoilt)})
    assert spoilt.stat().st_size == state.st_size
    code, lines = place(capsys=capsys)
    assert code == 1 and f"  ok     data/{folder}/a.npy: 3 images, as they were written" in lines
    assert [fault.partition(": ")[::2] for fault in faults(lines)] == [
        (f"FAULT  data/{folder}/{name}.npy", "its bytes are not those that were written; delete it, it is made again")
        for name in "bc"
    ]
    (note,) = (line for line in lines if "d.npy" in line)
    assert note.startswith("  note ") and "nothing tells what was written" in note


def test_weights_that_are_damaged(place, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "dino_vitbase16_pretrain.pth"
    file.write_bytes(b"PK\3\4 cut off")
    code, lines = place(capsys=capsys)
    assert code == 1 and any(f.startswith("FAULT  dino1k: ") and f.endswith("fetch it again") for f in faults(lines))
    note = next(line for line in lines if "not in checkpoints" in line)
    assert "dino1k" not in note and "sup21k" in note


def test_products_that_are_not_as_made(place, tmp_path, capsys):
    folder = tmp_path / "checkpoints" / "vit_tiny_glyphs" / "mepo_cov-glyphs-0123456789"
    folder.mkdir(parents=True)
    np.save(folder / "covariance.npy", np.eye(4))
    write_manifest(folder)
    assert place(capsys=capsys)[0] == 0
    content = bytearray((folder / "covariance.npy").read_bytes())
    content[-3] ^= 1
    (folder / "covariance.npy").write_bytes(content)
    code, lines = place(capsys=capsys)
    assert code == 1 and "covariance.npy: not as made; remove the folder, the stage is repeated" in faults(lines)[0]
    (folder / "manifest.json").write_text("{")
    code, lines = place(capsys=capsys)
    assert code == 1 and "manifest.json: is damaged" in faults(lines)[0]


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.csv", "per_class.csv", "config.yaml"])
@pytest.mark.parametrize("gone", [False, True])
def test_runs_that_are_not_as_written(name, gone, place, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "runs")
    (file,) = (tmp_path / "runs").rglob(name)
    content = bytearray(file.read_bytes())
    if gone and name != "config.yaml":  # without it, it is no run folder
        file.unlink()
    else:
        content[-2] ^= 1
        file.write_bytes(content)
    code, lines = place(capsys=capsys)
    assert code == 1 and len(faults(lines)) == 1 and str(file.parent.relative_to(tmp_path)) in faults(lines)[0]


def test_versions_that_differ_are_told(place, finished, tmp_path, capsys, monkeypatch):
    shutil.copytree(finished, tmp_path / "runs")
    monkeypatch.setattr("utils.runs.identity.PACKAGES", ("torch", "numpy"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.9")
    monkeypatch.setattr(doctor, "installation", lambda file: iter([]))
    code, lines = place(capsys=capsys)
    assert code == 0
    assert any("1 runs made with torch" in line and "here is 99.9" in line for line in lines)


def test_unfinished_runs(place, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "runs")
    (folder,) = (path.parent for path in (tmp_path / "runs").rglob("summary.json"))
    (folder / "summary.json").unlink()
    code, lines = place(capsys=capsys)
    assert code == 0 and any("not complete, and without a checkpoint; remove it" in line for line in lines)
    (folder / "checkpoints").mkdir()
    for value in (1, 2):
        newest = checkpoint.save(folder / "checkpoints", {"value": value})
    code, lines = place(capsys=capsys)
    assert code == 0 and any("goes on with it" in line for line in lines)
    (newest / checkpoint.TREE).write_text("{}")
    code, lines = place(capsys=capsys)
    assert code == 1 and any("goes on with it" in line for line in lines)
    assert f"{newest.relative_to(tmp_path)} is damaged" in faults(lines)[0]


def test_bad_options_are_one_line(capsys):
    assert main.main(["doctor", "--reslts", "x"]) == 2
    assert capsys.readouterr().err == "error: unknown option --reslts; did you mean --results?\n"


def test_a_product_that_changed_is_not_used(tmp_path, capsys, glyph_weights):
    """The run that needs it refuses it, as a flipped byte passes every reader of tensors unnoticed."""
    words = ["--model", "misa", "--dataset", "seq-digits", "--pretrain", "seq-digits", "--online_iter", "1"]
    words += ["--n_tasks", "2", "--device", "cpu", "--backbone_path", str(glyph_weights), "--resume", "auto"]
    words += ["--checkpoint_dir", str(tmp_path / "checkpoints"), "--results", str(tmp_path / "runs")]
    stage = tmp_path / "checkpoints" / "vit_tiny_glyphs"
    given = plans.parse(words).with_seed(1)
    (made,) = given.method.prepare(given.run, given.method_args)
    made.output.parent.mkdir(parents=True)
    for name, rows in (("g_prompt.pt", 1), ("e_prompt.pt", given.method_args.e_pool)):
        length = given.method_args.len_g_prompt if rows == 1 else given.method_args.len_e_prompt
        torch.save(torch.zeros(rows, 2 * length, 128), made.output.parent / name)
    (made.output.parent / "config.yaml").touch()
    write_manifest(made.output.parent)
    manifest = json.loads((made.output.parent / "manifest.json").read_text())
    assert manifest.keys() == {"config.yaml", "e_prompt.pt", "g_prompt.pt"} and stage.is_dir()
    content = bytearray(made.output.read_bytes())
    content[len(content) // 2] ^= 1
    made.output.write_bytes(content)
    assert main.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{made.output.parent}: e_prompt.pt: not as misa_isa left it; remove the folder" in error


def test_the_shipped_network_is_looked_at(place, tmp_path, capsys, monkeypatch):
    spoilt = weights_of(backbone.build("vit_tiny_glyphs"))
    spoilt["norm.weight"][0] = float("nan")
    save_file(spoilt, tmp_path / "vit_tiny_glyphs.safetensors")
    monkeypatch.setattr(backbone, "SHIPPED", tmp_path)
    code, lines = place(capsys=capsys)
    assert code == 1 and any(f.startswith("FAULT  vit_tiny_glyphs: ") for f in faults(lines))
