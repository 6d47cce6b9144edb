"""The loop's evaluations and the metrics made from them, with a lookup table in place of a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.base import ContinualModel
from utils.data.images import ImageSet
from utils.training.evaluation import Evaluator
from utils.training.loop import Trainer
from utils.training.metrics import class_incremental_summary

from .check_stream import make_si_blurry
from .goldens import Case
from .replay import Unchanged

CPU = torch.device("cpu")  # no network here
UNDEFINED = -999  # sentinel of the references


class Table(ContinualModel):
    """Logits of the k-th evaluation; an image is the number of its row."""

    def __init__(self, case: Case):
        super().__init__(nn.Identity(), None, None)
        self.case, self.evaluation = case, -1

    def observe(self, batch) -> Tensor:
        return torch.zeros(())

    def forward(self, x: Tensor, fixed=None) -> Tensor:
        return self.case[f"eval{self.evaluation}/logits"][x.flatten().long()]


def numbered(labels: Tensor) -> ImageSet:
    return ImageSet(np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1, 1), labels.numpy(), CPU)


def check(case: Case, folder) -> None:
    config, tolerance = case.settings["config"], case.settings["tolerance"]
    stream = make_si_blurry(config, case["targets"], config["num_classes"])
    model = Table(case)
    evaluator = Evaluator(numbered(case["test_targets"]), Unchanged(), batch_size=2 * config["batch"])
    accuracies = []

    def evaluate(model: Table, seen):
        model.evaluation += 1
        accuracies.append(evaluator(model, seen))
        return accuracies[-1]

    trainer = Trainer(
        model,
        stream,
        numbered(case["targets"]),
        Unchanged(),
        evaluate,
        online_iter=config.get("online_iter", 1),
        eval_period=config["eval_period"],
    )
    history = trainer.train()

    rows = history.rows
    case.equal("eval_kind", [["anytime", "task_end"].index(row["kind"]) for row in rows])
    case.equal("eval_seen", [row["samples_seen"] for row in rows])
    case.equal("eval_n_exposed", [row["classes_exposed"] for row in rows])
    nominal = [row["nominal"] for row in rows if row["kind"] == "anytime"]
    case.equal("eval_nominal", torch.tensor(nominal, dtype=torch.int64))
    case.equal("exposed_order", trainer.seen.labels)
    for k, accuracy in enumerate(accuracies):
        case.close(f"eval{k}/avg_acc", accuracy.average, tolerance)
        case.close(f"eval{k}/cls_acc", accuracy.per_class, tolerance)
        case.close_to(f"accuracy in row {k} of the history", rows[k]["accuracy"], case[f"eval{k}/avg_acc"], tolerance)
    summary = history.summary()
    for name in case.below("result/"):
        ours = summary["BWT" if name == "BWT_last" else name]
        case.close_to(f"result/{name}", marked(ours), case[f"result/{name}"], tolerance)
    for kind in ("cil", "til"):
        if f"classic/{kind}/R" in case:
            check_classic(case, f"classic/{kind}/", tolerance)


def check_classic(case: Case, prefix: str, tolerance) -> None:
    table, untrained = case[f"{prefix}R"].numpy(), case[f"{prefix}random"].numpy()
    summary = class_incremental_summary(table, untrained)
    lower = class_incremental_summary(np.tril(table), untrained)  # nothing known of tasks before they were trained
    # GEM divides by T where Mammoth divides by T - 1, and averages forward transfer in float32: the transfer to each
    # task comes from the pair of it and the task before.
    pairs = [slice(t - 1, t + 1) for t in range(1, len(table))]
    transfer = [class_incremental_summary(table[pair, pair], untrained[pair])["fwt"] for pair in pairs]
    ours = {
        "final_average": summary["final_average"],
        "gem_final": summary["final_average"],
        "mammoth_bwt": summary["bwt"],
        "mammoth_fwt": summary["fwt"],
        "mammoth_forgetting_full": summary["forgetting"],
        "mammoth_forgetting_lower": lower["forgetting"],
        "gem_bwt": summary["bwt"] * len(pairs) / len(table) if pairs else 0.0,
        "gem_fwt": torch.tensor([0.0, *transfer], dtype=torch.float32).mean(),
    }
    for name, value in ours.items():
        case.close_to(prefix + name, marked(value), case[prefix + name], tolerance)


def marked(value) -> Tensor:
    """Our value, with the references' sentinel where it is undefined."""
    return torch.as_tensor(value, dtype=torch.float64).nan_to_num(nan=UNDEFINED)
