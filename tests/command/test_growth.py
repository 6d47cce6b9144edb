"""`main.py benchmark --suite growth`: every quantity at tiny sizes; and what a report and `--resume auto` read."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from command import growth
from tests.command.test_predict import refused
from utils import plan as plans
from utils.files import text
from utils.report import comparison
from utils.report.comparison import report
from utils.runs import identity, resume
from utils.runs.folder import RunFolder
from utils.runs.reading import find_runs, read_runs

TINY = {
    "classes": (10,),
    "prompts of a pool": (5,),
    "images of a memory": (8,),
    "tasks": (2, 4),
    "images of a stream": (1000, 2000),
    "runs": (5, 10),
    "meta epochs": (1, 2),
}
COUNT = 30  # runs, of which five differ in their seeds alone


def test_every_quantity(said, monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "SIZES", TINY)
    monkeypatch.setattr(growth, "PATHS", 20_000)
    monkeypatch.setattr(growth, "BATCH", 2)
    monkeypatch.setattr(comparison, "drawings_of", lambda *_: ({}, {}, []))
    file = tmp_path / "growth.json"
    code, lines, errors = said("benchmark", "--suite", "growth", "--device", "cpu", "--json", file)
    assert (code, errors) == (0, [])
    written = json.loads(file.read_text())
    assert written["growth"] == 1 and "torch" in written["machine"]
    assert {table["quantity"]: [value for value, _ in table["rows"]] for table in written["tables"]} == {
        quantity: [*values] for quantity, values in TINY.items()
    }
    for table in written["tables"]:
        assert all(number > 0 for _, measured in table["rows"] for number in measured.values())
    headings = [line for line in lines if line.startswith("|") and "grew" in line]
    assert [line.split("|")[1].strip() for line in headings] == [*TINY]


def test_what_it_does_not_take(said, tmp_path):
    refused(said("benchmark", "--suite", "growth", "--methods", "l2p"), "--suite growth and --methods")
    refused(said("benchmark", "--suite", "growth", "--against", tmp_path), "--suite growth and --against")


# What many runs cost, counted


@pytest.fixture
def plan(tmp_path):
    results = tmp_path / "runs"
    given = {"model": "dualprompt", "dataset": "seq-digits", "results": str(results)}
    plan = plans.make(given).with_seed(1)
    growth.write_runs(COUNT, plan, results)
    return plan


@pytest.fixture
def opened(monkeypatch) -> Counter:
    """Files that were opened, by name, and entries of YAML that were parsed, as `yaml`."""
    counts: Counter[str] = Counter()
    open_file, whole = text.open_file, text._whole_yaml

    def open_counted(path):
        counts[Path(path).name] += 1
        return open_file(path)

    def parse_counted(part):
        counts["yaml"] += 1
        return whole(part)

    monkeypatch.setattr(text, "open_file", open_counted)
    monkeypatch.setattr(text, "_whole_yaml", parse_counted)
    text._one_entry.cache_clear()
    return counts


def lines_apart(plan) -> int:
    """How many different lines all settings have: four seeds differ by seed, the learning rate by setting."""
    config = identity.config(plan)
    lines = sum(1 + len(section) for section in config.values())
    return lines + 4 * growth.SEEDS + COUNT // growth.SEEDS


def test_resume_reads_the_settings_alone(plan, opened):
    here = identity.config(plan)
    here["method"] = here["method"] | {"lr": 0.001}  # of the first setting
    assert [folder.name for folder, _ in resume.candidates(plan.run.results, here)] == ["20260101-000000-seed1"]
    assert opened.pop("config.yaml") == COUNT
    assert opened.pop("yaml") <= lines_apart(plan)
    assert not opened
    resume.candidates(plan.run.results, here)
    assert not opened


def test_a_search_sees_what_came_and_changed(plan):
    """Files that were read are not read again, unless they are others."""
    here, results = identity.config(plan), Path(plan.run.results)
    here["method"] = here["method"] | {"lr": 0.001}  # of the first setting
    first, second = find_runs([results])[: 2 * growth.SEEDS : growth.SEEDS]  # both of the first seed
    assert [folder for folder, _ in resume.candidates(plan.run.results, here)] == [first]
    folder = RunFolder(second)
    folder.write_config(yaml.safe_load((first / "config.yaml").read_text()))
    folder.close()
    (first / "config.yaml").write_bytes(b"\0" * (first / "config.yaml").stat().st_size)
    third = shutil.copytree(second, second.with_name("copy"))
    assert {folder for folder, _ in resume.candidates(plan.run.results, here)} == {second, third}


def test_a_report_reads_each_file_once_and_again_for_pictures(plan, opened, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ROWS", 2)
    report([Path(plan.run.results)], tmp_path / "out")
    drawn = 2 * growth.SEEDS
    assert {name: opened[name] for name in ("config.yaml", "summary.json", "metrics.csv", "per_class.csv")} == {
        "config.yaml": COUNT,
        "summary.json": COUNT,
        "metrics.csv": COUNT + drawn,
        "per_class.csv": COUNT + drawn,
    }
    assert opened["yaml"] <= lines_apart(plan)
    out = capsys.readouterr().out
    assert sum(line.startswith("| dualprompt ") for line in out.splitlines()) == COUNT // growth.SEEDS


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "per_class.csv", "summary.json"])
def test_a_damaged_run_among_many_is_noticed(plan, name):
    folders = find_runs([Path(plan.run.results)])
    runs, problems = read_runs(folders)
    assert len(runs) == COUNT and not problems
    folder = folders[COUNT // 2]
    content = (folder / name).read_bytes()
    place = content.rindex(b"0")
    (folder / name).write_bytes(content[:place] + b"1" + content[place + 1 :])  # as long as before
    runs, problems = read_runs(folders)
    assert len(runs) == COUNT - 1 and len(problems) == 1 and str(folder / name) in problems[0]
