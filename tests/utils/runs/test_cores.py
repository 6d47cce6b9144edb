"""How many threads a run takes: the machine is a folder in place of /proc, the temporary folder one of the test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

import main
from tests.tiny import CPU, ROOT, assert_same_results, run_folder
from utils.runs import cores
from utils.runs.cores import Cores
from utils.runs.saving import Saving

SECOND = 100  # ticks


class Machine:
    """Of four cores, on which torch takes four threads by itself. busy: how many cores are, by anything."""

    def __init__(self, folder: Path):
        self.folder, self.seconds, self.ticks = folder, 1, 0
        self.file = folder / "stat"
        self.spend(0)

    def spend(self, busy: float) -> None:
        """A second."""
        self.seconds += 1
        self.ticks += round(busy * SECOND)
        idle = self.seconds * SECOND - self.ticks // 4
        lines = [f"cpu{k} {self.ticks // 4} 0 0 {idle} 0 0 0 0 0 0" for k in range(4)]
        self.file.write_text("\n".join(["cpu 1 2 3 4", *lines, "intr 1 2 3", "ctxt 5"]))

    def process(self, seconds: float) -> None:
        """This process has computed for so long."""
        file = self.folder / str(os.getpid()) / "stat"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"7 (a name (of) it) R {'0 ' * 10}{round(seconds * SECOND)} 0 0 0")

    def taken(self, busy: float = 0.0) -> int:
        """Threads of a run that starts now, computes nothing, and ends."""
        with Cores() as run:
            self.spend(busy)
            return take(run)


def take(run: Cores) -> int:
    """What a run in a process of its own takes."""
    torch.set_num_threads(4)
    return run.take(CPU)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    (tmp_path / "proc").mkdir()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "MOMENT", 0.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    numbers = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)  # the tests compute with one all the same
    return Machine(tmp_path / "proc")


@pytest.mark.parametrize(("busy", "threads"), [(0, 4), (0.4, 4), (1, 3), (2.6, 1), (4, 1)])
def test_a_run_takes_the_cores_that_no_other_program_uses(machine, busy, threads, capsys):
    with Cores() as run:
        machine.spend(busy)
        assert run.take(CPU) == run.take(CPU) == torch.get_num_threads() == threads
    said = f"threads: {threads} (of 4 cores other programs use {busy:.1f}, other runs 0)\n"
    assert torch.get_num_threads() == 4 and capsys.readouterr().err == said  # once


def test_what_the_run_itself_computes_takes_no_core_from_it(machine):
    machine.process(seconds=50)
    with Cores() as run:
        machine.spend(2)
        machine.process(seconds=51)
        assert run.take(CPU) == 3


def test_runs_that_start_together_share_the_cores(machine, capsys):
    with Cores() as first, Cores() as second:
        machine.spend(1)
        assert (take(first), take(second)) == (1, 2)  # of three
        assert "other runs 0; 1 more start now)" in capsys.readouterr().err
        assert machine.taken() == 1  # and one is left
    assert machine.taken() == 4


def test_a_run_that_is_killed_gives_its_cores_back(machine, tmp_path):
    code = "from utils.runs.cores import Cores; run = Cores(); run._tell('3'); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": os.environ | {"TMPDIR": str(tmp_path)}}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as other:
        other.stdout.readline()
        assert machine.taken() == 1
        other.kill()
        other.wait()
        assert len(list(tmp_path.glob("cores-*/*"))) == 1
        assert machine.taken() == 4 and not list(tmp_path.glob("cores-*/*"))


def test_a_run_on_other_cores_is_in_nobodys_way(machine, monkeypatch):
    with Cores() as other:
        assert other.take(CPU) == 4 and machine.taken() == 1
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5} if pid else {0, 1, 2, 3})
        assert machine.taken() == 4


def test_the_users_number_is_taken_whatever_is_free(machine, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # of which torch has made its own number
    assert machine.taken(busy=4) == 4 and capsys.readouterr().err == "threads: 4 (OMP_NUM_THREADS)\n"


@pytest.mark.parametrize(("quota", "threads"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
def test_no_more_than_a_container_may_use(machine, tmp_path, quota, threads):
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.taken() == threads


def test_all_cores_where_the_system_does_not_say_which_are_free(machine, monkeypatch, capsys):
    machine.file.unlink()
    assert Cores().take(CPU) == 4
    monkeypatch.setattr(cores.disk, "fcntl", None)
    assert Cores().take(CPU) == 4 and capsys.readouterr().err.count("threads: 4 (all cores; ") == 2


def test_nothing_changes_on_a_gpu(machine, capsys):
    with Cores() as run:
        assert machine.taken() == 2
        capsys.readouterr()
        assert run.take(torch.device("cuda")) is None and torch.get_num_threads() == 4
        assert capsys.readouterr().err == "" and machine.taken() == 4


def test_a_folder_that_cannot_be_written_hides_a_run_and_stops_none(machine, tmp_path):
    (tmp_path / f"cores-of-runs-{os.getuid()}").touch()
    assert machine.taken(busy=3) == 1 and machine.taken(busy=1) == 3


# Whole runs


def test_a_dry_run_takes_no_cores(machine, words, monkeypatch, capsys):
    monkeypatch.setattr(Cores, "_tell", lambda self, text: pytest.fail("it takes cores"))
    assert main.main(["--model", "er", *words, "--dry_run"]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_goes_on_with_the_threads_that_it_began_with(machine, words, unbroken, monkeypatch, tmp_path, capsys):
    words = ["--model", "er", *words]
    whole = unbroken(words)
    words += ["--results", str(tmp_path / "runs")]
    capsys.readouterr()
    real, during = Saving.progress, []

    def said(busy: float, batches: int, code: int) -> str:
        """By a run that starts where so many cores are busy and is stopped after so many batches."""

        def progress(self, trainer):
            during.append(torch.get_num_threads())
            if len(during) == batches:
                self.request.code = code
            real(self, trainer)

        monkeypatch.setattr(Saving, "progress", progress)
        monkeypatch.setattr(Cores, "__enter__", lambda self: machine.spend(busy) or self)
        during.clear()
        assert main.main(words) == code
        error = capsys.readouterr().err
        assert error.count("threads: ") == 1
        return error

    assert "threads: 2 (of 4 cores" in said(busy=2, batches=3, code=75) and {*during} == {2}
    error = said(busy=4, batches=3, code=75)
    assert "threads: 1 (of 4 cores" in error and "goes on with 2 threads, as it began" in error and {*during} == {2}
    folder = run_folder(tmp_path / "runs")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config.pop("threads") == 2
    (folder / "config.yaml").write_text(yaml.safe_dump(config))  # as older versions left it
    assert "goes on with 4 threads" in said(busy=4, batches=0, code=0) and {*during} == {4}
    assert_same_results(whole, run_folder(tmp_path / "runs"))
