"""SinglePrompt: every update, every evaluation without a mask, first gradients and final weights."""

from __future__ import annotations

from pathlib import Path

from models.singleprompt import SinglePrompt, SinglePromptArgs

from . import schedule
from .goldens import Case
from .replay import Recorder, load, load_vit, make_info


def check(case: Case, folder: Path) -> None:
    config = case.settings["config"]
    args = SinglePromptArgs(
        lr=case.settings["optimiser"]["lr"],
        n_prompted_blocks=config["n_prompted_blocks"],
        prompt_length=config["prompt_length"],
        logit_type=config["logit_type"],
    )
    model = SinglePrompt(load_vit(case), make_info(case, schedule.num_images(case)), args)
    load(model, case.below("method/"))
    load(model.head, case.below("head/"))
    head = {f"head.{name}" for name, _ in model.head.named_parameters()}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"prompt"} | head
    assert head == {f"head.{name}" for name in case.below("head/")}
    recorder = Recorder(model)
    recorder.watch_head(model.head)
    trainer = schedule.replay(case, model, recorder)
    schedule.check_steps(case, recorder, trainer.seen.labels, "batch")
    schedule.check_evaluations(case, recorder)
    schedule.check_gradients(case, recorder, {})
    schedule.check_final(case, model.state_dict(), {})
