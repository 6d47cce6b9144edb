"""MePo: the alignment, the covariance stage, the meta stage, and DualPrompt trained with alignment."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import models.mepo
import models.mepo_cov
from models.dualprompt import DualPromptArgs
from models.mepo import Mepo, MepoArgs
from models.mepo_cov import MepoCov, MepoCovArgs
from models.mepo_meta import MepoMeta, MepoMetaArgs
from utils.streams.episodes import Episodes

from .check_dualprompt import check_trainable, make_args, watch, word
from .goldens import DEVICE, NUMBER, Case
from .replay import Recorded, consecutive, load, load_vit, make_info, make_vit, set_optimizer, train


def check_align(case: Case, folder: Path) -> None:
    numbers = re.search(rf"atol {NUMBER} \+ {NUMBER} of the largest magnitude", case.settings["tolerance"]["float64"])
    assert numbers, f"{case.name}: tolerance of float64 is not understood"
    atol, of_largest = map(float, numbers.groups())

    def tight(expected: Tensor) -> float:
        return atol + of_largest * expected.abs().max().item()

    for k, run in enumerate(case.settings["runs"]):
        name, coef = f"run{k}/", run["cor_coef"]
        assert [run["batch"], run["dim"]] == list(case[f"{name}features"].shape)
        aligned, gradient = aligned_and_gradient(case, name, run, torch.float32)
        # A run without a tolerance of its own (one image: nothing to invert) has to meet the one of float64.
        loose = run.get("tolerance") or {"aligned_atol": tight(case[f"{name}aligned"]), "grad_rel_to_max": of_largest}
        case.close(f"{name}aligned", aligned, loose["aligned_atol"])
        largest = case[f"{name}grad_features"].abs().max().item()
        case.close(f"{name}grad_features", gradient, loose["grad_rel_to_max"] * largest)
        if f"{name}Fj_raw" in case:
            mapped = F.normalize(case[f"{name}Fj_raw"], dim=1, eps=1e-6)
            ours = aligned - (1 - coef) * case[f"{name}features"]
            case.close_to(f"{name}Fj_raw, normalised,", ours, coef * mapped, loose["aligned_atol"])
        if f"{name}aligned_f64" in case:
            aligned, gradient = aligned_and_gradient(case, name, run, torch.float64)
            case.close(f"{name}aligned_f64", aligned, tight(case[f"{name}aligned_f64"]))
            case.close(f"{name}grad_features_f64", gradient, tight(case[f"{name}grad_features_f64"]))


def aligned_and_gradient(case: Case, name: str, run: dict, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    features = case[f"{name}features"].to(DEVICE, dtype).requires_grad_()
    with ridge(run["reg"]):
        target = models.mepo.factor(case[f"{name}target_cov"].to(DEVICE, dtype))
        aligned = models.mepo.align(features, target, run["cor_coef"], run.get("align_form", "released"))
    aligned.backward(case[f"{name}upstream_grad"].to(DEVICE, dtype))
    return aligned.detach().cpu(), features.grad


def ridge(value: float):
    """The ridge of the case for as long as the context lasts; it is no option of the project, which has one value."""
    if value != models.mepo.RIDGE:
        warnings.warn(f"the case sets the ridge {value}, the project has {models.mepo.RIDGE}", stacklevel=3)
    return mock.patch.object(models.mepo, "RIDGE", value)


def check_cov(case: Case, folder: Path) -> None:
    settings, tolerance = case.settings, case.settings["tolerance"]
    images, labels, num_classes = case["images"], case["labels"], case.settings["num_classes"]
    stream = Recorded([list(torch.arange(len(labels)).split(settings["batch_size"]))], num_classes, known=num_classes)

    def run(name: str) -> MepoCov:
        args = MepoCovArgs(save_to=str(folder / name))
        model = MepoCov(load_vit(case), make_info(case, len(labels), num_classes), args)
        model.optimizer = model.configure_optimizer()
        features = []
        model.backbone.norm.register_forward_hook(lambda _, given, out: features.append(out[:, 0]))
        train(model, stream, images, labels)
        if features:
            case.close("features", torch.cat(features), tolerance["features"])
            case.close("class_means", model.sums.means(), tolerance["class_means"])
        return model

    model = run("images")
    absent = torch.where(model.sums.count == 0)[0].tolist()
    assert absent == settings["absent_classes"], f"{case.name}: no image of classes {absent}"
    for covariance in (model.covariance(), torch.from_numpy(np.load(folder / "images" / "covariance.npy"))):
        case.close("cov", covariance, tolerance["cov_from_images"])

    chunks = case["features"].to(DEVICE).split(settings["batch_size"])  # the recorded features instead of the network's
    with mock.patch.object(models.mepo_cov, "encode", side_effect=chunks):
        case.close("cov", run("features").covariance(), tolerance["cov_from_features"])


def check_meta(case: Case, folder: Path) -> None:
    settings, optimizer, tolerance = case.settings, case.settings["optimizer"], case.settings["tolerance"]
    images, labels, num_classes = case["images"], case["labels"], case.settings["num_classes"]
    assert not optimizer.get("state_reset_between_groups", False), "the project keeps the momentum between groups"
    case.expect("batch_size", int(case["batch_len"].max()))
    case.expect("passes_per_pseudo_task", Episodes.PASSES)
    case.expect("classes_per_pseudo_task", settings["classes_per_group"] // settings["num_pseudo_tasks"])
    args = MepoMetaArgs(
        meta_epochs=settings["meta_epochs"],
        group_size=settings["classes_per_group"],
        num_tasks=settings["num_pseudo_tasks"],
        samples=settings["samples_per_class"],
        num_inner_steps=settings["num_inner_steps"],
        inner_lr=settings["reptile_rate"],
        lr=optimizer["lr_backbone"],
        lr_head=optimizer["lr_head"],
        save_to=str(folder),
    )
    model = MepoMeta(load_vit(case), make_info(case, len(labels), num_classes), args)
    load(model, case.below("method/init/"))
    set_optimizer(model, optimizer)

    updates: list[dict[str, Tensor]] = []  # weights after each meta update
    losses, observe = [], model.observe

    def observed(batch) -> Tensor:
        losses.append(observe(batch))
        return losses[-1]

    def end_task(session) -> None:
        MepoMeta.end_task(model, session)
        if model.repetition == 0:
            updates.append({name: weight.clone() for name, weight in model.state_dict().items()})

    model.observe, model.end_task = observed, end_task
    train(model, recorded_groups(case, num_classes), images, labels)

    case.close("batch_loss", torch.stack(losses), tolerance["batch_loss"])
    assert len(updates) == settings["meta_updates"], f"{case.name}: {len(updates)} meta updates were made"
    for g, weights in enumerate(updates):
        for name in case.below(f"update{g}/"):
            ours = name.replace("vit.", "backbone.", 1) if name.startswith("vit.") else name
            case.close(f"update{g}/{name}", weights[ours], tolerance["weights"])
    for epoch in range(1, settings["meta_epochs"] + 1):
        saved, last = load_file(folder / f"meta_epoch_{epoch}.safetensors"), epoch * settings["groups_per_epoch"] - 1
        for name, weight in case.below(f"update{last}/vit.").items():
            case.close_to(f"update{last}/vit.{name} as saved", saved[name], weight, tolerance["weights"])
    model.eval()
    with torch.no_grad():
        logits = model(images[: len(case["eval/logits"])].to(DEVICE))
    case.close("eval/logits", logits, tolerance["eval_logits"])


def recorded_groups(case: Case, num_classes: int) -> Recorded:
    """A task is one repetition of a group: it ends where a joint pass (kind 1) is over."""
    batches = case["batch_indices"].split(case["batch_len"].tolist())
    tasks, classes, before = [], [], None
    for batch, group, kind in zip(batches, case["batch_group"].tolist(), case["batch_kind"].tolist(), strict=True):
        if before is None or group != before[0] or kind < before[1]:
            tasks.append([])
            classes.append(case[f"group{group}/allowed_classes"].tolist())
        tasks[-1].append(batch)
        before = group, kind
    return Recorded(tasks, num_classes, known=num_classes, classes=classes)


def check_with_dualprompt(case: Case, folder: Path) -> None:
    with ridge(case.settings["mepo"]["reg"]):
        check_aligned_training(case, folder)


def check_aligned_training(case: Case, folder: Path) -> None:
    settings, tolerance, online_iter = case.settings, case.settings["tolerances"], case.settings["online_iter"]
    assert tolerance["kind"] == "absolute", f"{case.name}: tolerances are {tolerance['kind']}"
    steps = case.count("step{}/x")
    x = [case[f"step{k}/x"] for k in range(steps)]
    y = torch.cat([case[f"step{k}/y"] for k in range(steps)])
    case.expect("batch_size", max(map(len, x)))
    model = make_aligned(case, folder, len(y))
    host = model.host
    recorder = watch(host, outer=model)
    host.fc_norm.register_forward_hook(lambda _, given, out: recorder.watch(raw_features=given[0]))

    # The reference moved the counter by hand: here a task of the stream ends wherever it did.
    moves = settings["task_count_advances_before_steps"]
    of_step = [sum(move <= k for move in moves) for k in range(steps)]
    tasks = consecutive([len(part) for part in x], [of_step.count(t) for t in range(len(moves) + 1)])
    trainer = train(model, Recorded(tasks, settings["vit"]["num_classes"]), torch.cat(x), y, online_iter)

    assert len(recorder.updates) == steps * online_iter == settings["steps"] * online_iter
    for k in range(steps):
        updates = recorder.updates[k * online_iter : (k + 1) * online_iter]
        case.equal(f"step{k}/task_count", updates[0]["task_count"])
        case.equal(f"step{k}/n_exposed", updates[0]["batch"].seen)
        case.equal(f"step{k}/selected", torch.stack([update["selected"] for update in updates])[..., None])
        raw, aligned = (torch.stack([update[name] for update in updates]) for name in ("raw_features", "features"))
        case.close(f"step{k}/features", raw, tolerance["features"])
        case.close(f"step{k}/aligned", aligned, tolerance["aligned"])
        case.close(f"step{k}/loss", torch.stack([update["loss"] for update in updates]), tolerance["loss"])
    case.equal("exposed_order", trainer.seen.labels)
    state = host.state_dict()
    for name in case.below("final/"):
        case.close(f"final/{name}", state[name.replace("/", ".")], tolerance["final"])

    test_x, single = case["eval/x"].to(DEVICE), len(case["eval/logits_single_samples"])
    groups = {
        "one_batch": [test_x],
        "two_batches": test_x.chunk(2),
        "single_samples": test_x[:single].split(1),
    }
    model.eval()
    with torch.no_grad():
        for name, batches in groups.items():
            case.close(f"eval/logits_{name}", torch.cat([model(batch) for batch in batches]), tolerance["eval_logits"])


def make_aligned(case: Case, folder: Path, num_images: int) -> Mepo:
    """MePo around DualPrompt; backbone and covariance come from files, as in a run."""
    settings, mepo, host = case.settings, case.settings["mepo"], case.settings["dualprompt"]
    torch.save(case.below("backbone/"), folder / "backbone.pth")
    np.save(folder / "covariance.npy", case["method/target_cov"].numpy())
    host_args = make_args(DualPromptArgs, host) | {
        "lr": settings["optimizer"]["lr"],
        "step_num": host["task_num"],
        "step_schedule": "task",
        "train_mask": word(
            settings["train_logit_mask"], {"seen classes": "seen", "classes of the current batch": "batch"}
        ),
    }
    args = MepoArgs(
        host="dualprompt",
        meta_path=str(folder / "backbone.pth"),
        cor_path=str(folder / "covariance.npy"),
        cor_coef=mepo["cor_coef"],
        align_form=mepo["align_form"],
        host_args=DualPromptArgs(**host_args),
    )
    model = Mepo(make_vit(case), make_info(case, num_images), args)
    case.expect("dualprompt.prompts_per_step", model.host.pool_size // host["task_num"])
    initial = case.below("method/")
    del initial["target_cov"]
    load(model.host, initial)
    load(model.host.head, case.below("head/"))
    check_trainable(case, model)
    set_optimizer(model, settings["optimizer"])
    return model
