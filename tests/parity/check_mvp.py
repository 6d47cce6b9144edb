"""MVP: every update with its scores, masks and counts, every evaluation, the first gradients and the final tensors."""

from __future__ import annotations

from pathlib import Path

import torch

from models.mvp import Mvp, MvpArgs

from .check_dualprompt import make_args
from .goldens import Case
from .replay import Recorder, load, load_vit, make_info
from .schedule import (
    check_evaluations,
    check_final,
    check_gradients,
    check_steps,
    num_images,
    num_tasks,
    replay,
)


def check(case: Case, folder: Path) -> None:
    model = make_model(case)
    recorder = watch(model)
    trainer = replay(case, model, recorder)
    check_steps(case, recorder, trainer.seen.labels, "seen")
    check_diagnostics(case, recorder)
    check_evaluations(case, recorder)
    for t, found in enumerate(recorder.evaluations):
        case.close(f"task{t}/eval_instance_mask", found["instance_mask"], case.settings["tolerances"]["logits"])
    if not model.args.use_mask:  # the release trains a mask that never gets a gradient, here it is frozen
        assert not model.mask.requires_grad
        recorder.updates[0]["gradients"]["mask"] = torch.zeros_like(model.mask)
    check_gradients(case, recorder, {})
    case.equal("final/count", model.count)
    check_final(case, model.state_dict(), {}, leave=("count",))


def make_model(case: Case) -> Mvp:
    config = case.settings["config"]
    given = make_args(MvpArgs, config) | {"e_pool": config["pool"], "lr": case.settings["optimiser"]["lr"]}
    model = Mvp(load_vit(case), make_info(case, num_images(case), num_tasks=num_tasks(case)), MvpArgs(**given))
    initial = case.below("method/")
    model.count.copy_(initial.pop("count"))
    load(model, initial)
    load(model.head, case.below("head/"))
    return model


def watch(model: Mvp) -> Recorder:
    """Records what the method's steps give. Of `logits`, which the scores use too, the last call counts: the loss's."""
    recorder = Recorder(model)

    def keep(name: str, values) -> None:
        method = getattr(model, name)

        def called(*given):
            out = method(*given)
            recorder.watch(**values(out))
            return out

        setattr(model, name, called)

    def selected(selection) -> dict:
        index = selection[0]
        histogram = torch.bincount(index, minlength=len(model.count))
        return {"instance_mask": model.instance_mask(index), "count": model.count, "selected_counts": histogram}

    keep("select", selected)
    keep("features", lambda out: {"feature": out[0]})
    keep("scores", lambda out: {"ign": out[0], "cps": out[1]})
    keep("key_loss", lambda out: {"similarity_loss": out})
    keep("logits", lambda out: {"logits": out})
    return recorder


def check_diagnostics(case: Case, recorder: Recorder) -> None:
    """What the last update on each batch computed. The scores and masks are stored even where a flag leaves them out
    of the loss; the scores then leave out the mask too."""
    online_iter, tolerance = case.settings["config"]["online_iter"], case.settings["tolerances"]
    for k in range(case.count("step{}/x")):
        found = recorder.updates[(k + 1) * online_iter - 1]
        for name in ("count", "selected_counts"):
            case.equal(f"step{k}/{name}", found[name])
        for name in ("feature", "instance_mask", "ign", "cps"):
            case.close(f"step{k}/{name}", found[name], tolerance["logits"])
        case.close(f"step{k}/similarity_loss", found["similarity_loss"], tolerance["loss"])
