"""CODA-Prompt: Gram-Schmidt on recorded draws, every update, evaluations, tensors after each task."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch

import models.coda
from models.coda import Coda, CodaArgs

from . import schedule
from .check_dualprompt import make_args
from .goldens import Case
from .replay import Recorder, load, load_vit, make_info


def check(case: Case, folder: Path) -> None:
    config, tolerances = case.settings["config"], case.settings["tolerances"]
    given = make_args(CodaArgs, config) | {
        "lr": case.settings["optimiser"]["lr"],
        "train_mask": schedule.train_mask(case),
    }
    info = make_info(case, schedule.num_images(case), num_tasks=schedule.num_tasks(case))
    vit = load_vit(case)
    draws: list[torch.Tensor] = []

    def drawn(size: int) -> torch.Tensor:
        assert draws and len(draws[0]) == size, f"{case.name}: Gram-Schmidt draws {size} numbers that were not recorded"
        return draws.pop(0)

    def recorded(when: str, order: str) -> None:
        """Rows that Gram-Schmidt will draw next. order: parts in the order in which the reference makes them."""
        assert not draws, f"{case.name}: {len(draws)} recorded draws were not used before {when}"
        for block in config["pos_e_prompt"]:
            for part in order:
                draws.extend(case[f"gs/{when}/e_{part}_{block}"])

    with mock.patch.object(models.coda.torch, "randn", side_effect=drawn):
        recorded("init", "pka")
        model = Coda(vit, info, CodaArgs(**given))
        for name in case.below("method/"):
            case.close(f"method/{name}", dict(model.named_parameters())[name], tolerances["final"])
    load(model.head, case.below("head/"))
    load(model, case.below("method/"))
    recorder = Recorder(model)
    recorder.watch_head(model.head)
    orthogonality, after = model.orthogonality, []

    def watched():
        value = orthogonality()
        recorder.watch(ortho=value)
        return value

    def end_task(session) -> None:
        last = session.index == info.num_tasks - 1
        if not last:
            recorded(f"after_task{session.index}", "kap")
        with mock.patch.object(models.coda.torch, "randn", side_effect=drawn):
            Coda.end_task(model, session)
        after.append({name: value.clone() for name, value in model.state_dict().items()})

    model.orthogonality, model.end_task = watched, end_task
    trainer = schedule.replay(case, model, recorder)
    assert not draws

    schedule.check_steps(case, recorder, trainer.seen.labels, model.args.train_mask)
    schedule.check_evaluations(case, recorder)
    schedule.check_gradients(case, recorder, {})
    online_iter = config["online_iter"]
    for k in range(case.count("step{}/x")):
        updates = recorder.updates[k * online_iter : (k + 1) * online_iter]
        case.close(f"step{k}/ortho", updates[-1].get("ortho", torch.zeros(())), tolerances["loss"])
        accuracies = [accuracy_in(update, case[f"step{k}/mask"].bool()) for update in updates]
        case.close(f"step{k}/acc", sum(accuracies) / online_iter, tolerances["loss"])
    for t, weights in enumerate(after):
        for name in case.below(f"task{t}/after/"):
            case.close(f"task{t}/after/{name}", weights[name], tolerances["final"])
    schedule.check_final(case, model.state_dict(), {})


def accuracy_in(update: dict, kept: torch.Tensor) -> float:
    """Share of the batch that the logits of the update get right among the classes kept."""
    logits = update["logits"].masked_fill(~kept, -torch.inf)
    return (logits.argmax(dim=1) == update["batch"].y.cpu()).float().mean().item()
