"""The door of the commands: what they need, a console that may be gone, and signals, with processes of their own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import main
from tests.tiny import ROOT
from utils import requirements
from utils.errors import UsageError
from utils.registry import DATASETS, commands
from utils.runs import console, signals

SHORT = "--model er --dataset seq-digits --n_tasks 1 --online_iter 1 --batch_size 256 --eval_period -1 --device cpu"


def python(*words: object, isolated: bool = False, **settings) -> subprocess.CompletedProcess:
    """isolated: as a Python without any package."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT} | settings
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | settings.pop("env", {})
    flags = ["-S"] if isolated else []
    return subprocess.run([sys.executable, *flags, *words], env=environment, **settings)


# What they need


@pytest.mark.parametrize(
    "words",
    [["main.py", *SHORT.split()], ["main.py", "report"], ["main.py", "fetch", "mepo"]],
    ids=lambda w: w[-1],
)
def test_without_any_environment_it_says_how_to_set_up(words):
    done = python(*words, isolated=True, env={"PYTHONPATH": ""})
    assert done.returncode == 2 and done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"error: this Python ({sys.executable}) has no torch, ") and "command/setup.sh" in line


def test_doctor_and_help_need_no_environment():
    done = python("main.py", "doctor", isolated=True)
    assert done.returncode == 1 and done.stderr == b"" and b"FAULT  torch is not installed; bash" in done.stdout
    assert python("main.py", "--help", isolated=True).returncode == 0


def test_every_line_of_the_requirements_is_understood_and_met():
    needed = requirements.listed()
    assert {"torch", "timm", "PyYAML"} < {one.name for one in needed}
    assert all(one.name.replace("-", "").replace("_", "").isalnum() for one in needed)
    assert all(one.version() and one.allows(one.version()) for one in needed)
    assert all(one.lowest for one in needed)


@pytest.mark.parametrize(
    "lowest, version, good",
    [("2.10", "2.9.1", False), ("2.10", "2.10.0+cu126", True), ("2.10", "2.10rc1", True), ("1.0", "1", True),
     ("1.0.21", "1.0.3", False), ("", "0.1", True), ("3", "", True)],
)  # fmt: skip
def test_versions_are_compared_number_by_number(lowest, version, good):
    assert requirements.Requirement("", "", lowest, "").allows(version) == good


def test_a_package_that_is_too_old_is_one_line_before_anything_else(monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.3" if name == "timm" else version(name))
    requirements.check.cache_clear()
    try:
        with pytest.raises(UsageError, match="^too old: timm 1.0.3; .* -m pip install -U 'timm>=[^\n]*$"):
            DATASETS.load("seq-digits")
    finally:
        requirements.check.cache_clear()


@pytest.fixture
def others(tmp_path):
    """A folder with packages of the names of ours, and a module that imports them when Python starts."""
    for name in ("backbone", "datasets", "models", "utils"):
        (tmp_path / "others" / name).mkdir(parents=True)
        (tmp_path / "others" / name / "__init__.py").write_text("theirs = True\n")
    return tmp_path / "others"


def test_other_packages_of_the_names_of_ours_are_passed_over(others, tmp_path):
    code = (
        "import importlib.util as u; print(*(u.find_spec(n).origin for n in ('backbone','datasets','models','utils')))"
    )
    done = python("-c", code, env={"PYTHONPATH": str(others)}, text=True)
    assert [Path(file).parent.parent for file in done.stdout.split()] == [ROOT] * 4
    for command in ("report", "doctor", "fetch"):
        assert python("main.py", command, "--help", env={"PYTHONPATH": str(others)}).returncode == 0


def test_also_those_that_were_imported_when_python_started(others, tmp_path):
    (others / "sitecustomize.py").write_text("import backbone, datasets, models, utils\n")
    words = ["--model", "er", "--dataset", "seq-digits", "--help"]
    done = python(ROOT / "main.py", *words, env={"PYTHONPATH": str(others)}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_another_package_that_a_notebook_imported_is_one_line(others, monkeypatch):
    spec = importlib.util.spec_from_file_location("datasets", others / "datasets" / "__init__.py")
    monkeypatch.setitem(sys.modules, "datasets", importlib.util.module_from_spec(spec))
    with pytest.raises(UsageError, match="^another package named 'datasets' was imported before [^\n]*$"):
        DATASETS.load("seq-digits")


# Commands


def test_a_command_that_nobody_knows_is_one_line_with_the_nearest(capsys):
    for word, said in (("reprot", "did you mean 'report'?"), ("train", "python main.py --model METHOD")):
        assert main.main([word]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: unknown command '{word}'; ") and said in error and error.count("\n") == 1


def test_commands_know_no_debug(capsys):
    for command in commands():
        assert main.main([command, "--debug"]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_command_that_is_started_past_the_door_says_so():
    for command in commands():
        done = python("-m", f"command.{command}", text=True)
        assert done.returncode == 1 and done.stderr == f"python main.py {command} does this\n"


# A console that is gone


def test_a_console_that_is_gone_costs_neither_a_run_nor_a_table(few_digits, tmp_path):
    words = [*SHORT.split(), *few_digits, "--cache_dir", tmp_path / "cache", "--results", tmp_path / "runs"]
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full, open(write, "w") as broken:
        assert python("main.py", *words, stdout=full, stderr=broken).returncode == 0
        assert python("main.py", "--model", "nobody", stdout=broken, stderr=full).returncode == 2
    (summary,) = (tmp_path / "runs").glob("*/*/*/summary.json")
    assert json.loads(summary.read_text())["complete"]
    both = {"stdout": None, "stderr": None, "preexec_fn": lambda: (os.close(1), os.close(2))}
    assert python("main.py", "report", tmp_path / "runs", **both).returncode == 0
    assert {"table.md", "table.tex", "seeds.csv"} <= {file.name for file in (tmp_path / "runs").iterdir()}


def test_characters_that_the_console_does_not_know_are_escaped(tmp_path):
    code = "import sys; from utils.runs import console; console.outlive(); "
    code += "print('é ± \\udcff'); print('é', file=sys.stderr)"
    done = python("-c", code, env={"PYTHONIOENCODING": "ascii"})
    assert (done.stdout, done.stderr) == (b"\\xe9 \\xb1 \\udcff\n", b"\\xe9\n")


def test_files_do_not_take_the_place_of_closed_streams(tmp_path):
    code = "import os; from utils.runs import console; console.outlive(); print(os.open('/dev/null', 0) > 2)"
    assert python("-c", code, preexec_fn=lambda: os.close(2), stderr=None).stdout == b"True\n"


def test_a_stream_of_a_notebook_is_left_alone():
    class Stream:
        pass

    stream = Stream()
    assert console._outliving(stream, 1) is stream


# Signals


HELD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell script it is ignored
import main
main.begin()
import time
def command():
    if sys.argv[1] == "first":
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    from utils.runs import signals
    with signals.obeyed():
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        time.sleep(1)
    print("goes on")
main.leave(main.answer(command))
"""


@pytest.mark.parametrize("moment", ["first", "later"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_signals_end_a_command_in_one_line(name, moment):
    done = python("-c", HELD, moment, name, text=True)
    word, code = ("interrupted", 130) if name == "SIGINT" else ("stopped", 75)
    end = " before it began" if moment == "first" else "; start the same command again"
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{word}{end}\n")


LOST = """
import os, signal, sys, weakref
from utils.runs import signals
class Gone: pass
def command():
    with signals.obeyed():
        gone = Gone()
        watched = weakref.ref(gone, lambda ref: (os.kill(os.getpid(), getattr(signal, sys.argv[1])), len("x")))
        del gone
        assert signals.StopRequest().code == int(sys.argv[2])
        print("work")
import main
main.leave(main.answer(command))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_that_meets_a_finaliser_is_not_lost(name, code):
    done = python("-c", LOST, name, str(code), text=True)
    assert (done.returncode, done.stdout) == (code, "work\n") and "Exception ignored" in done.stderr


def test_a_hangup_that_is_ignored_stays_ignored():
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731  (as nohup does)
    done = python("-c", HELD, "later", "SIGHUP", text=True, preexec_fn=ignore)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_the_last_words_point_to_a_checkpoint_that_is_there():
    stop = signals.Stopped(75)
    assert signals.last_words(stop) == "stopped; start the same command again"
    stop.kept = Path("runs/checkpoints/000003")
    assert signals.last_words(stop).endswith("--resume auto goes on from runs/checkpoints/000003")


def test_errors_of_the_disk_are_one_line(capsys):
    for error, code, text in (
        (OSError(28, "No space left on device", "a.npy"), 1, "a.npy: No space left on device"),
        (PermissionError(13, "Permission denied", "b"), 2, "b: Permission denied"),
        (OSError("480 requested and 12 written"), 2, "a file: 480 requested and 12 written"),
    ):

        def fail(error=error):
            raise error

        assert main.answer(fail) == code
        assert capsys.readouterr().err == f"error: {text}\n"


# Other systems

WINDOWS = """
import os, signal, sys
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
for name in ("O_NOFOLLOW", "O_NONBLOCK", "fchmod", "mkfifo", "getuid", "geteuid"):
    delattr(os, name)
sys.modules["fcntl"] = sys.modules["resource"] = None
import main
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_run_needs_nothing_that_only_unix_has(few_digits, tmp_path):
    places = ["--cache_dir", tmp_path / "cache", "--results", tmp_path / "runs"]
    words = [*SHORT.split(), *few_digits, "--save_every", "0", *places]
    done = python("-c", WINDOWS, *words, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: ") == 1 and "goes on with files named *.held" in done.stderr
    (folder,) = (tmp_path / "runs").glob("*/*/*")
    assert (folder / "summary.json").exists() and not list(folder.glob(".*"))
