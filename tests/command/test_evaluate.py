"""`main.py evaluate`: the run's own accuracy again, other folders, and every bad input in one line."""

from __future__ import annotations

import csv
import shutil

import pandas as pd
import pytest
from PIL import Image

from tests.command.conftest import CLASSES
from tests.command.test_predict import ER, refused


def test_the_accuracy_is_that_of_the_run(train, zoo, tmp_path, said):
    run = train(*ER)
    picture, table = tmp_path / "confusion.png", tmp_path / "confusion.csv"
    words = ["evaluate", run, "--data_dir", zoo, "--picture", picture, "--csv", table]
    code, lines, errors = said(*words)
    assert code == 0 and errors == [f"note: {zoo / 'test'} is the test part, and is taken"]
    last = pd.read_csv(run / "metrics.csv")["accuracy"].iloc[-1]
    assert lines[0] == f"accuracy {100 * last:.2f} % of 18 images" and lines[-1] == str(picture)
    rows = list(csv.DictReader(table.open()))
    per_class = pd.read_csv(run / "per_class.csv").query("task == 1").set_index("name")["accuracy"]
    assert {row["class"]: float(row["accuracy"]) for row in rows} == pytest.approx(per_class.to_dict(), abs=1e-5)
    for row in rows:
        assert sum(int(row[name]) for name in CLASSES) == int(row["images"]) == 3
        assert int(row[row["class"]]) == round(3 * float(row["accuracy"]))
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 300


def test_another_folder(copied, zoo, tmp_path, said):
    run, own = copied(*ER), tmp_path / "own"
    shutil.copytree(zoo / "test" / "ant", own / "ant" / "of 2020")
    shutil.copytree(zoo / "test" / "bee", own / "bee")
    shutil.copytree(zoo / "test" / "fox", own / "zebra")
    (own / "bee" / "1.png").write_bytes(b"no picture")
    code, lines, errors = said("evaluate", run, "--data_dir", own)
    assert code == 0 and lines[0].endswith("% of 5 images") and lines[-1] == str(run / "confusion.png")
    assert errors == [
        "note: unknown to the run, 3 images left out: zebra",
        f"warning: {own / 'bee' / '1.png'}: cannot be read (cannot identify image file); left out",
    ]
    assert sum(line.endswith("no images") for line in lines) == 4 and (run / "confusion.png").stat().st_size > 5000


def test_folders_without_classes_of_the_run(train, zoo, tmp_path, said):
    words = ["evaluate", train(*ER), "--picture", tmp_path / "a.png", "--data_dir"]
    shutil.copytree(zoo / "test" / "fox", tmp_path / "own" / "zebra")
    refused(said(*words, tmp_path / "own"), "no class of the run: zebra", "the run has met 6 classes")
    refused(said(*words, tmp_path / "own" / "zebra"), "holds no class folders, but 3 images")
    refused(said(*words, tmp_path / "gone"), "no such folder")
    refused(said(*words[:-1]), "--data_dir")
    shutil.rmtree(tmp_path / "own" / "zebra")
    (tmp_path / "own" / "fox").mkdir()
    (tmp_path / "own" / "fox" / "a.png").write_bytes(b"no picture")
    code, lines, errors = said(*words, tmp_path / "own")
    assert (code, lines, errors[-1]) == (2, [], "error: no image can be read")
    assert not (tmp_path / "a.png").exists()
