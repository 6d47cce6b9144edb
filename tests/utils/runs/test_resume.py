"""Runs that are stopped or killed go on from their last checkpoint as if nothing had happened."""

from __future__ import annotations

import errno
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model

import main
from tests.tiny import CPU, ROOT, assert_same, assert_same_results, run_folder
from utils.errors import UsageError
from utils.files.tensors import write_tensors
from utils.registry import DATASETS
from utils.runs import checkpoint
from utils.runs.folder import RunFolder
from utils.runs.resume import is_held
from utils.runs.saving import Saving


@pytest.fixture
def stop_after(monkeypatch):
    """Lets a run be asked to stop after that many batches."""

    def set_up(batches: int, code: int = 75):
        seen, progress = [0], Saving.progress

        def counting(self, trainer):
            seen[0] += 1
            if seen[0] == batches:
                self.request.code = code
            progress(self, trainer)

        monkeypatch.setattr(Saving, "progress", counting)

    return set_up


META = ["--samples", "4", "--meta_epochs", "2", "--group_size", "10", "--num_tasks", "5"]
METHODS = {"er": [], "joint": ["--updates", "1"], "mepo_meta": META}  # the others: tests/whole/test_kill.py


@pytest.mark.parametrize("method", METHODS)
def test_stopped_run_goes_on_exactly(method, words, unbroken, stop_after, monkeypatch, tmp_path, capsys):
    if method == "mepo_meta":  # a stage has no tasks and no evaluation
        words = [w for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != "--n_tasks" for w in pair]
    words = ["--model", method, *METHODS[method], *words]
    whole = unbroken(words)
    broken = [*words, "--results", str(tmp_path / "broken")]
    for batches in (3, 9):  # twice
        with monkeypatch.context():
            stop_after(batches)
            assert main.main(broken) == 75
        monkeypatch.undo()
        assert "--resume auto goes on" in capsys.readouterr().err
        assert len(list((run_folder(tmp_path / "broken") / "checkpoints").iterdir())) <= checkpoint.KEPT
    assert main.main(broken) == 0
    assert " goes on after " in capsys.readouterr().err
    assert_same_results(whole, run_folder(tmp_path / "broken"))


def start(words: list[str]) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "main.py", *words], cwd=ROOT, env=environment, stderr=subprocess.PIPE)


def wait_for_checkpoint(results: Path, process: subprocess.Popen, number: int) -> None:
    until = time.monotonic() + 120
    while not list(results.glob(f"*/*/*/checkpoints/{number:06}")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_at_any_moment_change_nothing(number, code, words, unbroken, tmp_path):
    words = ["--model", "er", *words, "--save_every", "0"]
    whole = unbroken(words)
    broken = [*words, "--results", str(tmp_path / "broken")]
    for after in (2, 12):
        with start(broken) as process:
            wait_for_checkpoint(tmp_path / "broken", process, after)
            process.send_signal(number)
            error = process.communicate()[1].decode()
        assert process.returncode == code, error
        assert "Traceback" not in error
    assert main.main(broken) == 0
    assert_same_results(whole, run_folder(tmp_path / "broken"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_before_training_stops_at_once(number, words, monkeypatch, tmp_path, capsys):
    before = signal.getsignal(number)

    def load(self, places, train):
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    monkeypatch.setattr(DATASETS.load("seq-digits"), "load", load)
    assert main.main(["--model", "er", *words, "--results", str(tmp_path)]) == 75
    assert "stopped; start the same command again" in capsys.readouterr().err
    assert signal.getsignal(number) is before and not list(tmp_path.iterdir())


def test_damaged_checkpoint_is_passed_over(words, unbroken, stop_after, monkeypatch, tmp_path, capsys):
    words = ["--model", "er", *words, "--save_every", "0"]
    whole = unbroken(words)
    broken = [*words, "--results", str(tmp_path / "broken")]
    stop_after(6)
    assert main.main(broken) == 75
    monkeypatch.undo()
    old, new = sorted((run_folder(tmp_path / "broken") / "checkpoints").iterdir())
    content = bytearray((new / checkpoint.TENSORS).read_bytes())
    content[-5] ^= 1
    (new / checkpoint.TENSORS).write_bytes(content)
    assert main.main(broken) == 0
    assert f"{new} is damaged" in capsys.readouterr().err
    assert_same_results(whole, run_folder(tmp_path / "broken"))


def test_full_disk_costs_a_warning(words, monkeypatch, tmp_path, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save", full)
    assert main.main(["--model", "er", *words, "--results", str(tmp_path)]) == 0
    assert "warning: no checkpoint written (No space left on device); the run goes on" in capsys.readouterr().err


def test_state_with_a_loss_that_is_not_finite_is_not_kept(words, monkeypatch, tmp_path, capsys):
    progress = Saving.progress

    def poisoned(self, trainer):
        if trainer.images_met > 200:
            trainer.loss_sum.fill_(math.nan)
            trainer._recent[-1][3].fill_(math.nan)
        progress(self, trainer)

    monkeypatch.setattr(Saving, "progress", poisoned)
    words = ["--model", "er", *words, "--save_every", "0", "--results", str(tmp_path)]
    assert main.main(words) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the loss is not finite: task 0, pass 0, batch 6, images ")
    monkeypatch.undo()
    assert main.main(words) == 0  # from the last good one
    assert " goes on after 192 images" in capsys.readouterr().err


def test_other_settings_are_another_run(words, stop_after, monkeypatch, tmp_path):
    words = ["--model", "er", *words, "--results", str(tmp_path)]
    stop_after(3)
    assert main.main(words) == 75
    monkeypatch.undo()
    assert main.main([*words, "--lr", "0.01"]) == 0
    assert len(list(tmp_path.glob("*/*/*/config.yaml"))) == 2


def test_one_process_per_run(tmp_path):
    held = RunFolder(tmp_path)
    with pytest.raises(UsageError, match="another process is on this run"):
        RunFolder(tmp_path)
    assert held.path == tmp_path


# The files


def some_state() -> dict:
    shared = torch.arange(6.0)
    return {
        "numbers": [1, 2.5, -0.0, True, None, "text", math.inf],
        "pair": (1, [2]),
        7: {"key": shared, "again": shared, "view": shared[2:4], "turned": shared.view(2, 3).T},
        "empty": [torch.zeros(0), torch.zeros(0, 3, dtype=torch.int64)],
        "bytes": torch.arange(5, dtype=torch.uint8),
    }


def test_state_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "checkpoints", some_state())
    assert_same(checkpoint.load(tmp_path / "checkpoints", CPU), some_state())


def test_what_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(TypeError, match="cannot hold set"):
        checkpoint.save(tmp_path, {"a": {1}})
    assert list(tmp_path.iterdir()) == []


def test_two_are_kept(tmp_path):
    for value in range(4):
        checkpoint.save(tmp_path, {"value": value})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]
    assert checkpoint.load(tmp_path, CPU) == {"value": 3}


@pytest.mark.parametrize("part", [checkpoint.TENSORS, checkpoint.TREE, checkpoint.MANIFEST])
def test_damage_anywhere_is_noticed(part, tmp_path, capsys):
    checkpoint.save(tmp_path, {"tensor": torch.zeros(1)})
    newest = checkpoint.save(tmp_path, {"tensor": torch.ones(1)})
    whole = (newest / part).read_bytes()
    for place in random.Random(0).sample(range(len(whole)), min(100, len(whole))):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
            (newest / part).write_bytes(damaged)
            assert checkpoint.load(tmp_path, CPU)["tensor"].item() == 0
            assert re.match(rf"warning: {newest} (is damaged|has format) .*; not used\n$", capsys.readouterr().err)
    (newest / part).unlink()
    assert checkpoint.load(tmp_path, CPU)["tensor"].item() == 0


def test_failed_save_leaves_the_old_ones(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"value": 1})
    monkeypatch.setattr(checkpoint, "_sync", lambda path: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        checkpoint.save(tmp_path, {"value": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]
    assert checkpoint.load(tmp_path, CPU) == {"value": 1}


def test_weights_file_depends_on_the_weights_alone(tmp_path):
    torch.manual_seed(0)
    inner = torch.nn.Linear(3, 2)
    model = torch.nn.ModuleDict({"one": inner, "two": torch.nn.Sequential(inner), "three": torch.nn.Linear(2, 2)})
    write_tensors(tmp_path / "a", model.state_dict())
    write_tensors(tmp_path / "b", {name: value for name, value in model.state_dict().items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert "__metadata__" not in (tmp_path / "a").read_bytes().decode("latin-1")  # its order changes with the process
    other = torch.nn.Linear(3, 2)
    copy = torch.nn.ModuleDict({"one": other, "two": torch.nn.Sequential(other), "three": torch.nn.Linear(2, 2)})
    load_model(copy, tmp_path / "a")
    assert_same(dict(copy.state_dict()), dict(model.state_dict()))


def test_no_checkpoint_goes_through_a_link(tmp_path):
    """What is old is removed, and behind the link it could be somebody else's."""
    others = tmp_path / "others"
    for name in ("2019", "2020", "2021"):
        (others / name).mkdir(parents=True)
    (tmp_path / "checkpoints").symlink_to(others)
    with pytest.raises(OSError, match="is a link"):
        checkpoint.save(tmp_path / "checkpoints", {"value": 1})
    assert sorted(path.name for path in others.iterdir()) == ["2019", "2020", "2021"]


def test_no_lock_goes_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link"):
        RunFolder(tmp_path / "run")
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".model.safetensors.77.part").touch()
    (tmp_path / "metrics.csv").touch()
    RunFolder(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "metrics.csv"]


def test_folders_with_odd_names_are_no_checkpoints(tmp_path):
    (tmp_path / "²").mkdir()
    checkpoint.save(tmp_path, {"value": 1})
    assert checkpoint.load(tmp_path, CPU) == {"value": 1}


def test_a_run_at_work_is_held(tmp_path):
    """So that a run of other weights beside it does not take it for one that stopped."""
    folder = RunFolder.new(str(tmp_path), "seq-digits", "er", 1)
    assert is_held(folder.path)
    folder.close()
    assert not is_held(folder.path)
