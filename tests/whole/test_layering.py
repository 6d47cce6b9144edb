"""Who may import whom, what an import may do, and what no file may contain."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import FILES, MAP, MAY_IMPORT, ROOT, drawing, imports_of, names_of, room_of, tree_of
from utils.args import scenarios
from utils.registry import commands

EXTEND = ("models", "datasets")


IMPORTS = {module: imports_of(module) for module in FILES}


def test_the_walk_sees_imports_of_every_form():
    assert {"utils.plan", "utils.runs.signals", "command.train"} <= IMPORTS["main"]  # a name, a module, in a function
    assert "models.dualprompt" in IMPORTS["models.misa"] and "backbone" in IMPORTS["command.train"]
    assert len(FILES) > 100


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    room = room_of(module)
    others = {name for name in IMPORTS[module] if not names_of(name) & {*MAY_IMPORT[room]}}
    if room in EXTEND and module not in (f"{room}.base", room):
        parents = {name for name in others if room_of(name) == room}
        assert len(parents) <= 1
        others -= parents
    assert not others


def test_there_are_no_circles():
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in sorted(IMPORTS[module]):
                walk(imported, (*path, module))
            done.add(module)

    for module in FILES:
        walk(module, ())


def test_every_file_is_used():
    """Reachable from the commands or found by a registry."""
    registered = [name for name in FILES if re.fullmatch(r"(models|datasets)\.(?!base$|drawing$|pictures$|_)\w+", name)]
    reached, waiting = set(), ["main", *(f"command.{name}" for name in commands()), *registered]
    waiting.append("datasets.pictures.make")  # of command/make_pictures.sh
    waiting += [f"utils.streams.{name.replace('-', '_')}" for name in scenarios()]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            above = module.rpartition(".")[0]
            waiting += IMPORTS[module] | ({above} & {*FILES})  # utils.args reads utils/__init__.py too
    assert sorted(FILES.keys() - reached) == []


def test_the_map_is_that_of_the_imports():
    assert MAP.read_text(encoding="utf-8") == drawing(), "python -m tests.imports draws it again"


# What an import does


WATCH = """
import sys
opened = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str) and not args[0].startswith((sys.prefix, sys.base_prefix)):
        opened.append(args[0])
sys.addaudithook(watch)
import importlib, json, os, torch, torchvision, timm, pandas, sklearn
def state():
    return os.getcwd(), list(sys.path), sorted(os.environ), torch.get_rng_state().tolist(), torch.is_grad_enabled()
before = state()
opened.clear()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert state() == before
assert not torch.cuda.is_initialized()
os.write(1, json.dumps(opened).encode())
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_importing_everything_defines_things_and_does_nothing_else():
    done = python(WATCH, *FILES)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    opened = [Path(name) for name in json.loads(done.stdout)]  # and so nothing was printed
    others = [path for path in opened if path.suffix not in (".py", ".pyc") and ROOT in path.resolve().parents]
    assert others == []
    weights = [path for path in opened if path.suffix in (".safetensors", ".pth", ".pt", ".npy", ".npz")]
    assert weights == []


QUICK = """
import contextlib, io, sys
import utils.plan
assert "torch" not in sys.modules, "utils.plan"
import main
for argv, code in ((["--help"], 0), ([], 0), (["--model", "mesa"], 2), (["--dataset", "seq-digits"], 2),
                   (["--model", "misa", "--dataset", "seq-digit"], 2)):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert main.main(argv) == code, argv
    assert bool(out.getvalue()) == (code == 0), argv
    assert err.getvalue().count("\\n") == (code == 2), argv
    assert "torch" not in sys.modules and "numpy" not in sys.modules, argv
"""


def test_help_and_wrong_names_are_answered_without_torch():
    done = python(QUICK)
    assert done.returncode == 0, done.stderr


# What no file contains


FORBIDDEN = [
    r"\.cuda\(",
    r"weights_only\s*=\s*False",
    r"allow_pickle\s*=\s*True",
    r"\bpickle\.loads?\b",
    r"yaml\.load\(",
    r"\bextractall\b",
    r"\bos\.system\b",
    r"shell\s*=\s*True",
]


@pytest.mark.parametrize("module", FILES)
def test_no_file_runs_what_it_reads(module):
    text = FILES[module].read_text(encoding="utf-8")
    assert [pattern for pattern in FORBIDDEN if re.search(pattern, text)] == []
    calls = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}  # `model.eval()` is no name
    assert not called & {"eval", "exec", "compile", "__import__"}
