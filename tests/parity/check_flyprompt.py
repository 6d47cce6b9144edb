"""FlyPrompt: every update, the expert clock, routing, heads and their ensemble at task ends, the final tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.flyprompt import FlyPrompt, FlyPromptArgs

from . import schedule
from .check_dualprompt import make_args
from .goldens import Case
from .replay import Recorder, load, load_vit, make_info


def check(case: Case, folder: Path) -> None:
    model = make_model(case)
    recorder, clock = watch(model)
    trainer = schedule.replay(case, model, recorder)

    schedule.check_steps(case, recorder, trainer.seen.labels, model.args.train_mask)
    schedule.check_gradients(case, recorder, {})
    for k, (before, after) in enumerate(clock):
        case.equal(f"step{k}/expert", before)
        case.equal(f"step{k}/expert_after", after)
    check_evaluations(case, recorder)

    tolerances, statistics = case.settings["tolerances"], model.router.statistics()
    for name in ("Q", "G"):
        case.close(f"final/rp_{name}", statistics[name], tolerances["rp"])
    case.close("final/rp_W", model.router.solve().T, tolerances["rp"])
    schedule.check_final(case, model.state_dict(), {}, leave=("rp_Q", "rp_G", "rp_W"))


def make_model(case: Case) -> FlyPrompt:
    config = case.settings["config"]
    given = make_args(FlyPromptArgs, config) | {
        "lr": case.settings["optimiser"]["lr"],
        "step_num": config["n_experts"],
        "train_mask": schedule.train_mask(case),
    }
    model = FlyPrompt(load_vit(case), make_info(case, schedule.num_images(case)), FlyPromptArgs(**given))
    assert model.clock.images_per_step == config["samples_per_step"]
    initial, buffers = case.below("method/"), dict(model.named_buffers())
    with torch.no_grad():
        for name in initial.keys() - {"prompts", "W_rand"}:
            buffers[name].copy_(initial.pop(name))
        if model.args.rp_dim:
            model.router.W_rand.copy_(initial.pop("W_rand"))
    load(model, {"prompts": initial["prompts"]})
    load(model.head, case.below("head/"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"prompts", "head.weight", "head.bias"}
    return model


def watch(model: FlyPrompt) -> tuple[Recorder, list[tuple[int, int]]]:
    """Records what routing and heads give, and the expert before and after each batch's end."""
    recorder, clock = Recorder(model), []
    recorder.watch_head(model.head)
    model.router.register_forward_hook(lambda module, given, out: recorder.watch(router=out))
    route, all_heads, end_batch = model.route, model.all_heads, model.end_batch

    def routed(z: Tensor) -> Tensor:
        expert = route(z)
        recorder.watch(expert=expert)
        return expert

    def headed(features: Tensor, expert: Tensor) -> Tensor:
        logits = all_heads(features, expert)
        recorder.watch(heads=logits)
        return logits

    def ended(batch) -> None:
        before = model.clock.step
        end_batch(batch)
        clock.append((before, model.clock.step))

    model.route, model.all_heads, model.end_batch = routed, headed, ended
    return recorder, clock


def check_evaluations(case: Case, recorder: Recorder) -> None:
    tolerances = case.settings["tolerances"]
    assert len(recorder.evaluations) == schedule.num_tasks(case)
    schedule.check_visible(case, recorder)
    for t, found in enumerate(recorder.evaluations):
        case.close(f"task{t}/rp_logits", found["router"], tolerances["rp"])
        case.equal(f"task{t}/expert_ids", found["expert"])
        case.close(f"task{t}/head_logits", found["heads"], tolerances["logits"])
        case.close(f"task{t}/eval_ensemble", found["output"], tolerances["logits"])
