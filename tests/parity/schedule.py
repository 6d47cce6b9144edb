"""Cases whose JSON holds `config.schedule`: arrays `step<k>/...` per batch, `task<t>/...` per task end, `final/...`."""

from __future__ import annotations

import torch
from torch import Tensor

from models.base import ContinualModel
from utils.classes import SeenClasses
from utils.training.evaluation import Scores
from utils.training.loop import Trainer

from .goldens import DEVICE, Case
from .replay import Recorded, Recorder, consecutive, network, set_optimizer, train


def num_images(case: Case) -> int:
    return sum(len(case[f"step{k}/y"]) for k in range(case.count("step{}/x")))


def num_tasks(case: Case) -> int:
    return len(case.settings["config"]["schedule"])


def train_mask(case: Case) -> str:
    return "seen" if case.settings["config"].get("no_batchmask", False) else "batch"


def replay(case: Case, model: ContinualModel, recorder: Recorder) -> Trainer:
    """Trains the method on the case's batches with its own optimiser, evaluating all of `eval/x` at task ends.

    The recorder's updates also get `gradients`, by parameter name; its evaluations get `output`, what the method gave.
    """
    set_optimizer(model, case.settings["optimiser"])
    case.expect("config.n_tasks", num_tasks(case))
    steps = case.count("step{}/x")
    x, y = [case[f"step{k}/x"] for k in range(steps)], torch.cat([case[f"step{k}/y"] for k in range(steps)])
    case.expect("config.batch", max(map(len, x)))
    task_of_step = [int(case[f"step{k}/task"]) for k in range(steps)]
    tasks = consecutive([len(part) for part in x], [task_of_step.count(t) for t in range(num_tasks(case))])
    observe = model.observe

    def observed(batch):
        loss = observe(batch)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        recorder.updates[-1]["gradients"] = gradients
        return loss

    model.observe = observed
    eval_x = case["eval/x"]

    @torch.no_grad()
    def evaluate(model: ContinualModel, seen: SeenClasses) -> Scores:
        model.eval()
        recorder.begin_evaluation()
        output = model(eval_x.to(DEVICE))
        recorder.end_evaluation(output=output, seen=len(seen))
        model.train()
        return Scores(float("nan"), torch.zeros(seen.num_classes))

    stream = Recorded(tasks, network(case)["num_classes"])
    return train(model, stream, torch.cat(x), y, case.settings["config"]["online_iter"], evaluate)


def check_steps(case: Case, recorder: Recorder, labels: list[int], mask: str) -> None:
    """Every update's loss, and of the last update of a batch the logits before the mask (`recorder` calls them so).

    labels: raw labels in slot order. mask: which classes compete in training, `batch` or `seen`.
    """
    online_iter, tolerance = case.settings["config"]["online_iter"], case.settings["tolerances"]
    steps = case.count("step{}/x")
    assert len(recorder.updates) == steps * online_iter
    for k in range(steps):
        updates = recorder.updates[k * online_iter : (k + 1) * online_iter]
        batch = updates[-1]["batch"]
        case.equal(f"step{k}/exposed", labels[: batch.seen])
        case.equal(f"step{k}/y_mapped", batch.y)
        case.equal(f"step{k}/mask", competing(batch, mask, len(case[f"step{k}/mask"])))
        losses = torch.stack([update["loss"] for update in updates])
        case.close(f"step{k}/iter_losses", losses, tolerance["loss"])
        case.close(f"step{k}/loss", losses.mean(), tolerance["loss"])
        case.close(f"step{k}/logits", updates[-1]["logits"], tolerance["logits"])


def competing(batch, mask: str, num_classes: int) -> Tensor:
    kept = torch.zeros(num_classes, dtype=torch.int64)
    kept[batch.y.cpu() if mask == "batch" else slice(batch.seen)] = 1
    return kept


def check_visible(case: Case, recorder: Recorder) -> None:
    """The classes met at each task end."""
    for t, found in enumerate(recorder.evaluations):
        visible = torch.arange(network(case)["num_classes"]) < found["seen"]
        case.equal(f"task{t}/eval_visible", visible.long())


def check_evaluations(case: Case, recorder: Recorder) -> None:
    """Logits before the mask at each task end."""
    assert len(recorder.evaluations) == num_tasks(case)
    check_visible(case, recorder)
    for t, found in enumerate(recorder.evaluations):
        case.close(f"task{t}/eval_logits", found["output"], case.settings["tolerances"]["logits"])


def check_gradients(case: Case, recorder: Recorder, ours: dict[str, str]) -> None:
    """Gradients of the first update. ours: name in the case -> name of our parameter; the rest are equal."""
    gradients = recorder.updates[0]["gradients"]
    for name in case.below("step0/grad/"):
        case.close(f"step0/grad/{name}", gradients[ours.get(name, name)], case.settings["tolerances"]["grad"])


def check_final(case: Case, state: dict[str, Tensor], ours: dict[str, str], leave: tuple[str, ...] = ()) -> None:
    """Final tensors. state: ours by name; ours: as in `check_gradients`. leave: names that another check reads."""
    for name in case.below("final/").keys() - set(leave):
        case.close(f"final/{name}", state[ours.get(name, name)], case.settings["tolerances"]["final"])
