"""Experience replay: what the memory keeps, and every update with the recorded replay batches."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.er import Er, ErArgs
from utils.buffer import ReservoirBuffer
from utils.classes import SeenClasses
from utils.data.images import ImageSet
from utils.training.evaluation import Evaluator

from .check_dualprompt import EVAL_MASKS, check_evaluations, check_final, word
from .goldens import DEVICE, Case
from .replay import Recorded, Recorder, Unchanged, consecutive, load, load_vit, make_info, set_optimizer, train


def check(case: Case, folder: Path) -> None:
    if "labels" in case:
        check_reservoir(case)
    else:
        check_training(case)


def feed_targets(buffer: ReservoirBuffer, draws: Tensor) -> None:
    """The next batch takes the recorded draws; rows that find a free place have none."""

    def draw_targets(count: int) -> Tensor:
        return torch.cat((torch.zeros(count - len(draws), dtype=torch.int64), draws))

    buffer.draw_targets = draw_targets


def exact(case: Case) -> bool:
    return bool(case.settings["config"].get("exact", False))


def check_reservoir(case: Case) -> None:
    """No network: an image is the number of its stream position."""
    labels, sizes = case["labels"], case["batch_sizes"].tolist()
    buffer = ReservoirBuffer(case.settings["config"]["memory_size"], case.settings["seed"], exact(case))
    seen = SeenClasses(int(labels.max()) + 1)
    for k, rows in enumerate(torch.arange(len(labels)).split(sizes)):
        seen.add(labels[rows])
        feed_targets(buffer, case[f"step{k}/draws"])
        buffer.add(rows.view(-1, 1, 1, 1), seen.slots(labels[rows]))
        index = torch.empty(0, dtype=torch.int64) if len(buffer) == 0 else buffer.images[: len(buffer)].flatten()
        check_memory(case, k, buffer, index, seen)
        slots = seen.slots(labels[index])
        case.equal(f"step{k}/class_list", seen.labels)
        case.equal(f"step{k}/class_count", torch.bincount(slots, minlength=len(seen)))
        case.equal(f"step{k}/seen", buffer.seen)


def check_memory(case: Case, k: int, buffer: ReservoirBuffer, index: Tensor, seen: SeenClasses) -> None:
    """Memory after batch k, place by place."""
    case.equal(f"step{k}/memory_index", index)
    stored = [] if len(buffer) == 0 else buffer.slots[: len(buffer)].tolist()
    case.equal(f"step{k}/memory_label", torch.tensor([seen.labels[slot] for slot in stored], dtype=torch.int64))


def check_training(case: Case) -> None:
    settings, config = case.settings, case.settings["config"]
    steps, online_iter = case.count("step{}/x"), settings["online_iter"]
    x = [case[f"step{k}/x"] for k in range(steps)]
    y = torch.cat([case[f"step{k}/y"] for k in range(steps)])
    index = torch.cat([case[f"step{k}/index"] for k in range(steps)])
    index_of = {image.numpy().tobytes(): i for image, i in zip(torch.cat(x), index.tolist(), strict=True)}

    assert settings["train_logit_mask"] == "seen classes, stream and replay alike"
    case.expect("config.stream_batch", max(map(len, x)))
    case.expect("config.batchsize", max(map(len, x)) + config["replay_batch"])
    case.expect("tasks", len(settings["batches_per_task"]))
    case.expect("scheduler", "constant")
    args = ErArgs(
        lr=settings["optimizer"]["lr"],
        memory_size=config["memory_size"],
        replay_size=config["replay_batch"],
        trainable=config["trainable"],
        optimizer=settings["optimizer"]["name"].lower(),
        exact_reservoir=exact(case),
    )
    model = Er(load_vit(case), make_info(case, len(y)), args)
    load(model.head, case.below("head/"))
    set_optimizer(model, settings["optimizer"])
    buffer, recorder = model.buffer, Recorder(model)
    recorder.watch_head(model.head)
    frozen = [
        name for name, p in model.backbone.named_parameters() if p.requires_grad != (config["trainable"] == "all")
    ]
    assert not frozen, f"{case.name}: trainable is '{config['trainable']}', which is wrong for {frozen[:3]}"

    def memory_index() -> Tensor:
        return torch.tensor([index_of[image.numpy().tobytes()] for image in buffer.images[: len(buffer)].cpu()])

    def draw_positions(count: int) -> Tensor:
        k, j = divmod(len(recorder.updates), online_iter)
        wanted, stored = case[f"step{k}/replay_index{j}"], memory_index().tolist()
        assert len(wanted) == count, f"{case.name}: {count} images are replayed in step {k} instead of {len(wanted)}"
        assert set(wanted.tolist()) <= set(stored), (
            f"{case.name}: step {k} replays {wanted.tolist()}, stored are {stored}"
        )
        return torch.tensor([stored.index(i) for i in wanted.tolist()])

    memories = []

    def end_batch(batch) -> None:
        feed_targets(buffer, case[f"step{len(memories)}/draws"])
        Er.end_batch(model, batch)
        slots = buffer.slots[: len(buffer)].clone().cpu() if len(buffer) else torch.empty(0, dtype=torch.int64)
        memories.append((memory_index() if len(buffer) else slots, slots))

    buffer.draw_positions, model.end_batch = draw_positions, end_batch
    mask = word(settings["eval_logit_mask"], EVAL_MASKS)
    test_images = ImageSet(case["eval/x"].numpy(), case["eval/y"].numpy(), DEVICE)
    evaluator = Evaluator(test_images, Unchanged(), len(test_images), mask)
    trainer = train(
        model,
        Recorded(consecutive([len(part) for part in x], settings["batches_per_task"]), settings["vit"]["num_classes"]),
        torch.cat(x),
        y,
        online_iter,
        lambda model, seen: recorder.evaluate(evaluator, model, seen),
    )

    labels, tolerance = trainer.seen.labels, settings["tolerances"]["loss_logits"]
    assert len(recorder.updates) == steps * online_iter
    for k, (stored, slots) in enumerate(memories):
        updates = recorder.updates[k * online_iter : (k + 1) * online_iter]
        case.equal(f"step{k}/exposed", labels[: updates[0]["batch"].seen])
        for j, update in enumerate(updates):
            replayed = len(update["logits"]) - len(x[k])
            assert replayed == len(case[f"step{k}/replay_index{j}"]), f"{case.name}: step {k} replays {replayed} images"
            case.close(f"step{k}/logits{j}", update["logits"], tolerance)
        case.close(f"step{k}/loss", torch.stack([update["loss"] for update in updates]), tolerance)
        case.equal(f"step{k}/memory_index", stored)
        case.equal(f"step{k}/memory_label", torch.tensor([labels[slot] for slot in slots.tolist()], dtype=torch.int64))
    check_evaluations(case, recorder, trainer.seen, mask, lambd=None)
    check_final(case, model)
