"""DualPrompt and the stream stage of MISA: every update, every evaluation and the final weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F

from backbone.prompts import PromptPool
from models.base import ContinualModel
from models.dualprompt import DualPrompt
from models.misa import Misa
from utils.args import option_names, resolve
from utils.classes import mask_unseen
from utils.data.images import ImageSet
from utils.training.evaluation import Evaluator
from utils.training.loop import Trainer

from .goldens import DEVICE, Case, Settings
from .replay import Recorded, Recorder, Unchanged, consecutive, load, load_vit, make_info, set_optimizer, train

TRAIN_MASKS = {
    "seen classes": "seen",
    "classes of the current batch": "batch",
    "classes of the current session": "session",
    "classes of the current task": "session",
}
EVAL_MASKS = {"seen classes": "seen", "none": "none"}
STEP_SCHEDULES = {"advances at the end of every stream task": "task", "": "samples"}


def check(case: Case, folder: Path) -> None:
    model = make_model(case, folder, case.settings.get("total_samples") or stream_length(case))
    recorder = watch(model)
    trainer, mask = replay_case(case, model, recorder)
    check_updates(case, recorder, trainer.seen.labels)
    check_evaluations(case, recorder, trainer.seen, mask, model.args.lambd)
    check_final(case, model, model.e_prompt)


def stream_length(case: Case) -> int:
    return sum(len(case[f"step{k}/y"]) for k in range(case.count("step{}/x")))


def replay_case(case: Case, model, recorder: Recorder, after_evaluation=lambda: None) -> tuple[Trainer, str]:
    """Trains on the case's batches, evaluating at task ends; also gives the mask of the evaluation."""
    settings, steps = case.settings, case.count("step{}/x")
    x = [case[f"step{k}/x"] for k in range(steps)]
    y = torch.cat([case[f"step{k}/y"] for k in range(steps)])
    tasks = consecutive([len(part) for part in x], settings["batches_per_task"])
    case.expect("tasks", len(tasks))
    case.expect("batch_size", max(map(len, x)))
    case.expect("scheduler", "constant")
    mask = word(settings["eval_logit_mask"], EVAL_MASKS)
    test_images = ImageSet(case["eval/x"].numpy(), case["eval/y"].numpy(), DEVICE)
    evaluator = Evaluator(test_images, Unchanged(), len(test_images), mask)

    def evaluate(model, seen):
        accuracy = recorder.evaluate(evaluator, model, seen)
        after_evaluation()
        return accuracy

    stream = Recorded(tasks, settings["vit"]["num_classes"])
    return train(model, stream, torch.cat(x), y, settings["online_iter"], evaluate), mask


def make_model(case: Case, folder: Path, num_images: int) -> DualPrompt:
    """The method of the case with its initial weights; MISA's warm prompts come from files."""
    settings, cls = case.settings, {"dualprompt": DualPrompt, "misa": Misa}[case.settings["system"]]
    config = settings["config"]
    warm = config.get("load_pt", False)
    given = make_args(cls.Args, config, leave=("load_pt", "e_pool")) | {
        "lr": settings["optimizer"]["lr"],
        "e_pool": settings.get("e_pool_effective", config.get("e_pool", cls.Args().e_pool)),
        "step_num": settings.get("step_num", config["task_num"]),
        "step_schedule": word(settings.get("task_count", ""), STEP_SCHEDULES),
        "prompt_index": word(config.get("variant", ""), {"release_local_index": "local", "": "global"}),
        "train_mask": word(settings["train_logit_mask"], TRAIN_MASKS),
    }
    if warm:
        for name in ("g_prompt", "e_prompt"):
            torch.save(case[f"ckpt/{name}"], folder / f"{name}.pt")
        given["load_pt"] = str(folder)
    model = cls(load_vit(case), make_info(case, num_images), cls.Args(**given))
    for name in ("prompts_per_step", "prompts_per_task"):
        case.expect(name, max(1, model.pool_size // given["step_num"]))
    initial = case.below("method/")
    if warm:
        for name in ("g_prompt.prompts", "e_prompt.prompts"):
            case.equal(f"method/{name}", dict(model.named_parameters())[name].detach())
            del initial[name]
    load(model, initial)
    load(model.head, case.below("head/"))
    check_trainable(case, model)
    set_optimizer(model, settings["optimizer"])
    return model


def make_args(cls: type, config: Settings, leave: tuple[str, ...] = ()) -> dict:
    """The options of `cls` that the case sets under their own names, checked. leave: those that are read elsewhere."""
    names = [name for name in option_names(cls) if name in config and name not in leave]
    args = resolve(cls, [], {name: config[name] for name in names}).args
    return {name: getattr(args, name) for name in names}


def word(text: str, meanings: dict[str, str]) -> str:
    """The meaning of the entry that `text` begins with, up to a comma or a remark in brackets."""
    begin = re.split(r",| \(", text)[0]
    assert begin in meanings, f"the project has nothing for '{text}'"
    return meanings[begin]


def check_trainable(case: Case, model: torch.nn.Module) -> None:
    ours = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    ours = {name.removeprefix("host.") for name in ours}
    theirs = {name.replace("backbone.fc.", "head.") for name in case.settings["trainable"]}
    assert ours == theirs, f"{case.name}: trains {sorted(ours)} instead of {sorted(theirs)}"


def watch(model: DualPrompt, outer: ContinualModel | None = None) -> Recorder:
    """Records logits, chosen prompts, key distances and the step counter of each update and evaluation.

    outer: the method that hosts this one and is the one that the loop knows.
    """
    recorder, select = Recorder(outer or model), model.select

    def selected(query):
        index, distance = select(query)
        recorder.watch(selected=index, distance=distance)
        return index, distance

    model.select = selected
    recorder.before = lambda: {"task_count": model.clock.step}
    recorder.watch_head(model.head)
    return recorder


def check_updates(case: Case, recorder: Recorder, labels: list[int]) -> None:
    tolerance, online_iter = case.settings["tolerances"]["loss_logits"], case.settings["online_iter"]
    assert len(recorder.updates) == online_iter * case.count("step{}/x")
    for k in range(case.count("step{}/x")):
        updates = recorder.updates[k * online_iter : (k + 1) * online_iter]
        first = updates[0]
        case.equal(f"step{k}/exposed", labels[: first["batch"].seen])
        case.equal(f"step{k}/y_mapped", first["batch"].y)
        case.equal(f"step{k}/task_count", first["task_count"])
        case.equal(f"step{k}/selected", torch.stack([rows(update["selected"]) for update in updates]))
        case.close(f"step{k}/similarity", torch.stack([update["distance"].mean() for update in updates]), tolerance)
        case.close(f"step{k}/logits", torch.stack([update["logits"] for update in updates]), tolerance)
        case.close(f"step{k}/loss", torch.stack([update["loss"] for update in updates]), tolerance)


def check_evaluations(case: Case, recorder: Recorder, seen, mask: str, lambd: float | None) -> None:
    """lambd None: the method has no similarity term."""
    tolerance, raw = case.settings["tolerances"]["loss_logits"], case["eval/y"]
    assert len(recorder.evaluations) == len(case.settings["batches_per_task"])
    for t, found in enumerate(recorder.evaluations):
        slots = seen.slots(raw)
        met = (slots >= 0) & (slots < found["seen"])
        case.equal(f"eval{t}/n_seen", found["seen"])
        case.equal(f"eval{t}/index", torch.where(met)[0])
        case.close(f"eval{t}/logits", found["logits"], tolerance)
        logits = mask_unseen(found["logits"], found["seen"]) if mask == "seen" else found["logits"]
        loss = F.cross_entropy(logits, slots[met])
        if lambd is not None:
            case.equal(f"eval{t}/task_count", found["task_count"])
            case.equal(f"eval{t}/selected", rows(found["selected"]))
            loss = loss + lambd * found["distance"].mean()
        case.close(f"eval{t}/loss", loss, tolerance)
        case.close(f"eval{t}/acc", found["accuracy"].average, tolerance)


def rows(selected: torch.Tensor) -> torch.Tensor:
    """Chosen prompts [B] or [B, k] as [B, k]."""
    return selected.reshape(len(selected), -1)


def check_final(case: Case, model: torch.nn.Module, pool: PromptPool | None = None) -> None:
    """Weights and counters, then the logits of the final network, whose evaluation the reference does not count."""
    final = case.below("final/")
    if "counter" in final:
        case.equal("final/counter", pool.counter)
    if "frequency" in final:
        case.equal("final/frequency", pool.frequency)
    state = model.state_dict()
    for name in final.keys() - {"counter", "frequency"}:
        case.close(f"final/{name}", state[name.replace("/", ".")], case.settings["tolerances"]["final"])
    model.eval()
    with torch.no_grad():
        logits = model(case["eval/x"][case["eval/index"]].to(DEVICE))
    case.close("eval/logits", logits, case.settings["tolerances"]["loss_logits"])
