"""SLCA: the online slow learner step by step, and the alignment of its classifier on drawn features."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator

from models.slca import Slca, SlcaArgs, align_classifier, draw_epoch, factor, shifted_means

from . import schedule
from .goldens import DEVICE, Case
from .replay import Recorder, load, load_vit, make_info


def check(case: Case, folder: Path) -> None:
    if "schedule" in case.settings["config"]:
        check_online(case)
    else:
        check_alignment(case)


def check_online(case: Case) -> None:
    settings = case.settings
    lr = {group["params"]: group["lr"] for group in settings["optimiser"]["groups"]}
    case.expect("config.lr", lr["backbone"])
    args = SlcaArgs(lr=lr["backbone"], lr_head=lr["head"], train_mask=schedule.train_mask(case))
    model = Slca(load_vit(case), make_info(case, schedule.num_images(case)), args)
    load(model.head, case.below("head/"))
    recorder = Recorder(model)
    recorder.watch_head(model.head)
    trainer = schedule.replay(case, model, recorder)
    schedule.check_steps(case, recorder, trainer.seen.labels, args.train_mask)
    schedule.check_evaluations(case, recorder)
    state = model.backbone.state_dict() | {f"head.{name}": value for name, value in model.head.state_dict().items()}
    schedule.check_final(case, state, {})


def check_alignment(case: Case) -> None:
    config, given, tolerance = case.settings["config"], case.settings["optimiser"], case.settings["tolerances"]
    assert given["name"] == "SGD" and given["schedule"].startswith("cosine over ca_epochs, stepped per epoch")
    sizes, num_epochs = config["task_sizes"], config["ca_epochs"]
    task_of_class = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(DEVICE)
    case.expect("config.feature_dim", case["stats/mean"].shape[1])
    means = shifted_means(case["stats/mean"].to(DEVICE), task_of_class, len(sizes) - 1)
    case.close("stats/shifted_mean", means, tolerance["final"])

    x, y = case["batch/x"].to(DEVICE), case["batch/y"].to(DEVICE)
    weight, bias = case["head/weight"].to(DEVICE), case["head/bias"].to(DEVICE)
    case.close("batch/logits0", F.linear(x[0], weight, bias), tolerance["final"])
    batches = list(zip(x, y, strict=True))
    epochs = [batches[k : k + sum(sizes)] for k in range(0, len(batches), sum(sizes))]
    assert len(epochs) == num_epochs
    losses = align_classifier(
        weight,
        bias,
        epochs,
        sizes,
        num_epochs,
        given["lr"],
        config["logit_norm"] or 0,
        given["momentum"],
        given["weight_decay"],
    )
    case.close("batch/loss", torch.stack(losses), tolerance["loss"])
    case.close("final/head.weight", weight, tolerance["final"])
    case.close("final/head.bias", bias, tolerance["final"])
    check_draws(case, means)


def check_draws(case: Case, means: torch.Tensor) -> None:
    """Our own draws come in batches like the case's, and follow the same distributions: six standard errors."""
    covariance = case["stats/cov"].to(DEVICE)
    generator = Generator(DEVICE).manual_seed(case.settings["config"]["seed"])
    factors = torch.stack([factor(matrix) for matrix in covariance])
    epochs = [draw_epoch(means, factors, generator) for _ in range(20)]
    shape = [len(epochs[0]), *epochs[0][0][0].shape]
    assert shape[1:] == list(case["batch/x"].shape[1:])
    assert shape[0] * case.settings["config"]["ca_epochs"] == len(case["batch/x"])
    x = torch.cat([features for batches in epochs for features, _ in batches])
    y = torch.cat([slots for batches in epochs for _, slots in batches])
    for slot in range(len(means)):
        rows, variances = x[y == slot], covariance[slot].diagonal()
        error = (rows.mean(dim=0) - means[slot]) / (variances / len(rows)).sqrt()
        assert error.abs().max() < 6, f"{case.name}: drawn means of class {slot} are off"
        spread = variances.outer(variances) + covariance[slot].square()
        error = (torch.cov(rows.T) - covariance[slot]) / (spread / len(rows)).sqrt()
        assert error.abs().max() < 6, f"{case.name}: drawn covariance of class {slot} is off"
