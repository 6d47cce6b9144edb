"""Tasks that are told: their columns, what a session gives, and accuracy with and without the task."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import main
from models.er import Er
from tests.tiny import (
    DIGITS,
    EVERY_METHOD,
    NEEDED,
    Patches,
    assert_same_weights,
    build,
    rows_of,
    run_folder,
)
from utils import plan as plans
from utils.classes import mask_unseen
from utils.errors import UsageError
from utils.registry import METHODS
from utils.runs import plots
from utils.runs.reading import read_run
from utils.runs.summary import OWN_DIGEST, fields_sha256
from utils.streams import make_stream, own_options
from utils.training.assembly import final_slots
from utils.training.loop import Listener
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


class Knowing(Er):
    """Knows the answer from the start."""

    def forward(self, x, fixed=None):
        return torch.eye(12)[[self.slot_of[image.sum().item()] for image in x]]

    slot_of: dict = {}
    has_fixed_features = False

    def loss(self, batch):
        return self.head(torch.zeros(1, self.backbone.num_features)).sum()


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


# Which tasks come, and what is measured


def stream_of(scenario: str, **given):
    return build("er", scenario=scenario, n_tasks=4, **given).trainer.stream


@pytest.mark.parametrize("scenario", ["class-il", "task-il"])
def test_some_tasks_of_the_split_come_alone(scenario):
    whole, part = stream_of(scenario), stream_of(scenario, first_task=1, last_task=2)
    assert part.classes == whole.classes[1:3] and all(map(torch.equal, part.tasks, whole.tasks[1:3]))
    assert (part.num_tasks, part.num_outputs, part.columns(0), part.columns(1)) == (2, 6, range(3), range(3, 6))
    tasks = torch.tensor(part.tasks_of_labels())
    assert [torch.where(tasks == k)[0].tolist() for k in (0, 1)] == [sorted(own) for own in part.classes]
    assert (tasks == -1).sum() == 6


def test_a_run_of_some_tasks_has_the_columns_of_their_classes():
    run = build("er", scenario="task-il", n_tasks=4, first_task=1, eval_period=-1)
    assert run.info.num_tasks == 3 and run.info.num_classes == run.model.head.out_features == 9
    run.trainer.train()
    matrix = task_matrix(run.trainer.history.per_task(), "task")
    assert matrix.shape == (3, 3) and not np.isnan(matrix[-1]).any()
    assert run.trainer.images_met == sum(map(len, run.trainer.stream.tasks)) == 9 * 16


@pytest.mark.parametrize("scenario", ["class-il", "task-il"])
def test_some_classes_come_drawn_by_the_stream_seed(scenario):
    drawn = [stream_of(scenario, classes=8, seed=seed) for seed in (1, 1, 2)]
    classes = [[label for task in stream.classes for label in task] for stream in drawn]
    assert classes[0] == classes[1] != classes[2] and all(len({*own}) == 8 for own in classes)
    assert drawn[0].num_outputs == 8 and drawn[0].num_images() == 8 * 16
    natural = plans.make(
        {"model": "er", "dataset": "seq-digits", "scenario": scenario, "class_order": "natural", "classes": 6}
    ).with_seed(1)
    stream = make_stream(natural.run, own_options(natural, Patches(), list(range(12))), torch.arange(12), 12)
    order = [label for task in stream.classes for label in task]
    assert len(order) == 6 and order == sorted(order)


def test_domains_with_some_classes_and_some_tasks():
    given = {"model": "er", "dataset": "perm-digits", "n_tasks": 5, "classes": 3, "first_task": 2, "last_task": 3}
    plan = plans.make(given).with_seed(1)
    targets = torch.arange(50).repeat(2)
    stream = make_stream(plan.run, own_options(plan, Patches()), targets, 10)
    assert stream.num_tasks == 2 and stream.num_outputs == 3 and stream.columns(1) == range(3)
    (classes,) = {tuple(stream.task_classes(task)) for task in (0, 1)}
    for task in (0, 1):
        assert sorted(targets[stream.tasks[task]].tolist()) == sorted([10 * (2 + task) + y for y in classes] * 2)
    tasks = stream.tasks_of_labels()
    assert [label for label, task in enumerate(tasks) if task == 1] == [30 + label for label in classes]


def test_plain_inputs_are_the_pixels():
    run = build("er", scenario="class-il", inputs="plain")
    transform, raw = run.trainer.transform, run.trainer.images.raw(torch.arange(8))
    for x in (transform.train(raw), transform.test(raw), run.info.augment(raw), run.info.plain(raw)):
        assert torch.equal(x, raw.float() / 255)
    usual = build("er", scenario="class-il").trainer.transform
    assert not torch.equal(usual.train(raw), raw.float() / 255) and usual.test(raw).min() < 0


def test_evaluation_after_the_last_pass_alone():
    ends = {}
    for passes in ("all", "last"):
        run = build("er", scenario="task-il", n_tasks=3, n_epochs=2, eval_period=-1, eval_passes=passes)
        run.trainer.train()
        ends[passes] = [(row["task"], row["samples_seen"], row["accuracy"]) for row in run.trainer.history.rows]
    assert len(ends["all"]) == 6 and ends["last"] == ends["all"][1::2]


@EVERY_METHOD
@pytest.mark.parametrize("scenario", ["class-il", "task-il"])
def test_tasks_to_come_are_measured_and_change_nothing(case, scenario, products):
    name, host = case
    if scenario not in METHODS.load(name).scenarios:
        pytest.skip(f"{name} runs on other streams")
    own = NEEDED.get(name, {}) | ({"host": host, **NEEDED.get(host, {})} if host else {})
    own |= products if name == "mepo" else {}
    runs = []
    for ahead in (False, True):
        runs.append(build(name, own, scenario=scenario, eval_period=-1, eval_ahead=ahead))
        runs[-1].trainer.train()
    assert_same_weights(*(dict(run.model.named_parameters()) for run in runs))
    tables = [run.trainer.history.per_task() for run in runs]
    alone, ahead = (task_matrix(table, "task") for table in tables)
    lower = np.tril_indices(3)
    assert np.array_equal(alone[lower], ahead[lower]) and not np.isnan(ahead).any()
    assert np.array_equal(task_matrix(tables[0], "class"), task_matrix(tables[1], "class"), equal_nan=True)
    untrained = np.array(runs[1].trainer.history.untrained)
    summary = runs[1].trainer.history.summary()
    assert summary["task_fwt"] == pytest.approx((np.diag(ahead, 1) - untrained[1:]).mean())
    assert np.isnan(runs[0].trainer.history.summary()["task_fwt"])


def test_a_task_to_come_is_measured_on_the_columns_that_it_will_have():
    """A network that knows every class from the start is right about every task, before the first image too."""
    for scenario in ("class-il", "task-il"):
        run = build(Knowing, scenario=scenario, n_tasks=4, eval_period=-1, eval_ahead=True)
        trainer = run.trainer
        images = trainer.evaluator.images
        slots = final_slots(trainer.stream, trainer.images.labels)[images.labels]
        x = trainer.transform.test(images.raw(torch.arange(len(images))))
        Knowing.slot_of = {image.sum().item(): slot for image, slot in zip(x, slots.tolist(), strict=True)}
        trainer.train()
        assert trainer.history.untrained == [1.0] * 4
        assert (task_matrix(trainer.history.per_task(), "task") == 1).all()
        assert torch.equal(trainer.seen.slots(images.labels), slots)


@pytest.mark.parametrize(("scenario", "trainable"), [("class-il", "head"), ("task-il", "all")])
def test_the_images_trained_on_are_measured_and_change_nothing(scenario, trainable):
    runs = []
    for train in (False, True):
        runs.append(build("er", {"trainable": trainable}, scenario=scenario, eval_train=train))
        runs[-1].trainer.train()
    assert_same_weights(*(dict(run.model.named_parameters()) for run in runs))
    alone, both = (run.trainer for run in runs)
    tables = [trainer.history.metrics() for trainer in (alone, both)]
    assert "train_accuracy" not in tables[0] and np.isnan(alone.history.summary()["A_train"])
    assert list(tables[1])[4:6] == ["accuracy", "train_accuracy"] and tables[1]["train_accuracy"].notna().all()
    assert tables[1].drop(columns=["train_accuracy", "seconds"]).equals(tables[0].drop(columns="seconds"))
    assert both.history.per_task().equals(alone.history.per_task())
    images = both.images
    with torch.no_grad():
        logits = both.model.eval()(both.transform.test(images.raw(torch.arange(len(images)))))
    slots = both.seen.slots(images.labels)
    if scenario == "task-il":
        task_of = torch.tensor(both.stream.tasks_of_labels())
        own = task_of[images.labels][:, None] == task_of[torch.tensor(both.seen.labels)]
        logits = logits.masked_fill(~own, -torch.inf)
    expected = (logits.argmax(dim=1) == slots).double().mean().item()
    assert both.history.summary()["A_train"] == tables[1]["train_accuracy"].iloc[-1] == pytest.approx(expected)


def test_only_images_of_classes_met_count_as_trained_on():
    """A network that knows every class from the start."""
    run = build(Knowing, scenario="class-il", n_tasks=4, eval_period=-1, eval_train=True, validation=0.25)
    trainer = run.trainer
    images = trainer.images
    Knowing.slot_of = {}
    for part in (images, trainer.evaluator.images):
        slots = final_slots(trainer.stream, images.labels)[part.labels].tolist()
        x = trainer.transform.test(part.raw(torch.arange(len(part))))
        Knowing.slot_of |= {image.sum().item(): slot for image, slot in zip(x, slots, strict=True)}
    trainer.train()
    assert [row["train_accuracy"] for row in trainer.history.rows] == [1.0] * 4


def test_a_run_goes_on_with_what_it_measured_of_the_images_trained_on():
    given = {"scenario": "class-il", "eval_train": True}
    whole, states = build("er", **given), []

    class Ends(Listener):
        def task_ended(self, trainer):
            states.append(copy.deepcopy(trainer.state_dict()))

    whole.trainer.listeners = [Ends()]
    whole.trainer.train()
    later = build("er", **given)
    later.trainer.load_state_dict(states[0])
    later.trainer.train()
    assert rows_of(later.trainer) == rows_of(whole.trainer)


def test_a_run_says_what_it_measured_of_the_images_trained_on(glyph_weights, tmp_path):
    words = ["--model", "er", "--dataset", "seq-digits", "--device", "cpu", "--backbone_path", str(glyph_weights)]
    words += ["--scenario", "class-il", "--classes", "4", "--n_tasks", "2", "--n_iter", "2"]
    assert main.main([*words, "--eval_train", "--results", str(tmp_path / "runs")]) == 0
    folder = run_folder(tmp_path / "runs")
    ended = read_run(folder).ended
    assert "A_train" not in replace(ended, A_train=float("nan")).as_json({})  # as of a run without the option
    assert ended.A_train == pd.read_csv(folder / "metrics.csv")["train_accuracy"].iloc[-1]
    summary = json.loads((folder / "summary.json").read_text()) | {"A_train": 0.123}
    (folder / "summary.json").write_text(json.dumps(summary | {OWN_DIGEST: fields_sha256(summary)}))
    with pytest.raises(UsageError, match=r"A_train is 0.123000, by the run's tables it is"):
        read_run(folder)


def test_domains_to_come_are_measured(tmp_path, capsys):
    words = ["--model", "finetune", "--optimizer", "sgd", "--dataset", "perm-digits", "--n_tasks", "3"]
    words += ["--device", "cpu", "--eval_ahead", "--results", str(tmp_path / "runs")]
    assert main.main(words) == 0
    table = pd.read_csv(run_folder(tmp_path / "runs") / "per_task.csv")
    assert len(table[table["after_task"] == -1]) == 3 and len(table) == 3 + 2 * 3 * 3
    assert main.main(["report", str(tmp_path / "runs")]) == 0
    assert "task_fwt (%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--classes 5", "--classes 5: only streams of whole tasks take it"),
        ("--eval_ahead", "--eval_ahead True: only streams of whole tasks take it"),
        ("--eval_train", "--eval_train True: only streams of whole tasks take it"),
        ("--inputs plain --scenario si-blurry", "--inputs plain: only streams of whole tasks"),
        ("--scenario class-il --n 30", "--n: has no effect with --scenario class-il, only with --scenario si-blurry"),
        ("--scenario task-il --no-varying", "--varying: has no effect with --scenario task-il"),
        ("--model supervised --n_tasks 3", "--n_tasks: has no effect with --scenario shuffled, only with --scenario"),
        ("--model mepo_meta --n_epochs 3", "--n_epochs: has no effect with --scenario episodes, only with --scenario"),
        ("--scenario class-il --classes 11", "--classes 11: there are 10"),
        ("--scenario class-il --classes 4", "--n_tasks 5: a class-incremental split of 4 classes has 1 ... 4"),
        ("--scenario class-il --first_task 5", "--first_task 5: the stream has tasks 0 ... 4"),
        ("--scenario task-il --last_task 5", "--first_task 0 --last_task 5: the stream has tasks 0 ... 4"),
        ("--scenario task-il --first_task 3 --last_task 2", "--first_task 3 --last_task 2: the stream has tasks"),
    ],
)
def test_options_of_tasks_that_are_refused(words, reason, tmp_path, capsys):
    for more in ([], ["--dry_run"]):
        run = ["--model", "er", "--dataset", "seq-digits", "--results", str(tmp_path / "runs"), *words.split(), *more]
        assert main.main(run) == 2
        assert capsys.readouterr().err.startswith(f"error: {reason}")
    assert not (tmp_path / "runs").exists()


def test_domains_have_no_order_of_classes(capsys):
    assert main.main(["--model", "er", "--dataset", "perm-digits", "--class_order", "natural"]) == 2
    assert "the tasks of --scenario domain-il share their classes" in capsys.readouterr().err


def test_methods_of_one_thing_per_task_count_the_tasks_that_come():
    given = {"model": "dualprompt", "dataset": "seq-digits", "n_tasks": 5, "scenario": "class-il", "first_task": 2}
    assert plans.make(given).method_args.step_num == 3


def test_only_streams_of_whole_tasks_have_a_section_of_tasks(capsys):
    for scenario, there in (("si-blurry", False), ("class-il", True)):
        plan = plans.make({"model": "er", "dataset": "seq-digits", "scenario": scenario})
        assert ("tasks" in plan.settings()) is there and "class_order" not in plan.settings()["run"]
        assert main.main(["--model", "er", "--scenario", scenario, "--help"]) == 0
        assert ("--eval_ahead" in capsys.readouterr().out) is there


def test_the_title_of_one_small_matrix_fits_its_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    title = "Accuracy on each task, the task being told, perm-digits, domain-il"
    plots.draw_tasks(tmp_path / "tasks.png", {"bcl": np.eye(2)}, title)
    (figure,) = drawn
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
