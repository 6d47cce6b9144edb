"""What goes wrong in the middle of a run: numbers that are none, memory and disk that end, files that go away."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import main
from datasets.drawing import characters
from models.derpp import Derpp
from models.er import Er
from models.mepo import factor, load_covariance
from models.misa import load_prompts
from tests.miniatures import nobody
from tests.tiny import (
    ROOT,
    WIDTH,
    assert_same_results,
    build,
    needs_cuda,
    random_covariance,
    run_folder,
    tiny_vit,
    weights_of,
)
from utils.data import cache, decode
from utils.device import out_of_memory
from utils.errors import UsageError
from utils.files.tensors import read_tensors, write_tensors
from utils.runs import checkpoint, resume
from utils.runs.folder import RunFolder
from utils.runs.reading import read_run
from utils.training.evaluation import Evaluator


def one_line(text: str) -> str:
    """The error, which is the last line, and the only one that is no report of progress."""
    lines = text.splitlines()
    assert "Traceback" not in text and sum(line.startswith("error: ") for line in lines) == 1
    assert lines[-1].startswith("error: ")
    return lines[-1]


# Numbers that are none: in an image, the loss, a gradient, the memory.


def at_step(step: int, method: type, monkeypatch, spoil) -> None:
    """spoil(self, loss, batch) gives the loss of that update, counted from 0; other updates are left alone."""
    counted, loss = [0], method.loss

    def sometimes(self, batch):
        counted[0] += 1
        return spoil(self, loss, batch) if counted[0] == step + 1 else loss(self, batch)

    monkeypatch.setattr(method, "loss", sometimes)


def nan_image(self, loss, batch):
    batch.x[3, 0, 0, 0] = math.nan
    return loss(self, batch)


def infinite_loss(self, loss, batch):
    return loss(self, batch) * math.inf


def nan_gradient(self, loss, batch):
    value = loss(self, batch)
    return value + (self.head.weight - self.head.weight.detach()).abs().pow(0.5).sum()  # 0, of infinite slope


def nan_logits(self, loss, batch):
    self.buffer.columns[2][: len(self.buffer)] = math.nan
    return loss(self, batch)


FAULTS = {
    "image": ("er", Er, nan_image, "the loss is not finite: task 0, pass 0, batch 5, images "),
    "loss": ("er", Er, infinite_loss, "the loss is not finite: task 0, pass 0, batch 5, images "),
    "gradient": ("er", Er, nan_gradient, "the weights are not finite: task 0, pass 0, before batch 6"),
    "memory": ("derpp", Derpp, nan_logits, "the loss is not finite: task 0, pass 0, batch 5, images "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_number_that_is_none_stops_the_run_and_spoils_nothing(fault, words, unbroken, monkeypatch, tmp_path, capsys):
    name, method, spoil, expected = FAULTS[fault]
    words = ["--model", name, *words, "--save_every", "0"]
    whole = unbroken(words)
    broken = [*words, "--results", str(tmp_path / "broken")]
    at_step(5, method, monkeypatch, spoil)
    capsys.readouterr()
    assert main.main(broken) == 1
    error = one_line(capsys.readouterr().err)
    folder = run_folder(tmp_path / "broken")
    (kept, *_) = checkpoint.found(folder / "checkpoints")
    assert expected in error and f"last good checkpoint: {kept}; " in error and "--on_nan skip" in error
    assert checkpoint.verify(kept) is None
    monkeypatch.undo()
    assert main.main(broken) == 0
    assert_same_results(whole, folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_such_an_update_can_be_left_out(fault, words, monkeypatch, tmp_path, capsys):
    name, method, spoil, _ = FAULTS[fault]
    at_step(5, method, monkeypatch, spoil)
    words = ["--model", name, *words, "--on_nan", "skip", "--results", str(tmp_path)]
    assert main.main(words) == 0
    summary = json.loads((run_folder(tmp_path) / "summary.json").read_text())
    assert summary["skipped_updates"] == 1 and summary["left_out_images"] == 0
    assert ", 1 updates skipped" in capsys.readouterr().err
    rows = (run_folder(tmp_path) / "metrics.csv").read_text()
    assert "nan" not in rows.lower()


def test_a_stopped_run_can_go_on_by_leaving_out(words, monkeypatch, tmp_path, capsys):
    at_step(5, Er, monkeypatch, infinite_loss)
    words = ["--model", "er", *words, "--save_every", "0", "--results", str(tmp_path)]
    assert main.main(words) == 1
    at_step(0, Er, monkeypatch, infinite_loss)  # the same batch, which comes first now
    assert main.main([*words, "--on_nan", "skip"]) == 0
    assert json.loads((run_folder(tmp_path) / "summary.json").read_text())["skipped_updates"] == 1


def test_a_left_out_update_changes_nothing():
    run = build("er", n_tasks=1, eval_period=-1, on_nan="skip")
    loss = run.model.loss
    run.model.loss = lambda batch: loss(batch) * math.nan
    before = [p.detach().clone() for p in run.model.parameters()]
    run.trainer.train()
    assert run.trainer.skipped == run.trainer.stream.num_batches()
    assert all(torch.equal(p, q) for p, q in zip(before, run.model.parameters(), strict=True))
    assert run.trainer.history.rows[-1]["loss"] is None


def test_logits_that_are_no_numbers_are_not_evaluated(words, monkeypatch, tmp_path, capsys):
    evaluate = Evaluator._logits
    monkeypatch.setattr(Evaluator, "_logits", lambda *given: evaluate(*given) * math.nan)
    assert main.main(["--model", "er", *words, "--results", str(tmp_path)]) == 1
    assert "test images are not finite numbers" in one_line(capsys.readouterr().err)


def test_a_matrix_without_a_factor_gives_no_numbers():
    assert factor(-torch.eye(3)).isnan().all() and not factor(torch.eye(3)).isnan().any()


# Memory


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nand a long story"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_memory_that_ends_is_one_line(raised, words, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise raised

    at_step(3, Er, monkeypatch, fail)
    words = ["--model", "er", *words, "--batch_size", "48", "--save_every", "0", "--results", str(tmp_path)]
    assert main.main(words) == 1
    error = one_line(capsys.readouterr().err)
    assert "out of memory with --batch_size 48, --eval_batch_size 128 and --precision 32; try" in error
    monkeypatch.undo()
    assert main.main(words) == 0
    assert " goes on after 144 images" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_it():
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@needs_cuda
def test_memory_of_a_real_gpu(words, tmp_path, capsys):
    torch.cuda.set_per_process_memory_fraction(0.0005)
    try:
        words = ["--model", "slca", *words, "--device", "cuda", "--batch_size", "1024", "--results", str(tmp_path)]
        assert main.main(words) == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory with --batch_size 1024" in one_line(capsys.readouterr().err)


# Disk


def run_apart(words: list[str], **settings) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, **settings)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, which `grow` makes larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if not shutil.which("mount") or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    subprocess.run(["umount", disk], check=True)


def test_full_disk(small_disk, words, unbroken, tmp_path):
    disk, grow = small_disk
    words = ["--model", "er", *words, "--save_every", "0"]
    whole = unbroken(words)
    broken = [*words, "--results", str(disk)]
    done = run_apart(broken)
    assert done.returncode == 1
    assert "warning: no checkpoint written (No space left on device); the run goes on" in done.stderr
    assert one_line(done.stderr).endswith("model.safetensors: No space left on device")
    folder = run_folder(disk)
    assert not (folder / "summary.json").exists() and not (folder / "model.safetensors").exists()
    assert not [file for file in folder.rglob("*") if file.name.endswith(".part")]
    grow()
    assert main.main(broken) == 0
    assert_same_results(whole, folder)


def test_files_that_may_not_grow(words, unbroken, tmp_path):
    """As on a full disk, with a limit on the size of files, which any user can set."""
    words = ["--model", "er", *words, "--save_every", "0"]
    whole = unbroken(words)
    broken = [*words, "--results", str(tmp_path / "broken")]
    done = run_apart(broken, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    assert done.returncode == 1 and "no checkpoint written (File too large)" in done.stderr
    assert one_line(done.stderr).endswith("model.safetensors: File too large")
    assert main.main(broken) == 0
    runs = sorted((tmp_path / "broken").glob("*/*/*"))
    assert_same_results(whole, runs[-1])


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_products_are_whole_or_absent(suffix, tmp_path):
    code = (
        "import sys, torch; from pathlib import Path; from utils.files.tensors import write_tensors, export_pth\n"
        "state, path = {'w': torch.zeros(10**5)}, Path(sys.argv[1])\n"
        "try: export_pth(state, path) if path.suffix == '.pth' else write_tensors(path, state)\n"
        "except OSError as error: sys.exit(str(error.strerror))"
    )
    file = tmp_path / f"weights.{suffix}"
    file.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5)),
    )
    assert done.returncode == 1 and done.stderr.strip() == "File too large"
    assert [path.name for path in tmp_path.iterdir()] == [file.name] and file.read_text() == "old"


def test_numpy_on_a_full_disk_says_so(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as info:
            characters.cached(tmp_path, "images", (), lambda: np.zeros(10**6, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(info.value.filename).name.startswith("images-") and list(tmp_path.iterdir()) == []


def test_a_pipe_in_place_of_a_cache_is_not_waited_for(tmp_path, capsys):
    characters.cached(tmp_path, "images", (), lambda: np.zeros(1, np.uint8))
    (file,) = tmp_path.glob("*.npy")
    for replaced in (file, cache.seal_of(file)):
        replaced.unlink()
        os.mkfifo(replaced)
        assert characters.cached(tmp_path, "images", (), lambda: np.ones(1, np.uint8)).tolist() == [1]
        assert capsys.readouterr().err.endswith("; made again\n")
        assert replaced.is_file()


def test_a_link_in_place_of_a_checkpoint_in_the_making_is_not_followed(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".000001.part").symlink_to(tmp_path / "theirs")
    kept = checkpoint.save(tmp_path / "checkpoints", {"value": 1})
    assert checkpoint.verify(kept) is None and [path.name for path in (tmp_path / "theirs").iterdir()] == ["kept"]


def test_folders_that_cannot_be_read_are_named_and_the_rest_is_reported(words, unbroken, capsys):
    whole = unbroken(["--model", "er", *words])
    with nobody() as folder:
        for name in ("a", "b", "c"):
            shutil.copytree(whole, folder / name)
        (folder / "a").chmod(0)
        (folder / "b" / "metrics.csv").chmod(0)
        assert main.main(["report", str(folder)]) == 0
        err = capsys.readouterr().err.splitlines()
        assert any(f"{folder}/a" in line for line in err) and any(f"{folder}/b/metrics.csv" in line for line in err)
        assert "Traceback" not in "".join(err) and (folder / "table.md").exists()
        assert main.main(["doctor", "--results", str(folder)]) == 1
        out = capsys.readouterr().out
        assert f"{folder}/a" in out and f"{folder}/b" in out and "1 complete runs" in out


# Images


def test_an_image_that_goes_away_before_it_is_read_is_named(own, pictures, monkeypatch, tmp_path, capsys):
    def vanish(*given):
        (pictures / "dog" / "07.png").unlink()
        return decode.decoded(*given)

    monkeypatch.setattr("datasets.base.decoded", vanish)
    assert main.main(own) == 2
    assert "dog/07.png" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.glob("runs/*/*/*"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGINT])
def test_a_run_that_is_stopped_while_images_are_decoded_points_to_nothing(number, own, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("datasets.base.decoded", lambda *given: os.kill(os.getpid(), number))
    assert main.main(own) == (130 if number == signal.SIGINT else 75)
    assert capsys.readouterr().err.splitlines()[-1].endswith("; start the same command again")
    assert not list(tmp_path.glob("runs/*/*/*"))


def test_images_that_go_away_later_are_not_missed(own, pictures, monkeypatch, tmp_path):
    step = Er.end_batch

    def vanish(self, batch):
        shutil.rmtree(pictures, ignore_errors=True)
        step(self, batch)

    monkeypatch.setattr(Er, "end_batch", vanish)
    assert main.main(own) == 0
    assert not pictures.exists()


def test_results_that_go_away_are_one_line(words, monkeypatch, tmp_path, capsys):
    step = Er.end_batch

    def vanish(self, batch):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        step(self, batch)

    monkeypatch.setattr(Er, "end_batch", vanish)
    assert main.main(["--model", "er", *words, "--results", str(tmp_path / "runs")]) == 2
    assert "the folder of the run was removed before its end" in one_line(capsys.readouterr().err)


# Going on with a run


def test_settings_that_differ_are_refused_by_name(words, tmp_path, capsys):
    words = ["--model", "er", *words, "--results", str(tmp_path)]
    assert main.main(words) == 0
    folder = str(run_folder(tmp_path))
    capsys.readouterr()
    assert main.main([*words, "--resume", folder]) == 0
    assert "complete; not repeated" in capsys.readouterr().err
    assert main.main([*words, "--resume", folder, "--lr", "0.25", "--seed", "4"]) == 2
    error = one_line(capsys.readouterr().err)
    assert f"--resume {folder}: that run has other settings: run.seed is 1 there, 4 here; " in error
    assert "method.lr is 0.005 there, 0.25 here" in error
    for place in (tmp_path, tmp_path / "nowhere"):
        assert main.main([*words, "--resume", str(place)]) == 2
        assert "nor the folder of a run" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["stream_sha256", "backbone_sha256"])
def test_other_data_or_weights_are_refused(name, words, monkeypatch, tmp_path, capsys):
    words = ["--model", "er", *words, "--save_every", "0", "--results", str(tmp_path)]
    at_step(3, Er, monkeypatch, infinite_loss)
    assert main.main(words) == 1
    monkeypatch.undo()
    config = run_folder(tmp_path) / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(settings | {name: "0" * 64}))
    capsys.readouterr()
    assert main.main(words) == 2
    error = one_line(capsys.readouterr().err)
    assert f"is not this run: {name} has the content 00000000 there, {settings[name]:.8} here; --resume" in error


def test_a_state_of_another_run_is_refused(words, monkeypatch, tmp_path, capsys):
    words = ["--model", "er", *words, "--save_every", "0", "--results", str(tmp_path)]
    at_step(3, Er, monkeypatch, infinite_loss)
    assert main.main(words) == 1
    monkeypatch.undo()
    checkpoint.save(run_folder(tmp_path) / "checkpoints", {"position": [0, 0, 0]})
    capsys.readouterr()
    assert main.main(words) == 2
    assert "does not fit this run" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "part, value",
    [
        ("position", [-5, 0, 0]), ("position", [10**9, 0, 0]), ("position", [0, 10**9, 0]), ("position", "abc"),
        ("images_met", float("inf")), ("seconds", "x"), ("loss", [0.0, "abc"]), ("seen", {"met": [10**30]}),
        ("history", {"rows": [1], "class_rows": []}), ("history", {"rows": [], "class_rows": [{}]}),
    ],
)  # fmt: skip
def test_a_state_that_no_run_has_is_refused(part, value, tmp_path):
    trainer, folder = build("er").trainer, RunFolder(tmp_path)
    folder.write_config({"run": {"eval_period": 64}})
    with pytest.raises(UsageError, match="does not fit this run"):
        resume.go_on(trainer, trainer.state_dict() | {part: value}, folder)


def test_weights_that_cannot_change_are_no_part_of_a_checkpoint():
    for method, held in (("dualprompt", False), ("slca", True)):
        state = build(method).trainer.state_dict()["model"]
        assert any(name.startswith("backbone.") for name in state) == held
        assert any(name.startswith("head.") for name in state)


# Files that are cut off


def cut_anywhere(file: Path, read: Callable[[], object]) -> None:
    """The whole file is read; cut off at 100 random places before its last byte, which may be a line break that nothing
    depends on, it is refused in one line."""
    read()
    whole = file.read_bytes()
    for place in random.Random(file.name).sample(range(len(whole) - 1), 100):
        file.write_bytes(whole[:place])
        with pytest.raises(UsageError) as refusal:
            read()
        assert str(file) in str(refusal.value) and "\n" not in str(refusal.value)
    file.write_bytes(whole)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "legacy.pth", "npz"])
def test_weights_cut_off(suffix, tmp_path):
    state, file = weights_of(tiny_vit()), tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        write_tensors(file, state)
    elif suffix == "npz":
        np.savez(file, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, file, _use_new_zipfile_serialization=suffix == "pth")
    cut_anywhere(file, lambda: read_tensors(file))


def test_covariance_and_prompts_cut_off(tmp_path):
    covariance, prompts = tmp_path / "covariance.npy", tmp_path / "e_prompt.pt"
    np.save(covariance, random_covariance(WIDTH))
    cut_anywhere(covariance, lambda: load_covariance(covariance, WIDTH))
    torch.save(torch.ones(10, 4, WIDTH), prompts)
    cut_anywhere(prompts, lambda: load_prompts(torch.nn.Parameter(torch.zeros(10, 4, WIDTH)), prompts))


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "per_class.csv", "summary.json"])
def test_files_of_a_run_cut_off(name, words, tmp_path):
    assert main.main(["--model", "er", *words, "--results", str(tmp_path)]) == 0
    folder = run_folder(tmp_path)
    cut_anywhere(folder / name, lambda: read_run(folder))


# Bad input is answered before images are read


@pytest.fixture
def bad(tmp_path):
    """Files that are no good: name -> path."""
    files = {name: tmp_path / name for name in ("wide.npy", "skew.npy", "negative.npy", "nan.npy", "cut.safetensors")}
    np.save(files["wide.npy"], np.eye(64))
    np.save(files["skew.npy"], np.tri(128))
    np.save(files["negative.npy"], -np.eye(128))
    np.save(files["nan.npy"], np.full((128, 128), np.nan))
    files["cut.safetensors"].write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    files["empty.pth"] = tmp_path / "empty.pth"
    files["empty.pth"].touch()
    files["pool"] = tmp_path / "pool"
    files["pool"].mkdir()
    for name in ("g_prompt.pt", "e_prompt.pt"):
        torch.save(torch.zeros(3, 7, 128), files["pool"] / name)
    return files


ALIGNED = ["--model", "mepo", "--meta_path", "none", "--cor_path"]
BAD = {
    "covariance of another width": ([*ALIGNED, "wide.npy"], "[128, 128]"),
    "covariance that is not symmetric": ([*ALIGNED, "skew.npy"], "not symmetric"),
    "covariance that is negative": ([*ALIGNED, "negative.npy"], "not positive semi-definite"),
    "covariance of no numbers": ([*ALIGNED, "nan.npy"], "not finite"),
    "covariance that is weights": ([*ALIGNED, "cut.safetensors"], "cannot be read as .npy"),
    "refined weights that are not there": (
        ["--model", "mepo", "--cor_path", "none", "--meta_path", "nowhere.pth"],
        "nowhere.pth: no such file",
    ),
    "weights that are cut off": (["--model", "er", "--backbone_path", "cut.safetensors"], "cannot be read as tensors"),
    "weights that are empty": (["--model", "er", "--backbone_path", "empty.pth"], "cannot be read as tensors"),
    "weights that are a folder": (["--model", "er", "--backbone_path", "pool"], "no such file"),
    "prompts of another pool": (["--model", "misa", "--load_pt", "pool"], "g_prompt.pt holds [3, 7, 128]"),
    "a block that is not there": (["--model", "dualprompt", "--pos_e_prompt", "2", "99"], "blocks 0 ... 5"),
    "a network that is not there": (["--model", "er", "--backbone", "vit_tiny_glyph"], "mean 'vit_tiny_glyphs'"),
    "a tag that is not there": (["--model", "er", "--backbone", "vit_base_patch16_224.x"], "vit_base_patch16_224.x"),
    "a stream that is not there": (["--model", "er", "--no-varying", "--n", "0"], "needs the 3 blurry classes"),
    "too many tasks": (["--model", "er", "--scenario", "class-il", "--n_tasks", "4"], "of 3 classes has 1 ... 3"),
    "a file in place of a folder": (["--model", "er", "--results", "empty.pth"], "cannot be made"),
    "a device that is not there": (["--model", "er", "--device", "cuda:77"], "--device cuda:77"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_before_images_are_read(case, own, bad, monkeypatch, tmp_path, capsys):
    chosen, reason = BAD[case]
    options = dict(zip(own[::2], own[1::2], strict=True))
    options |= {"--host": "dualprompt"} if chosen[1] == "mepo" else {}
    given = [str(bad[word]) if word in bad else word for word in chosen]
    given += [word for pair in options.items() for word in pair if pair[0] not in chosen]
    monkeypatch.chdir(tmp_path)
    assert main.main(given) == 2
    assert reason in one_line(capsys.readouterr().err)
    assert not (tmp_path / "cache").exists() and not list(tmp_path.glob("runs/*"))
