"""What a run measured so far: the anytime clock, the task ends and the class accuracies behind the summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from utils.training.evaluation import Scores
from utils.training.metrics import MEASURES, gcl_summary, measures_of_tasks

METRIC_COLUMNS = ["kind", "samples_seen", "nominal", "task", "accuracy", "loss", "classes_exposed", "seconds"]
ERROR = "mse"  # one more column, behind the accuracy, where numbers are predicted
TRAIN = "train_accuracy"  # one more there, where the images trained on are evaluated, too


class _Texts:
    """What `make` says of each row of a list that only grows, asked once per row: a thousand tasks would else
    write half a million rows anew after each."""

    def __init__(self, make: Callable[[dict], str]):
        self._make = make
        self._made: list[str] = []

    def __call__(self, rows: list[dict]) -> list[str]:
        self._made += map(self._make, rows[len(self._made) :])
        return self._made


def _csv(table: pd.DataFrame, header: bool = False) -> str:
    return table.to_csv(index=False, header=header, lineterminator="\n")


class History:
    """Rows of `metrics.csv` and `per_class.csv`, and the summary made from them.

    names: of the classes by label, if anybody knows them. untrained: accuracy on each task before the first image, with
    the task told [T]; None where nobody asked.
    """

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self.untrained: list[float] | None = None
        self.rows: list[dict] = []
        self.class_rows: list[dict] = []  # one per evaluation at a task end: samples_seen, task, labels, accuracies
        self._forget_texts()

    def add_anytime(self, samples_seen: int, nominal: int, scores: Scores | None, **common: Any) -> None:
        """One anytime evaluation; `nominal` is the time stamp that the published curve uses (images)."""
        self._add("anytime", samples_seen, scores, nominal=nominal, **common)

    def add_task_end(
        self, samples_seen: int, task: int, scores: Scores | None, labels: list[int], **common: Any
    ) -> None:
        """The evaluation after one pass over a task; of several passes the last counts. labels: raw, in slot order."""
        self._add("task_end", samples_seen, scores, task=task, **common)
        if scores is not None:
            row = {"samples_seen": samples_seen, "task": task, "labels": [] if scores.is_error else list(labels)}
            self.class_rows.append(row | {"accuracy": scores.per_class.tolist(), "per_task": scores.per_task})

    def ended_at(self) -> int | None:
        """Images seen at the last evaluation, if it was one at a task end."""
        last: dict[str, Any] = self.rows[-1] if self.rows else {"kind": None}
        return last["samples_seen"] if last["kind"] == "task_end" else None

    def last_scores(self) -> Scores | None:
        """What the last evaluation at a task end gave."""
        is_error = ERROR in self.rows[-1]
        average = self.rows[-1][ERROR if is_error else "accuracy"]
        if average is None:
            return None
        last = self.class_rows[-1]
        per_class, per_task = torch.tensor(last["accuracy"]), last.get("per_task", {})
        return Scores(average, per_class, per_task, is_error, self.rows[-1].get(TRAIN))

    def last_measured(self) -> str:
        """The newest average in words; empty if there is none."""
        row: dict[str, Any] = self.rows[-1] if self.rows else {}
        if row.get(ERROR) is not None:
            return f"mean squared error {row[ERROR]:.4g}"
        return "" if row.get("accuracy") is None else f"accuracy {100 * row['accuracy']:.1f} %"

    def _add(self, kind: str, samples_seen: int, scores: Scores | None, **values: Any) -> None:
        average = None if scores is None else scores.average
        measured = (
            {"accuracy": average} if scores is None or not scores.is_error else {"accuracy": None, ERROR: average}
        )
        if scores is not None and scores.train is not None:
            measured[TRAIN] = scores.train
        self.rows.append({"kind": kind, "samples_seen": samples_seen} | measured | values)

    def summary(self) -> dict[str, float]:
        """MEASURES as fractions; NaN where undefined or never evaluated."""
        anytime = [row["accuracy"] for row in self.rows if row["kind"] == "anytime" and row["accuracy"] is not None]
        last_pass = {row["task"]: row for row in self.rows if row["kind"] == "task_end"}
        task_end = [row["accuracy"] for row in last_pass.values() if row["accuracy"] is not None]
        classes = {row["task"]: np.array(row["accuracy"]) for row in self.class_rows}
        found = gcl_summary(anytime, task_end, list(classes.values()))
        if last_pass:
            found["A_train"] = [*last_pass.values()][-1].get(TRAIN, float("nan"))
        return dict.fromkeys(MEASURES, float("nan")) | found | measures_of_tasks(self.per_task())

    def per_task(self) -> pd.DataFrame:
        """`per_task.csv`: the accuracy on each task at every task end, in long form (`Scores.per_task`); that of
        the untrained network is after task -1."""
        return self._of_tasks([self._before(), *self.class_rows])

    def _before(self) -> dict:
        """A row of the untrained network."""
        return {"samples_seen": 0, "task": -1, "per_task": {"task": self.untrained or ()}}

    def _of_tasks(self, class_rows: list[dict]) -> pd.DataFrame:
        rows = [
            (row["samples_seen"], row["task"], measure, task, value)
            for row in class_rows
            for measure, values in row.get("per_task", {}).items()
            for task, value in enumerate(values)
        ]
        return pd.DataFrame(rows, columns=["samples_seen", "after_task", "measure", "task", "value"])

    def metrics(self) -> pd.DataFrame:
        """`metrics.csv`."""
        columns = list(METRIC_COLUMNS)
        for extra in (ERROR, TRAIN):
            if any(extra in row for row in self.rows):
                columns.insert(columns.index("accuracy") + 1, extra)
        frame = pd.DataFrame(self.rows, columns=columns)
        return frame.astype({"nominal": "Int64", "task": "Int64"})

    def per_class(self) -> pd.DataFrame:
        """`per_class.csv`: one row per task end and class met. A class without a name is called by its label."""
        return self._of_classes(self.class_rows)

    def _of_classes(self, class_rows: list[dict]) -> pd.DataFrame:
        columns = ["samples_seen", "task", "label", "name", "slot", "accuracy"]
        rows = [
            (row["samples_seen"], row["task"], label, self._name(label), slot, row["accuracy"][slot])
            for row in class_rows
            for slot, label in enumerate(row["labels"])
        ]
        return pd.DataFrame(rows, columns=columns)

    def tables(self) -> dict[str, str]:
        """Text of `per_class.csv` and, where tasks are measured, of `per_task.csv`."""
        classes = _csv(self._of_classes([]), header=True) + "".join(self._class_lines(self.class_rows))
        lines = [_csv(self._of_tasks([self._before()])), *self._task_lines(self.class_rows)]
        if not any(lines):
            return {"per_class.csv": classes}
        return {"per_class.csv": classes, "per_task.csv": _csv(self._of_tasks([]), header=True) + "".join(lines)}

    def _forget_texts(self) -> None:
        self._json = _Texts(json.dumps)
        self._class_lines = _Texts(lambda row: _csv(self._of_classes([row])))
        self._task_lines = _Texts(lambda row: _csv(self._of_tasks([row])))

    def _name(self, label: int) -> str:
        if self.names is None:
            return str(label)
        # A folder may be called by bytes that are no text; and tables are written without quotes around \r.
        return self.names[label].replace("\r", "\\r").encode("utf-8", "backslashreplace").decode()

    def state_dict(self) -> dict:
        """One text, which is made far faster than thousands of rows are packed one by one."""
        classes = f"[{', '.join(self._json(self.class_rows))}]"
        return {"text": f"[{json.dumps(self.rows)}, {classes}, {json.dumps(self.untrained)}]"}

    def load_state_dict(self, state: dict) -> None:
        """Older versions kept the rows as they are."""
        rows: list = json.loads(state["text"]) if "text" in state else [state["rows"], state["class_rows"]]
        (self.rows, self.class_rows), self.untrained = map(list, rows[:2]), rows[2] if len(rows) > 2 else None
        self._forget_texts()
        self.summary(), self.metrics(), self.per_class()  # raises something for rows that are none
