"""Metrics against values computed by hand, and the evaluations behind them."""

from __future__ import annotations

import contextlib
import csv
import math

import numpy as np
import pytest
import torch

from utils.classes import SeenClasses
from utils.data.images import ImageSet, Transform
from utils.training.evaluation import Evaluator, Scores
from utils.training.history import History
from utils.training.metrics import (
    GCL,
    backward_transfer,
    class_accuracy,
    class_incremental_summary,
    forgetting,
    gcl_summary,
    task_summary,
)

NAN = float("nan")


def table(*rows) -> list[np.ndarray]:
    return [np.array(row, dtype=float) for row in rows]


# Si-Blurry


def test_class_accuracy_of_empty_and_of_perfect_classes():
    value = class_accuracy(torch.tensor([0.0, 3.0, 4.0]), torch.tensor([0.0, 4.0, 4.0]))
    assert value[0] == 0
    assert value.tolist() == pytest.approx([0, 3 / 4.00001, 4 / 4.00001], rel=1e-6)
    assert value[2] < 1


def test_forgetting_takes_the_best_before_the_last_task():
    # class 0: 0.9 -> 0.6; class 1: 0.5 -> 0.7, a gain; class 2 was never right before; class 3 came last
    assert forgetting(table([0.9, 0.5, 0, 0], [0.8, 0.4, 0, 0], [0.6, 0.7, 0.3, 0.9])) == pytest.approx((0.3 - 0.2) / 2)


def test_backward_transfer_starts_at_the_first_value_above_zero():
    # class 0: 0.9 -> 0.6; class 1: first above zero at the second task, 0.4 -> 0.7
    rows = table([0.9, 0, 0, 0], [0.95, 0.4, 0, 0], [0.6, 0.7, 0.3, 0.9])
    assert backward_transfer(rows) == pytest.approx((-0.3 + 0.3) / 2)
    assert backward_transfer(table([0.2, 0], [0.5, 0.4], [0.4, 0.1])) == pytest.approx((0.2 - 0.3) / 2)


@pytest.mark.parametrize("function", [forgetting, backward_transfer])
@pytest.mark.parametrize("rows", [[], [[0.5, 0.5]], [[0, 0], [0.5, 0.5]]], ids=["none", "one task", "nothing known"])
def test_undefined_values_are_nan_without_a_warning(function, rows, recwarn):
    assert math.isnan(function(table(*rows)))
    assert not recwarn.list


def test_summary():
    rows = table([0.8, 0], [0.6, 0.4])
    assert gcl_summary([0.1, 0.2, 0.45], [0.8, 0.5], rows) == pytest.approx(
        {"A_auc": 0.25, "A_avg": 0.65, "A_last": 0.5, "F_last": 0.2, "BWT": -0.2}
    )


def test_summary_leaves_out_a_task_without_a_value():
    summary = gcl_summary([], [NAN, 0.4, 0.6], table([0, 0], [0.4, 0], [0.6, 0.6]))
    assert math.isnan(summary["A_auc"])
    assert (summary["A_avg"], summary["A_last"]) == (pytest.approx(0.5), 0.6)


def test_summary_of_nothing():
    assert all(math.isnan(value) for value in gcl_summary([], [], []).values())


# Class-incremental


ACCURACY = np.array([[90.0, 10.0, 5.0], [70.0, 80.0, 15.0], [60.0, 85.0, 75.0]])


def test_class_incremental_summary():
    values = class_incremental_summary(ACCURACY, np.array([10.0, 12.0, 11.0]))
    assert values == pytest.approx(
        {
            "final_average": (60 + 85 + 75) / 3,
            "bwt": ((60 - 90) + (85 - 80)) / 2,
            "forgetting": ((90 - 60) + 0) / 2,  # the best of task 1 is its last value
            "fwt": ((10 - 12) + (15 - 11)) / 2,
        }
    )


def test_class_incremental_summary_leaves_its_input_alone():
    before = ACCURACY.copy()
    class_incremental_summary(ACCURACY)
    np.testing.assert_array_equal(ACCURACY, before)


def test_class_incremental_summary_of_one_task():
    values = class_incremental_summary(np.array([[40.0]]), np.array([10.0]))
    assert values["final_average"] == 40
    assert all(math.isnan(values[name]) for name in ("bwt", "forgetting", "fwt"))


def test_task_summary():
    values = task_summary(ACCURACY, np.array([10.0, 12.0, 11.0]))
    assert values == pytest.approx(
        {
            "final": (60 + 85 + 75) / 3,
            "learned": (90 + 80 + 75) / 3,
            "forgetting": ((90 - 60) + (80 - 85)) / 2,  # a gain counts
            "bwt": ((60 - 90) + (85 - 80)) / 2,
            "fwt": ((10 - 12) + (15 - 11)) / 2,
        }
    )
    assert task_summary(np.array([[50.0, 40.0], [45.0, 60.0]]))["forgetting"] == 5
    assert task_summary(np.array([[50.0, 90.0], [70.0, 60.0]]))["forgetting"] == -20


def test_task_summary_of_what_is_undefined():
    assert math.isnan(task_summary(ACCURACY)["fwt"])
    values = task_summary(np.array([[40.0]]), np.array([10.0]))
    assert values["final"] == values["learned"] == 40
    assert all(math.isnan(values[name]) for name in ("forgetting", "bwt", "fwt"))


# One evaluation


class Plain:
    mean = std = (0.5, 0.5, 0.5)


class Reader(torch.nn.Module):
    """Reads its logits off the image: pixel k of the first row is the logit of slot k. Keeps batch sizes."""

    has_fixed_features = tells_tasks_apart = False

    def __init__(self):
        super().__init__()
        self.shown = []

    autocast = contextlib.nullcontext

    def why_not_finite(self):
        return None

    def forward(self, x):
        assert not self.training
        self.shown.append(len(x))
        return x[:, 0, 0, :4]


def evaluator(pixels, labels, batch_size=2, mask="seen") -> Evaluator:
    images = np.zeros((len(labels), 3, 8, 8), dtype=np.uint8)
    images[:, 0, 0, :4] = pixels
    cpu = torch.device("cpu")
    return Evaluator(ImageSet(images, np.array(labels), cpu), Transform(Plain(), cpu, 0, 8), batch_size, mask)


def seen_classes(*labels) -> SeenClasses:
    seen = SeenClasses(4)
    seen.add(torch.tensor(labels, dtype=torch.int64))
    return seen


PIXELS = [[9, 0, 0, 0], [0, 9, 0, 0], [0, 9, 0, 200], [9, 0, 0, 0], [0, 0, 0, 9]]
LABELS = [2, 0, 0, 2, 1]  # slots for the order 2, 0: 0, 1, 1, 0; class 1 is not met


def test_only_test_images_of_classes_met_count():
    model = Reader()
    accuracy = evaluator(PIXELS, LABELS)(model, seen_classes(2, 0))
    assert accuracy.average == 1.0
    assert accuracy.per_class.tolist() == pytest.approx([2 / 2.00001, 2 / 2.00001, 0, 0])
    assert model.shown == [2, 2] and model.training


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_is_left_in_the_mode_that_it_was_in(mode):
    model = Reader().train(mode)
    evaluator(PIXELS, LABELS)(model, seen_classes(2, 0))
    assert model.training == mode


def test_without_the_mask_classes_not_met_compete():
    accuracy = evaluator(PIXELS, LABELS, mask="none")(Reader(), seen_classes(2, 0))
    assert accuracy.average == 0.75
    assert accuracy.per_class.tolist() == pytest.approx([2 / 2.00001, 1 / 2.00001, 0, 0])


def test_average_is_over_images_not_over_classes():
    pixels = [[9, 0, 0, 0]] * 5
    assert evaluator(pixels, [0, 0, 0, 0, 1])(Reader(), seen_classes(0, 1)).average == 0.8


def test_one_logit_that_is_no_number_says_nothing_of_the_image():
    class Broken(Reader):
        def forward(self, x):
            return super().forward(x).masked_fill(torch.tensor([False, True, False, False]), torch.nan)

    with pytest.raises(FloatingPointError, match="the logits of 4 of 4 test images are not finite numbers$"):
        evaluator(PIXELS, LABELS)(Broken(), seen_classes(2, 0))


def test_no_class_met_gives_no_value():
    accuracy = evaluator(PIXELS, LABELS)(Reader(), SeenClasses(4))
    assert math.isnan(accuracy.average) and accuracy.per_class.tolist() == [0, 0, 0, 0]


# The record of a run


def test_of_several_passes_over_a_task_the_last_counts():
    history = History()
    for met, value in ((10, 0.2), (20, 0.6)):
        history.add_task_end(met, 0, Scores(value, torch.tensor([value, 0.0])), [5], loss=1.0, classes_exposed=1)
    history.add_task_end(30, 1, Scores(0.5, torch.tensor([0.4, 0.7])), [5, 3], loss=1.0, classes_exposed=2)
    assert {name: history.summary()[name] for name in GCL} == pytest.approx(
        {"A_auc": NAN, "A_avg": 0.55, "A_last": 0.5, "F_last": 0.2, "BWT": -0.2}, nan_ok=True
    )
    rows = history.per_class()[["task", "label", "slot"]].values.tolist()
    assert rows == [[0, 5, 0], [0, 5, 0], [1, 5, 0], [1, 3, 1]]
    assert history.metrics()["accuracy"].tolist() == [0.2, 0.6, 0.5]


def test_class_names_stand_beside_labels_whatever_they_are(tmp_path):
    names = ["a, b", 'say "x"', "two\nlines", "großer Hund 大きな犬", "007", "NA", "caf\udce9", "cr\rlf"]
    history = History()
    for known in (None, names):
        history.names = known
        history.add_task_end(9, 0, Scores(0.5, torch.full((8,), 0.5)), [*range(8)][::-1], loss=0.0, classes_exposed=8)
        history.per_class().to_csv(tmp_path / "per_class.csv", index=False)
        with open(tmp_path / "per_class.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["label"] for row in rows[-8:]] == [str(label) for label in range(7, -1, -1)]
        texts = [name.replace("\udce9", "\\udce9").replace("\r", "\\r") for name in names]
        written = texts if known else [str(label) for label in range(8)]
        assert [row["name"] for row in rows[-8:]] == written[::-1]
    history.load_state_dict(history.state_dict())
    assert history.names == names


def test_run_without_evaluation_has_a_record_but_no_accuracy():
    history = History()
    history.add_task_end(10, 0, None, [1], loss=0.5, classes_exposed=1, seconds=0.0)
    assert all(math.isnan(value) for value in history.summary().values())
    assert history.metrics()["loss"].tolist() == [0.5] and history.metrics()["accuracy"].isna().all()


def test_measures_of_tasks_by_hand():
    matrix = np.array([[0.8, NAN, NAN], [0.6, 0.9, NAN], [0.7, 0.5, 1.0]])
    found = task_summary(matrix)
    assert found["final"] == pytest.approx(2.2 / 3) and found["learned"] == pytest.approx(0.9)
    assert found["forgetting"] == pytest.approx((0.1 + 0.4) / 2) and found["bwt"] == pytest.approx(-0.25)
    assert np.isnan(found["fwt"])
    ahead = np.array([[0.8, 0.2, 0.1], [0.6, 0.9, 0.3], [0.7, 0.5, 1.0]])
    assert task_summary(ahead, np.array([0.1, 0.1, 0.1]))["fwt"] == pytest.approx((0.1 + 0.2) / 2)
    assert task_summary(np.array([[0.2, NAN], [0.6, 0.5]]))["forgetting"] == pytest.approx(-0.4)  # a gain
    one = task_summary(np.array([[0.5]]))
    assert (one["final"], one["learned"]) == (0.5, 0.5) and np.isnan([one["forgetting"], one["bwt"]]).all()


def test_a_task_without_test_images_does_not_count():
    found = task_summary(np.array([[0.6, NAN, NAN], [0.8, NAN, NAN], [0.4, NAN, 1.0]]))
    assert found["final"] == pytest.approx(0.7) and found["forgetting"] == pytest.approx(0.4)
    assert np.isnan(task_summary(np.full((2, 2), NAN))["final"])
