"""GEM files: tasks of one's own, of images or of plain numbers, in the layout of GEM's scripts."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import main
from backbone.products import open_dataset
from datasets.base import Places
from datasets.seq_gem import SeqGem, SeqGemArgs
from tests.tiny import ROOT, assert_same_results, run_folder
from utils import plan as plans
from utils.streams import make_stream, own_options
from utils.training.assembly import read_images

PLACES = Places(None, None, None)
CPU = torch.device("cpu")
EVERY = ["er", "er_ace", "derpp", "finetune", "joint", "bcl", "er_ring", "gem", "agem", "ewc", "ftml", "supervised"]
MEMORY = {
    "joint": ["--updates", "1"],
    "bcl": ["--n_memories", "10", "--replay_batch_size", "8"],
    **{name: ["--n_memories", "10", "--replay_batch_size", "8"] for name in ("er_ring", "agem")},
    **{name: ["--n_memories", "10"] for name in ("gem", "ewc", "ftml")},
    "supervised": ["--scenario", "shuffled"],
}


def tasks_of(labels: list[list[int]], shape: tuple[int, ...] = (20,), counts=(24, 8), bytes_only: bool = False) -> list:
    """[train, test] as GEM's scripts make them: classes that can be told apart, in each task those of `labels`."""
    draw = torch.Generator().manual_seed(0)
    means = torch.rand(1 + max(map(max, labels)), *shape, generator=draw)
    parts = []
    for count in counts:
        part = []
        for k, own in enumerate(labels):
            y = torch.tensor(own)[torch.arange(count) % len(own)]
            x = 0.7 * means[y] + 0.3 * torch.rand(count, *shape, generator=draw)
            part.append((f"task {k}", (x * 255).round() / 255 if bytes_only else x, y))
        parts.append(part)
    return parts


APART, SHARED = [[2, 3], [0, 1], [4, 5]], [[0, 1, 2]] * 3


@pytest.fixture
def saved(tmp_path):
    """Writes the content of a file and gives its path."""

    def save(content, name: str = "tasks.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def words(tmp_path):
    """Of a short run, but for model and file."""
    places = ["--results", str(tmp_path / "runs"), "--checkpoint_dir", str(tmp_path / "products")]
    return ["--dataset", "seq-gem", "--batch_size", "6", "--online_iter", "1", "--device", "cpu", *places]


def loaded(file, **options):
    return SeqGem.at(file)(SeqGemArgs(**options))


# What is in a file


def test_numbers_are_as_they_are(saved):
    content = tasks_of(APART)
    dataset = loaded(saved(content))
    assert (dataset.num_inputs, dataset.num_classes, dataset.counts, dataset.max_domains) == (20, 6, (72, 24), 0)
    assert dataset.tasks == APART and dataset.settings["n_tasks"] == 3 and dataset.settings["scenario"] == "task-il"
    for train, part in zip((True, False), content):
        x, labels = dataset.load(PLACES, train)
        assert x.dtype == np.float32 and np.array_equal(x, torch.cat([x for _, x, _ in part]))
        assert labels.dtype == np.int64 and np.array_equal(labels, torch.cat([y for *_, y in part]))
    assert dataset.survey(PLACES).lines("seq-gem", 6) == [
        "seq-gem: 6 classes, 72 training and 24 test samples",
        "seq-gem: 3 tasks with classes of their own, samples of 20 numbers",
    ]


@pytest.mark.parametrize(
    "shape, side, grey", [((784,), 28, True), ((3072,), 32, False), ((3, 8, 8), 8, False)], ids=str
)
def test_bytes_are_images(saved, shape, side, grey):
    content = tasks_of(APART, shape, (4, 2), bytes_only=True)
    dataset = loaded(saved(content))
    assert (dataset.native_size, dataset.grey, dataset.num_inputs) == (side, grey, None)
    x, _ = dataset.load(PLACES, True)
    assert x.dtype == np.uint8 and x.shape == (12, 3, side, side)
    flat = x[:, :1] if grey else x
    assert np.allclose(flat.reshape(12, -1) / 255, torch.cat([x for _, x, _ in content[0]]).flatten(1), atol=1e-6)
    assert not grey or (x == x[:, :1]).all()


@pytest.mark.parametrize("shape", [(784,), (3, 4, 5), (783,)], ids=str)
def test_other_values_and_rows_are_numbers(saved, shape):
    content = tasks_of(APART, shape, (4, 2), bytes_only=shape == (783,))
    dataset = loaded(saved(content))
    assert dataset.num_inputs == np.prod(shape) and dataset.native_size is None
    assert np.array_equal(dataset.load(PLACES, False)[0], torch.cat([x for _, x, _ in content[1]]).flatten(1))


def test_one_value_that_is_no_byte_makes_all_numbers(saved):
    content = tasks_of(APART, (784,), (4, 2), bytes_only=True)
    content[1][2][1][1, 5] = 0.5001
    assert loaded(saved(content)).num_inputs == 784


def test_equal_labels_are_domains(saved):
    dataset = loaded(saved(tasks_of(SHARED)))
    assert (dataset.num_classes, dataset.max_domains, dataset.settings["scenario"]) == (3, 3, "domain-il")
    assert dataset.tasks == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    _, labels = dataset.load(PLACES, True)
    assert np.array_equal(labels // 3, np.arange(3).repeat(24))


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "descriptor", [None, 3, "rotation", torch.arange(20)], ids=["none", "number", "text", "tensor"]
)
def test_lists_or_tuples_with_any_descriptor(saved, kind, descriptor):
    content = kind(kind(kind((descriptor, x, y)) for _, x, y in part) for part in tasks_of(APART))
    assert loaded(saved(content)).counts == (72, 24)


def test_old_files_are_read(tmp_path):
    torch.save(tasks_of(APART), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert loaded(tmp_path / "old.pt").counts == (72, 24)


def test_a_changed_file_is_read_again(saved):
    file = saved(tasks_of(APART))
    assert SeqGem.at(file) is SeqGem.at(file)
    assert loaded(saved(tasks_of(APART, counts=(12, 8)))).counts == (36, 24)


def test_use_takes_part_of_each_task(saved):
    file = saved(tasks_of(APART, counts=(24, 8)))
    whole, labels = loaded(file).load(PLACES, True)
    for use, count in ((0.5, 12), (7, 7), (1000, 24), (0.0, 1), (0.01, 1)):
        dataset = loaded(file, use=use)
        assert dataset.counts == (3 * count, 24)
        x, own = dataset.load(PLACES, True)
        assert [np.isin(own, task).sum() for task in APART] == [count] * 3
        rows = [np.flatnonzero((whole == sample).all(axis=1)).item() for sample in x]
        assert rows == sorted(set(rows)) and np.array_equal(labels[rows], own)
        assert np.array_equal(dataset.load(PLACES, False)[0], loaded(file).load(PLACES, False)[0])
        assert np.array_equal(x, loaded(file, use=use).load(PLACES, True)[0])  # one draw
        assert (dataset.digest(PLACES, True) == loaded(file).digest(PLACES, True)) == (count == 24)


# Streams


@pytest.mark.parametrize("labels", [APART, SHARED], ids=["tasks", "domains"])
@pytest.mark.parametrize("first", [0, 1])
def test_tasks_come_as_they_are_in_the_file(saved, labels, first):
    content = tasks_of(labels)
    given = {"model": "bcl", "dataset": "seq-gem", "data_dir": str(saved(content)), "first_task": first}
    plan = plans.make(given | {"backbone": "mlp-16", "stream_seed": 5}).with_seed(5)
    dataset, places = open_dataset(plan)
    images, _ = read_images(plan, dataset, places, CPU)
    stream = make_stream(plan.run, own_options(plan, dataset), images.labels, dataset.num_classes)
    assert stream.num_tasks == 3 - first
    for task in range(stream.num_tasks):
        _, x, y = content[0][first + task]
        rows = stream.rows(task)
        assert torch.equal(images.raw(rows), x) and torch.equal(images.labels[rows] % dataset.num_classes, y)
        assert sorted(stream.task_classes(task)) == labels[first + task]


@pytest.mark.parametrize("model", EVERY)
def test_every_method_of_small_networks_takes_numbers(model, saved, words, tmp_path):
    own = [*MEMORY.get(model, []), "--backbone", "mlp-16", "--validation", "0.3" if model == "er" else "0"]
    assert main.main(["--model", model, "--data_dir", str(saved(tasks_of(APART))), *words, *own]) == 0
    config = yaml.safe_load((run_folder(tmp_path / "runs") / "config.yaml").read_text())
    assert config["run"]["n_tasks"] == 3 and config["data"] == {"use": 1.0}


@pytest.mark.parametrize("labels, counts", [(APART, [2, 2, 2]), (SHARED, [3, 3, 3])], ids=["tasks", "domains"])
@pytest.mark.parametrize("model", ["bcl", "finetune"])
def test_runs_learn_the_tasks(labels, counts, model, saved, words, tmp_path):
    file = saved(tasks_of(labels, counts=(60, 12)))
    own = ["--n_epochs", "4", "--eval_passes", "last", *MEMORY.get(model, ["--optimizer", "sgd", "--lr", "0.1"])]
    assert main.main(["--model", model, "--data_dir", str(file), *words, *own, "--backbone", "mlp-16"]) == 0
    table = pd.read_csv(run_folder(tmp_path / "runs") / "per_task.csv")
    told = table[table["measure"] == "task"].pivot(index="after_task", columns="task", values="value").to_numpy()
    assert told.shape == (3, 3) and (np.diag(told) > 1.2 / min(counts)).all()


@pytest.mark.parametrize("shape, backbone", [((784,), "mlp-16"), ((3, 8, 8), "resnet18-4"), ((3, 8, 8), "tiny")])
def test_runs_on_images(shape, backbone, saved, words, tmp_path, glyph_weights):
    file = saved(tasks_of(APART, shape, (12, 4), bytes_only=True))
    network = ["--backbone", "vit_tiny_glyphs", "--backbone_path", str(glyph_weights)]
    own = network if backbone == "tiny" else ["--backbone", backbone]
    assert main.main(["--model", "er", "--data_dir", str(file), *words, *own, "--inputs", "published"]) == 0


@pytest.mark.parametrize("own", [["--first_task", "1"], ["--use", "6"], ["--scenario", "class-il"], ["--eval_ahead"]])
def test_options_of_a_run(own, saved, words, tmp_path):
    file = saved(tasks_of(APART))
    assert main.main(["--model", "er", "--data_dir", str(file), *words, "--backbone", "mlp-16", *own]) == 0
    summary = (run_folder(tmp_path / "runs") / "summary.json").read_text()
    assert f'"samples": {48 if own[0] == "--first_task" else 18 if own[0] == "--use" else 72}' in summary


def test_a_resumed_run_is_the_unbroken_one(saved, words, tmp_path):
    """A process that is killed in its second task, and one that goes on."""
    words = ["--model", "bcl", "--data_dir", str(saved(tasks_of(SHARED))), *words, "--backbone", "mlp-16"]
    words += [*MEMORY["bcl"], "--save_every", "0", "--n_epochs", "2"]
    assert main.main([*words, "--results", str(tmp_path / "whole")]) == 0
    broken = [*words, "--results", str(tmp_path / "broken"), "--resume", "auto"]
    code = (
        "import os, sys, main; from models.bcl import Bcl; end = Bcl.end_batch; met = []\n"
        "def counted(self, batch):\n    end(self, batch); met.append(1); len(met) == 13 and os._exit(9)\n"
        "Bcl.end_batch = counted; sys.exit(main.main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *broken], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert main.main(broken) == 0
    assert_same_results(run_folder(tmp_path / "whole"), run_folder(tmp_path / "broken"))


@pytest.mark.parametrize("labels, shape", [(APART, (20,)), (SHARED, (20,)), (APART, (784,))])
def test_what_a_run_would_do(labels, shape, saved, words, capsys):
    file = saved(tasks_of(labels, shape, bytes_only=len(shape) == 1 and shape[0] == 784))
    assert main.main(["--model", "bcl", "--data_dir", str(file), *words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    classes = len(set(sum(labels, [])))
    what, each = ("images", "28 x 28 px") if shape == (784,) else ("samples", "20 numbers")
    assert f"  data      72 training and 24 test {what}, {classes} classes, {each}\n" in out
    assert f"GFLOP per test {what[:-1]};" in out and ", 3 tasks, batches of 6" in out


def test_help_needs_no_file(capsys):
    assert main.main(["--model", "bcl", "--dataset", "seq-gem", "--help"]) == 0
    assert "--use FLOAT" in capsys.readouterr().out


# Refusals


def refused(words, tmp_path, capsys) -> str:
    """The one line of a refusal; nothing may be left behind."""
    assert main.main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists() and not (tmp_path / "products").exists()
    return err


def changed(part: int, task: int, **values):
    """The content of a file with another x or y in one task."""
    content = tasks_of(APART)
    descriptor, x, y = content[part][task]
    content[part][task] = descriptor, values.get("x", x), values.get("y", y)
    return content


GOOD = tasks_of(APART)
BAD = {
    "no list": ({"train": 1}, "is no GEM file; a GEM file is a list [train, test], and each of these a list with"),
    "three parts": ([[], [], []], "is no GEM file"),
    "no tasks": ([[], []], "task 0 is missing, there are 0 training and 0 test tasks"),
    "a tensor": ([torch.zeros(2), torch.zeros(2)], "is no GEM file"),
    "a task short": ([GOOD[0], GOOD[1][:2]], "task 2 is missing, there are 3 training and 2 test tasks"),
    "pairs": ([GOOD[0], [entry[1:] for entry in GOOD[1]]], "test task 0 is no (descriptor, x, y)"),
    "double": (changed(0, 1, x=torch.rand(24, 20).double()), "training task 1: x is float64 [24, 20]; it must be"),
    "bytes": (changed(0, 0, x=torch.zeros(24, 20).byte()), "training task 0: x is uint8 [24, 20]; it must be float32"),
    "no tensor": (changed(1, 2, x=[1.0, 2.0]), "test task 2: x is of type list; it must be float32"),
    "three axes": (changed(1, 2, x=torch.rand(8, 4, 5)), "test task 2: x is float32 [8, 4, 5]; it must be"),
    "one channel": (changed(0, 2, x=torch.rand(24, 1, 4, 5)), "training task 2: x is float32 [24, 1, 4, 5]; images"),
    "repeated": (changed(0, 1, x=torch.rand(1, 20).expand(24, 20)), "training task 1: x is a tensor of which the"),
    "sparse": (changed(0, 1, x=torch.rand(24, 20).to_sparse()), "training task 1: x is a tensor of which the file"),
    "without data": (changed(0, 1, x=torch.rand(24, 20).to("meta")), "training task 1: x is a tensor of which"),
    "label type": (changed(0, 1, y=torch.zeros(24)), "training task 1: y is float32 [24]; it must be int64 [N]"),
    "label axes": (changed(0, 1, y=torch.zeros(24, 1).long()), "training task 1: y is int64 [24, 1]; it must be int64"),
    "lengths": (changed(0, 1, y=torch.ones(23).long()), "training task 1: has 24 samples and 23 labels"),
    "empty": (changed(0, 2, x=torch.rand(0, 20), y=torch.zeros(0).long()), "training task 2: has no samples"),
    "no test": (changed(1, 1, x=torch.rand(0, 20), y=torch.zeros(0).long()), "test task 1: has no samples"),
    "features": (changed(1, 1, x=torch.rand(8, 21)), "test task 1: samples are [21], those of training task 0"),
    "nan": (changed(0, 2, x=torch.full((24, 20), torch.nan)), "training task 2: x holds NaN or infinity"),
    "infinity": (changed(1, 0, x=torch.full((8, 20), torch.inf)), "test task 0: x holds NaN or infinity"),
    "overlap": (tasks_of([[0, 1], [2, 3], [3, 4]]), "training task 2: shares labels with an earlier one; tasks have"),
    "half overlap": (tasks_of([[0, 1], [1, 2], [3, 4]]), "training task 1: shares labels with an earlier one"),
    "other domain": (tasks_of([[0, 1], [0, 1], [0, 2]]), "training task 2: has other labels than task 0"),
    "gap": (tasks_of([[0, 1], [2, 4], [5, 6]]), "training task 1: has label 4, and no task has 3; labels are 0, 1, 2"),
    "from one": (tasks_of([[1, 2], [3, 4]]), "training task 0: has label 1, and no task has 0"),
    "negative": (changed(0, 1, y=torch.full((24,), -1)), "training task 1: has label -1; labels are 0, 1, 2"),
    "untrained": (changed(1, 1, y=torch.full((8,), 5)), "test task 1: has label 5, which training task 1 has not"),
    "not square": (tasks_of(APART, (3, 4, 5), bytes_only=True), "training task 0: images of 4 x 5 px; square ones are"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(name, saved, words, tmp_path, capsys):
    content, message = BAD[name]
    file = saved(content)
    error = refused(["--model", "er", "--data_dir", file, *words], tmp_path, capsys)
    assert str(file) in error and message in error


@pytest.mark.parametrize(
    "own, message",
    [
        (
            ["--n_tasks", "2"],
            "--n_tasks 2: the file holds 3 tasks; take some of them with --first_task and --last_task",
        ),
        (["--class_order", "natural"], "--class_order natural: seq-gem comes in tasks of its own"),
        (["--classes", "4"], "--classes 4: seq-gem comes in tasks of its own"),
        (["--scenario", "si-blurry"], "--scenario si-blurry: seq-gem comes in tasks of its own, --scenario task-il or"),
        (["--scenario", "domain-il"], "--scenario domain-il: seq-gem has no domains"),
        (["--first_task", "3"], "--first_task 3: the stream has tasks 0 ... 2"),
        (["--use", "-1"], "--use -1.0: must be at least 0"),
        (["--use", "1.5"], "--use 1.5: above 1 it is a number of samples, without a fraction"),
        (["--backbone", "vit_tiny_glyphs"], "--backbone vit_tiny_glyphs: takes images, not 20 numbers"),
        (["--backbone", "sup21k"], "--backbone sup21k: takes images, not 20 numbers"),
        (["--backbone", "resnet18-20"], "--backbone resnet18-20: takes images, not 20 numbers"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_are_refused(own, message, saved, words, tmp_path, capsys):
    error = refused(["--model", "er", "--data_dir", saved(tasks_of(APART)), *words, *own], tmp_path, capsys)
    assert error.startswith(f"error: {message}")


def test_domains_are_no_tasks_of_classes(saved, words, tmp_path, capsys):
    given = ["--model", "er", "--data_dir", saved(tasks_of(SHARED)), *words]
    assert "comes in domains" in refused([*given, "--scenario", "task-il"], tmp_path, capsys)
    assert "--n_tasks 2: the file holds 3 tasks" in refused([*given, "--n_tasks", "2"], tmp_path, capsys)


def test_no_file(words, tmp_path, capsys):
    meant = "error: seq-gem reads one file, written by torch.save as GEM's scripts do; give --data_dir FILE\n"
    for place in (tmp_path, tmp_path / "nowhere.pt"):
        assert refused(["--model", "bcl", "--data_dir", place, *words], tmp_path, capsys) == meant


class Harmful:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_code_in_a_file_is_not_run(saved, words, tmp_path, capsys):
    content = tasks_of(APART)
    content[0][1] = (Harmful(tmp_path / "ran"), *content[0][1][1:])
    for zipped in (True, False):
        torch.save(content, tmp_path / "tasks.pt", _use_new_zipfile_serialization=zipped)
        error = refused(["--model", "er", "--data_dir", tmp_path / "tasks.pt", *words], tmp_path, capsys)
        assert "cannot be read as tensors, it holds more than these" in error and "system" in error
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_file_is_refused(share, saved, words, tmp_path, capsys):
    file = saved(tasks_of(APART))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    error = refused(["--model", "er", "--data_dir", file, *words], tmp_path, capsys)
    assert f"{file}: cannot be read as tensors" in error
