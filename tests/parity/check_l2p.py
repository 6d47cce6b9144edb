"""L2P: the pool alone, then every update, every evaluation and the final weights."""

from __future__ import annotations

from pathlib import Path

from backbone.prompts import PromptPool
from models.l2p import L2p, L2pArgs

from .check_dualprompt import (
    check_evaluations,
    check_final,
    check_trainable,
    check_updates,
    make_args,
    replay_case,
    word,
)
from .goldens import Case
from .replay import Recorder, load, load_vit, make_info, set_optimizer

# Of the reference's words the last is our `task`: the hook comes after the evaluation at a task's end.
FREQUENCY_UPDATES = {"never": "never", "task": "task", "after each task evaluation": "task"}


def check(case: Case, folder: Path) -> None:
    if "query" in case:
        check_select(case)
    else:
        check_training(case)


def check_select(case: Case) -> None:
    config, tolerance = case.settings["config"], case.settings["tolerances"]["loss_logits"]
    for prefix in sorted({name.split("/")[0] for name in case.unread if name.startswith("div")}):
        diversity, batchwise, mode = prefix.split("_")
        shape = config["e_pool"], config["len_e_prompt"], case["query"].shape[1]
        pool = PromptPool(*shape, diversity.endswith("1"), batchwise.endswith("1")).train(mode == "train")
        load(pool, case.below("method/"))
        pool.frequency.copy_(case["frequency"])
        distance, index = pool.select(case["query"], config["selection_size"])
        pool.count(index)
        chosen = pool.prompts[index]
        case.equal(f"{prefix}/selected", index)
        case.close(f"{prefix}/similarity", distance, tolerance)
        stored = case[f"{prefix}/prompts"]
        case.close(f"{prefix}/prompts", chosen[: len(stored)], tolerance)
        case.equal(f"{prefix}/counter", pool.counter)
        case.equal(f"{prefix}/update_return", pool.update())
        case.equal(f"{prefix}/frequency_after", pool.frequency)
        case.equal(f"{prefix}/counter_after", pool.counter)


def check_training(case: Case) -> None:
    settings = case.settings
    config = settings["config"]
    given = make_args(L2pArgs, config, leave=("frequency_update",)) | {
        "lr": settings["optimizer"]["lr"],
        "frequency_update": word(config.get("frequency_update", "never"), FREQUENCY_UPDATES),
        "train_mask": word(
            settings["train_logit_mask"], {"seen classes": "seen", "classes of the current batch": "batch"}
        ),
    }
    model = L2p(load_vit(case), make_info(case, settings["total_samples"]), L2pArgs(**given))
    load(model, case.below("method/"))
    load(model.head, case.below("head/"))
    check_trainable(case, model)
    set_optimizer(model, settings["optimizer"])
    recorder, select, ended = Recorder(model), model.select, []

    def selected(query):
        index, distance = select(query)
        recorder.watch(selected=index, distance=distance)
        return index, distance

    model.select = selected
    # The reference counts ended tasks here, with no effect on the numbers.
    recorder.before = lambda: {"task_count": len(ended)}
    recorder.watch_head(model.head)
    trainer, mask = replay_case(case, model, recorder, after_evaluation=lambda: ended.append(None))
    check_updates(case, recorder, trainer.seen.labels)
    check_evaluations(case, recorder, trainer.seen, mask, model.args.lambd)
    check_final(case, model, model.prompt)
