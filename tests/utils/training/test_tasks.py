"""Tasks that are told: their columns, what a session gives, and accuracy with and without the task."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import main
from models.er import Er
from tests.tiny import DIGITS, Patches, build, run_folder
from utils.classes import mask_unseen
from utils.training.metrics import task_matrix


class Reader(Er):
    """Keeps what it reads again."""

    needs_task_boundaries = True
    rereads = True
    read: list = []

    def begin_task(self, session):
        self.read.append((session, list(session.again(10)), len(self.read)))


class Undeclared(Reader):
    rereads = False


class Told(Er):
    """Knows the answer where the task is told."""

    def given(self, x, task):
        self.tasks.append(task)
        return torch.eye(12)[[self.slot_of[image.sum().item()] for image in x]]

    tasks: list = []
    slot_of: dict = {}


@pytest.mark.parametrize("scenario", ["class-il", "task-il"])
def test_a_session_names_its_columns_and_reads_its_samples_again(scenario):
    Reader.read = []
    run = build(Reader, scenario=scenario, n_tasks=4)
    run.trainer.train()
    stream, met = run.trainer.stream, 0
    for task, (session, batches, _) in enumerate(Reader.read):
        assert (session.index, session.num_samples) == (task, len(stream.tasks[task]))
        assert session.outputs == range(met, met + 3)
        met += 3
        indices = torch.cat([batch.indices for batch in batches])
        assert torch.equal(indices, stream.tasks[task])
        assert torch.equal(batches[0].x, run.trainer.transform.test(run.trainer.images.raw(indices[:10])))
        slots = torch.cat([batch.y for batch in batches])
        if scenario == "task-il":  # announced, in the order of the task's classes
            labels = run.trainer.images.labels[indices]
            assert slots.tolist() == [session.outputs[session.classes.index(label)] for label in labels.tolist()]
        else:  # nobody has met them yet
            assert (slots == -1).all()


def test_reading_again_undeclared_fails():
    run = build(Undeclared, scenario="task-il", n_tasks=4)
    with pytest.raises(RuntimeError, match="reads a session again .* without `rereads = True`"):
        run.trainer.train()


def test_task_il_has_the_tasks_of_class_il():
    one, other = (build("er", scenario=scenario, n_tasks=4).trainer.stream for scenario in ("class-il", "task-il"))
    assert one.classes == other.classes and all(map(torch.equal, one.tasks, other.tasks))
    assert [one.columns(k) for k in range(4)] == [other.columns(k) for k in range(4)]
    assert build("er").trainer.stream.tasks_of_labels() is None  # Si-Blurry


def test_accuracy_with_the_task_told_is_that_among_its_columns():
    run = build("er", scenario="task-il", n_tasks=4, eval_period=-1)
    run.trainer.train()
    trainer, model = run.trainer, run.model.eval()
    images, seen = trainer.evaluator.images, trainer.seen
    logits = model(trainer.transform.test(images.raw(torch.arange(len(images)))))
    slots, task_of = seen.slots(images.labels), torch.tensor(trainer.stream.tasks_of_labels())[images.labels]
    among_all = mask_unseen(logits, len(seen)).argmax(dim=1) == slots
    own = torch.full_like(logits, -torch.inf)
    for task in range(4):
        columns = list(trainer.stream.columns(task))
        rows = torch.where(task_of == task)[0]
        own[rows[:, None], torch.tensor(columns)] = logits[rows[:, None], torch.tensor(columns)]
    told = own.argmax(dim=1) == slots
    table = trainer.history.per_task()
    for measure, right in (("class", among_all), ("task", told)):
        last = task_matrix(table, measure)[-1]
        assert last.tolist() == [right[task_of == task].double().mean().item() for task in range(4)]
    assert trainer.history.rows[-1]["accuracy"] == told.double().mean().item()
    summary = trainer.history.summary()
    assert (
        summary["task_final"] == np.mean(task_matrix(table, "task")[-1]) and summary["A_last"] >= summary["class_final"]
    )
    matrix = task_matrix(table, "task")
    assert np.isnan(matrix[np.triu_indices(4, 1)]).all() and not np.isnan(matrix[np.tril_indices(4)]).any()


def test_a_method_that_uses_the_task_is_asked_task_by_task():
    run = build(Told, scenario="task-il", n_tasks=3, eval_period=-1)
    trainer = run.trainer
    images = trainer.evaluator.images
    x = trainer.transform.test(images.raw(torch.arange(len(images))))
    order = [label for task in trainer.stream.classes for label in task]
    Told.slot_of = {image.sum().item(): order.index(y) for image, y in zip(x, images.labels.tolist(), strict=True)}
    Told.tasks = []
    trainer.train()
    assert set(Told.tasks) == {0, 1, 2}
    table = trainer.history.per_task()
    assert (task_matrix(table, "task")[np.tril_indices(3)] == 1).all()
    assert (task_matrix(table, "class")[-1] < 1).any()
    assert trainer.history.summary()["A_last"] == 1


def test_a_run_of_tasks_leaves_its_matrices_and_goes_on_with_them(glyph_weights, tmp_path, capsys):
    words = ["--model", "er", *DIGITS, "--scenario", "task-il", "--backbone_path", str(glyph_weights)]
    assert main.main([*words, "--results", str(tmp_path / "runs")]) == 0
    folder = run_folder(tmp_path / "runs")
    table = pd.read_csv(folder / "per_task.csv")
    assert list(table) == ["samples_seen", "after_task", "measure", "task", "value"]
    assert len(table) == 2 * 3 * 3
    assert main.main(["report", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "task_final (%)" in said and "task_fwt" not in said and "tasks-seq-digits.png" in said


def test_in_si_blurry_nothing_is_measured_by_task():
    run = build("er", eval_period=-1)
    run.trainer.train()
    assert run.trainer.history.per_task().empty and np.isnan(run.trainer.history.summary()["task_final"])
    assert len(Patches().load(None, train=True)[1]) == run.trainer.stream.num_images()
