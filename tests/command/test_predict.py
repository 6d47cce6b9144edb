"""`main.py predict`, from pictures to lines, and every bad input in one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.command.conftest import CLASSES, rewrite
from utils.runs.description import FILE

ER = ("--model", "er")


def test_a_line_per_picture_in_the_order_given(train, zoo, tmp_path, said):
    alone = zoo / "test" / "fox" / "1.png"
    shutil.copytree(zoo / "test" / "bee", tmp_path / "own" / "deeper" / "b")
    shutil.copy(alone, tmp_path / "own" / "z.png")
    (tmp_path / "own" / "deeper" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "own" / "notes.txt").write_text("no image by its name")
    table = tmp_path / "table.csv"
    code, lines, errors = said("predict", train(*ER), alone, tmp_path / "own", "--top", "99", "--csv", table)
    own = tmp_path / "own"
    expected = [alone, own / "z.png", own / "deeper" / "a.jpg", *(own / "deeper" / "b" / f"{k}.png" for k in range(3))]
    assert code == 0 and [line.partition(": ")[0] for line in lines] == [str(path) for path in expected]
    assert errors == ["note: 1 files are not looked at: 1 .txt"]
    assert lines[2].endswith("a.jpg: cannot be read (cannot identify image file)")
    assert lines[0].partition(": ")[2] == lines[1].partition(": ")[2]  # the same picture
    rows = list(csv.DictReader(table.open()))
    assert [row["file"] for row in rows] == [str(path) for path in expected]
    assert rows[2]["error"] == "cannot identify image file" and not rows[2]["class_1"]
    for row, line in zip(rows[:2], lines):
        assert {row[f"class_{k}"] for k in range(1, 7)} == {*CLASSES} and "class_7" not in row
        shares = [float(row[f"probability_{k}"]) for k in range(1, 7)]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
        assert line.endswith(", ".join(f"{row[f'class_{k}']} {shares[k - 1]:.3f}" for k in range(1, 7)))


def test_top_and_batch_size(train, zoo, said):
    one = said("predict", train(*ER), zoo / "test", "--top", "1", "--batch_size", "1")
    assert one[0] == 0 and len(one[1]) == 18 and not any("," in line for line in one[1])
    assert one == said("predict", train(*ER), zoo / "test", "--top", "1", "--batch_size", "100")


def test_a_method_that_looks_at_the_batch_says_so(train, zoo, covariance, said):
    words = ("--model", "mepo", "--host", "dualprompt", "--meta_path", "none", "--cor_path")
    run = train(*words, str(covariance))
    code, lines, errors = said("predict", run, zoo / "test", "--batch_size", "4")
    assert code == 0 and len(lines) == 18
    assert len(errors) == 1 and "(--align_stats batch)" in errors[0] and "batch of 4 (--batch_size)" in errors[0]
    assert said("predict", run, zoo / "test", "--batch_size", "9")[1] != lines


def test_tasks_that_were_told_are_named_once(train, zoo, said):
    run = train("--model", "finetune", "--scenario", "task-il")
    code, lines, errors = said("predict", run, zoo / "test")
    assert code == 0 and len(lines) == 18 and len(errors) == 1 and "all classes met compete" in errors[0]


# Bad input


def refused(done: tuple[int, list[str], list[str]], *words: str) -> None:
    code, lines, errors = done
    assert (code, lines, len(errors)) == (2, [], 1) and errors[0].startswith("error: ")
    assert all(word in errors[0] for word in words), errors[0]


def test_pictures_that_are_not_there(train, zoo, tmp_path, said, monkeypatch):
    run = train(*ER)
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / "a.txt").write_text("")
    refused(said("predict", run, tmp_path / "empty"), "holds no image", "1 .txt")
    refused(said("predict", run, zoo / "test", tmp_path / "gone.png"), "gone.png: no such file or folder")
    refused(said("predict", run), "PATH")
    refused(said("predict", run, zoo / "test", "--top", "0"), "--top 0")
    refused(said("predict", run, zoo / "test", "--batch_size", "0"), "--batch_size 0")
    refused(said("predict", run, zoo / "test", "--csv", tmp_path), "--csv", "is a folder")
    refused(said("predict", run, zoo / "test", "--device", "tpu"), "--device tpu")
    scandir = os.scandir

    def closed(path="."):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    refused(said("predict", run, zoo / "test"), "bee: cannot be listed (Permission denied)")


def test_folders_that_are_no_run(train, copied, zoo, tmp_path, said):
    picture = zoo / "test" / "fox" / "1.png"
    refused(said("predict", tmp_path / "gone", picture), "no such folder")
    refused(said("predict", zoo, picture), "is no run")
    run = copied(*ER)
    rewrite(run, "model.safetensors", None)
    refused(said("predict", run, picture), "has no weights")
    (run / "summary.json").unlink()
    refused(said("predict", run, picture), "has not ended")


def test_a_run_of_a_stage(train, zoo, said):
    run = train("--model", "mepo_cov", "--samples", "4", "--n_tasks", "5")  # its default: a stage takes no other
    assert not (run / FILE).exists() and not (run / "state.json").exists()
    refused(said("predict", run, zoo / "test"), "mepo_cov, a stage")


def config_of(run: Path, part: str, **changes) -> bytes:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[part] |= changes
    return yaml.safe_dump(config).encode()


def test_runs_of_another_version(copied, zoo, said):
    run = copied(*ER)
    kept = (run / "config.yaml").read_bytes()
    for part, changes, told in (
        ("method", {"sharpness": 3}, "--sharpness: unknown in this version"),
        ("run", {"n_tasks": "two"}, "--n_tasks 'two'"),
        ("run", {"batch_size": -1}, "--batch_size -1"),
        ("run", {"backbone": "vit_of_tomorrow"}, "vit_of_tomorrow"),
    ):
        rewrite(run, "config.yaml", config_of(run, part, **changes))
        refused(said("predict", run, zoo / "test"), told)
        rewrite(run, "config.yaml", kept)
    description = json.loads((run / FILE).read_text())
    rewrite(run, FILE, json.dumps(description | {"format": 2}).encode())
    refused(said("predict", run, zoo / "test"), "has format 2, this version reads 1")
    numbers = {"side": None, "held": None, "num_inputs": 5}
    rewrite(run, FILE, json.dumps(description | numbers).encode())
    refused(said("predict", run, zoo / "test"), "is a run on numbers")


def test_a_method_that_is_not_known_here(copied, zoo, said):
    """Whatever plugins its folder names: these would be run."""
    run = copied(*ER)
    rewrite(run, "config.yaml", config_of(run, "run", model="foo", plugins=str(zoo)), model="foo")
    refused(said("predict", run, zoo / "test"), "its method foo is not known here; name its --plugins")
