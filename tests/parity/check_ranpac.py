"""RanPAC at feature level: statistics, chosen ridge, weights and logits after each task and in its midst."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from backbone.heads import RIDGES, RandomRidge
from models.ranpac import RanPacArgs

from .goldens import DEVICE, Case


def check(case: Case, folder: Path) -> None:
    config, tolerances = case.settings["config"], case.settings["tolerances"]
    classifier, eval_x = make_classifier(case).to(DEVICE), case["eval/x"].to(DEVICE)
    case.expect("optimiser", None)  # features in, nothing is trained
    case.expect("config.peek", any(f"task{t}/peek_logits" in case for t in range(len(config["tasks"]))))
    for t, task in enumerate(config["tasks"]):
        for b, size in enumerate(task["batches"]):
            x, y = case[f"task{t}/batch{b}/x"].to(DEVICE), case[f"task{t}/batch{b}/y"].to(DEVICE)
            assert len(x) == size and set(y.tolist()) <= set(task["classes"])
            classifier.add(x, y)
            before = classifier.G.clone(), classifier.Q.clone(), len(classifier.rows)
            logits = classifier(eval_x)  # a look after every batch, which later numbers must not show
            assert torch.equal(classifier.G, before[0]) and torch.equal(classifier.Q, before[1])
            assert len(classifier.rows) == before[2]
            if b == 0 and f"task{t}/peek_logits" in case:
                case.close(f"task{t}/peek_weight", classifier.R.T, tolerances["weight"])
                case.close(f"task{t}/peek_logits", logits, tolerances["logits"])
        if classifier.search:
            errors = classifier.search_errors()[RIDGES.index(1.0) :]
            case.close(f"task{t}/val_mse", errors, tolerances["weight"])
        classifier.end_task()
        if classifier.search:
            case.equal(f"task{t}/ridge_exponent", round(math.log10(classifier.ridge)))
        case.close(f"task{t}/Q", classifier.Q, tolerances["Q"])
        case.close(f"task{t}/weight", classifier.R.T, tolerances["weight"])
        case.close(f"task{t}/eval_logits", classifier(eval_x), tolerances["logits"])
    case.close("final/G", classifier.G, tolerances["G"])


def make_classifier(case: Case) -> RandomRidge:
    config = case.settings["config"]
    size = config["M"] if config["use_RP"] else 0
    search = config["ridge"] == "search"
    ridge = RanPacArgs().rp_ridge if search else config["ridge"]
    classifier = RandomRidge(config["feature_dim"], size, config["num_classes"], ridge, search)
    if size:
        classifier.W_rand.copy_(case["method/W_rand"])
    return classifier
