"""Si-Blurry: order of images, classes of tasks, batches, exposure and slots, all exact."""

from __future__ import annotations

import torch

from utils.args import RunArgs
from utils.classes import SeenClasses
from utils.streams import make_stream
from utils.streams.si_blurry import SiBlurry

from .goldens import Case


def make_si_blurry(config: dict, targets: torch.Tensor, num_classes: int) -> SiBlurry:
    options = RunArgs(
        scenario="si-blurry",
        n_tasks=config["n_tasks"],
        n=config["n"],
        m=config["m"],
        varying=config["rnd_NM"],
        stream_seed=config["seed"],
        batch_size=config["batch"],
        n_epochs=config.get("num_epochs", 1),
    )
    return make_stream(options, {}, targets, num_classes)


def check(case: Case, folder) -> None:
    targets, test_targets, num_classes = case["targets"], case["test_targets"], case.settings["num_classes"]
    for k, run in enumerate(case.settings["runs"]):
        stream = make_si_blurry(run, targets, num_classes)
        tasks = range(stream.num_tasks)
        batches = [[draw.indices for draw in stream.batches(task, 0)] for task in tasks]
        indices = [torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64) for parts in batches]
        exposed_after_batch, exposed_after_task, tested = [], [], []
        seen = SeenClasses(num_classes)
        for task in tasks:
            for batch in batches[task]:
                seen.add(targets[batch])
                exposed_after_batch.append(len(seen))
            exposed_after_task.append(len(seen))
            tested.append(torch.where(seen.slots(test_targets) >= 0)[0])

        def lists(name: str, parts: list, run: int = k) -> None:
            parts = [torch.as_tensor(part, dtype=torch.int64) for part in parts]
            case.equal(f"run{run}/{name}_len", torch.tensor([len(part) for part in parts]))
            case.equal(f"run{run}/{name}", torch.cat(parts))

        def numbers(name: str, values: list, run: int = k) -> None:
            case.equal(f"run{run}/{name}", torch.tensor(values, dtype=torch.int64))

        lists("indices", indices)
        lists("disjoint_classes", stream.disjoint)
        lists("blurry_classes", stream.blurry)
        lists("test_indices", tested)
        numbers("batch_sizes", [len(batch) for parts in batches for batch in parts])
        numbers("batches_per_task", [len(parts) for parts in batches])
        numbers("exposed_order", seen.labels)
        numbers("exposed_after_batch", exposed_after_batch)
        numbers("exposed_after_task", exposed_after_task)
        case.equal(f"run{k}/remapped_labels", seen.slots(targets[torch.cat(indices)]))
