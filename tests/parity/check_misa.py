"""MISA: initial session adaptation update by update, FAM alone, and the stream stage (as DualPrompt)."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import models.misa_isa
from models.misa_isa import MisaIsa, MisaIsaArgs
from utils.files.tensors import read_tensors
from utils.optim import FAM

from . import check_dualprompt
from .check_dualprompt import make_args, word
from .goldens import DEVICE, Case
from .replay import Recorded, load, load_vit, make_info, network, set_optimizer, train


def check(case: Case, folder: Path) -> None:
    if case.settings.get("optimizer", {}).get("name") != "FAM":
        check_dualprompt.check(case, folder)
    elif "backbone/cls_token" in case:
        check_adaptation(case, folder)
    else:
        check_optimizer(case)


class WatchedFAM(FAM):
    norms: list[Tensor]

    def first_step(self) -> Tensor:
        norm = super().first_step()
        self.norms.append(norm)
        return norm


def check_adaptation(case: Case, folder: Path) -> None:
    settings, updates = case.settings, case.settings["online_iter"]
    tolerance, steps = settings["tolerances"]["loss_logits"], case.count("step{}/x")
    arrived = [
        (case[f"{name}/x"], case[f"{name}/y"])
        for k in range(steps)
        for j in range(updates)
        for name in (f"step{k}", f"step{k}/forget{j}")
    ]
    case.expect("batch_size", max(len(labels) for _, labels in arrived[::2]))
    case.expect("forget_batch_size", max(len(labels) for _, labels in arrived[1::2]))
    case.expect("scheduler", "constant")
    x, y = (torch.cat(parts) for parts in zip(*arrived))
    batches = list(torch.arange(len(y)).split([len(labels) for _, labels in arrived]))

    model = make_model(case, folder, len(y))
    passes, norms = watch(model), []
    with (
        mock.patch.object(models.misa_isa, "FAM", WatchedFAM),
        mock.patch.object(WatchedFAM, "norms", norms, create=True),
    ):
        trainer = train(model, Recorded([batches], network(case)["num_classes"]), x, y)

    assert len(passes) == 2 * updates * steps and len(norms) == updates * steps
    for k in range(steps):
        own = passes[2 * updates * k : 2 * updates * (k + 1)]
        case.equal(f"step{k}/exposed", trainer.seen.labels[: own[-1]["seen"]])
        case.close(f"step{k}/forget_grad_norm", torch.stack(norms[updates * k : updates * (k + 1)]), tolerance)
        for suffix, made in (("_forget", own[::2]), ("", own[1::2])):
            case.equal(f"step{k}/selected{suffix}", torch.stack([one["selected"] for one in made])[..., None])
            case.close(f"step{k}/logits{suffix}", torch.stack([one["logits"] for one in made]), tolerance)
            case.close(f"step{k}/loss{suffix}", torch.stack([one["loss"] for one in made]), tolerance)

    state = model.state_dict()
    for name in case.below("final/"):
        case.close(f"final/{name}", state[ours(name)], settings["tolerances"]["final"])
    for name in case.below("saved/"):
        case.close(f"saved/{name}", read_tensors(folder / f"{name}.pt"), settings["tolerances"]["final"])
    model.eval()
    with torch.no_grad():
        case.close("eval/logits", model(case["eval/x"].to(DEVICE)), tolerance)


def make_model(case: Case, folder: Path, num_images: int) -> MisaIsa:
    """The stage of the case with its initial weights."""
    settings, fam = case.settings, case.settings["optimizer"]
    word(settings["train_logit_mask"], {"seen classes": "seen"})
    given = make_args(MisaIsaArgs, settings["config"]) | {
        "lr": fam["base"]["lr"],
        "rho": fam["rho"],
        "adaptive": fam["adaptive"],
        "save_to": str(folder),
    }
    model = MisaIsa(load_vit(case), make_info(case, num_images), MisaIsaArgs(**given))
    load(model, {ours(name): value for name, value in case.below("method/").items()})
    load(model.head, case.below("head/"))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {ours(name) for name in settings["trainable"]}
    set_optimizer(model, fam["base"])
    return model


def ours(name: str) -> str:
    """Our name of a tensor of the release."""
    renamed = {"backbone.fc.": "head.", "proj_g_pt.": "g_proj.", "proj_e_pt.": "e_proj."}
    for theirs, own in renamed.items():
        name = name.replace(theirs, own)
    return name.replace("/", ".")


def watch(model: MisaIsa) -> list[dict]:
    """Fills the list with what each call of the loss computes, two calls per update."""
    passes: list[dict] = []
    loss, select = model.loss, model.select

    def watched(batch):
        passes.append({"seen": batch.seen})
        passes[-1]["loss"] = loss(batch)
        return passes[-1]["loss"]

    def selected(query):
        index, distance = select(query)
        if model.training:
            passes[-1]["selected"] = index
        return index, distance

    def logits(_, given, out):
        if model.training:
            passes[-1]["logits"] = out

    model.loss, model.select = watched, selected
    model.head.register_forward_hook(logits)
    return passes


def check_optimizer(case: Case) -> None:
    settings, tolerance = case.settings, case.settings["tolerances"]["loss_logits"]
    formula = "loss(x,y) = mean over all entries of (u tanh(W x + b) - y)^2"
    assert settings["model"].startswith(formula), f"{case.name}: another model, {settings['model']}"
    weights = {name: value.to(DEVICE).requires_grad_() for name, value in case.below("method/").items()}
    given, base = settings["optimizer"], settings["optimizer"]["base"]
    for name in ("rho", "adaptive"):
        case.expect(f"config.{name}", given[name])
    assert base["name"] == "Adam", f"{case.name}: FAM around {base['name']}"
    numbers = {key: base[key] for key in ("lr", "betas", "eps", "weight_decay", "amsgrad") if key in base}
    fam = FAM(torch.optim.Adam(weights.values(), **numbers), given["rho"], given["adaptive"])

    def backward(part: str) -> Tensor:
        x, y = case[f"{part}/x"].to(DEVICE), case[f"{part}/y"].to(DEVICE)
        hidden = torch.tanh(x @ weights["W"].T + weights["b"])
        loss = (hidden @ weights["u"].T - y).square().mean()
        loss.backward()
        return loss

    for k in range(settings["config"]["steps"]):
        fam.base.zero_grad()
        case.close(f"step{k}/loss_forget", backward("forget"), tolerance)
        case.close(f"step{k}/forget_grad_norm", fam.first_step(), tolerance)
        for name in case.below(f"step{k}/perturbed/"):
            case.close(f"step{k}/perturbed/{name}", weights[name], tolerance)
        case.close(f"step{k}/loss", backward("data"), tolerance)
        for name in case.below(f"step{k}/grad/"):
            case.close(f"step{k}/grad/{name}", weights[name].grad, tolerance)
        fam.second_step()
        for name in case.below(f"step{k}/after/"):
            case.close(f"step{k}/after/{name}", weights[name], settings["tolerances"]["final"])
    for name in case.below("final/"):
        case.close(f"final/{name}", weights[name], settings["tolerances"]["final"])
