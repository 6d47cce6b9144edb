"""What a run is told about its device."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import backbone
import main
from command import train as training
from tests.tiny import build
from utils import device as devices
from utils import plan as plans
from utils.registry import DATASETS
from utils.runs.cores import Cores

CPU = torch.device("cpu")
SIZE = 300  # MiB
counts_anew = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot reset the peak of resident memory"
)


def use_memory() -> None:
    """Touches SIZE MiB and gives them back to the system."""
    torch.ones(SIZE * 2**18)


def test_peak_memory_counts_what_was_given_back():
    devices.reset_peak_memory(CPU)
    before = devices.peak_memory_mb(CPU)
    use_memory()
    assert SIZE * 0.9 < devices.peak_memory_mb(CPU) - before < SIZE * 1.3


@counts_anew
def test_peak_memory_counts_anew_after_a_reset():
    use_memory()
    before = devices.peak_memory_mb(CPU)
    devices.reset_peak_memory(CPU)
    assert devices.peak_memory_mb(CPU) < before - SIZE * 0.5


def test_every_run_resets_the_peak_before_it_loads_anything(tmp_path, monkeypatch):
    class Loaded(Exception):
        pass

    def load(self, places, train: bool):
        met.append("images")
        raise Loaded

    met, built = [], backbone.build
    folders = {"data_dir": str(tmp_path), "results": str(tmp_path / "runs")}
    plan = plans.make({"model": "er", "dataset": "seq-digits", "device": "cpu"} | folders)
    monkeypatch.setattr(DATASETS.load("seq-digits"), "load", load)
    job = training.check(plan.with_seed(1))  # of all seeds
    assert met == []
    monkeypatch.setattr(devices, "reset_peak_memory", lambda device: met.append("reset"))
    monkeypatch.setattr(backbone, "build", lambda *given: met.append("network") or built(*given))
    for seed in (1, 2):
        with pytest.raises(Loaded):
            training.run(replace(job, plan=plan.with_seed(seed)), Cores(early=False))
    assert met == ["reset", "network", "images"] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacks", [True, False])
def test_bf16_on_a_cpu_without_it_is_warned_of(lacks, monkeypatch, tmp_path, capsys, few_digits, in_process):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: not lacks)
    words = ["--model", "ncm", "--backbone", "mlp-8", *few_digits, "--device", "cpu", "--results", str(tmp_path)]
    for precision in ("32", "bf16"):
        assert main.main([*words, "--precision", precision]) == 0
        assert ("--precision bf16: this CPU has no arithmetic for it" in capsys.readouterr().err) == (
            lacks and precision == "bf16"
        )


@pytest.mark.parametrize("readable", [True, False])
def test_peak_memory_where_there_is_no_proc(monkeypatch, readable):
    real = Path.read_text

    def read_text(path, *arguments, **options):
        if str(path).startswith("/proc/self"):
            if not readable:
                raise FileNotFoundError(path)
            return "Name:\tpython\n"
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(PermissionError()))
    devices.reset_peak_memory(CPU)
    assert devices.peak_memory_mb(CPU) > 50


def test_peak_memory_of_a_resumed_run_is_that_of_its_largest_part(monkeypatch):
    peaks = iter([500.0, 500.0, 80.0, 80.0])
    monkeypatch.setattr(devices, "peak_memory_mb", lambda device: next(peaks))
    first, second = build("er").trainer, build("er").trainer
    assert first.peak_memory_mb == 500
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.peak_memory_mb == 500
    del state["peak_memory_mb"], state["left_out"]  # as older versions wrote it
    second.load_state_dict(state)
    assert second.peak_memory_mb == 80
