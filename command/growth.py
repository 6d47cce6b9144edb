"""How cost grows with the size of a problem: `python main.py benchmark --suite growth`. docs/speed.md explains it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from command.workload import Subject, innermost, plan_of, trainer_of
from utils import device as devices
from utils import plan as plans
from utils.classes import SeenClasses
from utils.files.atomic import written_whole
from utils.machine import describe
from utils.report.comparison import report
from utils.report.markup import markdown_table
from utils.runs import checkpoint, identity, resume
from utils.runs.summary import Summary
from utils.streams.episodes import Episodes
from utils.streams.si_blurry import SiBlurry
from utils.training.evaluation import Scores
from utils.training.history import History

FORMAT = 1
# What grows, and the values at which it is measured.
SIZES: dict[str, tuple[int, ...]] = {
    "classes": (10, 100, 1000, 10000),
    "prompts of a pool": (10, 100, 1000, 10000),
    "images of a memory": (100, 1000, 10000, 100000),
    "tasks": (5, 50, 500, 1000),
    "images of a stream": (10**4, 10**5, 10**6),
    "runs": (10, 100, 1000, 10000),
    "meta epochs": (1, 5, 25),
}
BATCH = 16  # images
PATHS, PATHS_CLASSES = 1_281_167, 1000  # of ImageNet
IMAGES, IMAGES_CLASSES = 100_000, 1000  # of streams and histories
SEEDS = 5  # of each row of a report
PEAK = "peak MiB"


@dataclass(frozen=True)
class Growth:
    """One quantity. rows: its value, and what was measured by column: milliseconds, but for PEAK."""

    quantity: str
    rows: list[tuple[int, dict[str, float]]]

    def table(self) -> str:
        """A row per value. grew: the largest factor of any time since the row above, and that of the value."""
        columns = list(self.rows[0][1])
        cells = [[self.quantity, *columns, "grew"]]
        for k, (value, measured) in enumerate(self.rows):
            grew = "–"
            if k:
                before, old = self.rows[k - 1]
                factor = max(measured[name] / max(old[name], 1e-9) for name in columns if name != PEAK)
                grew = f"× {factor:.1f} for × {value / before:.0f}"
            cells.append([f"{value:,}", *(f"{measured[name]:,.{0 if name == PEAK else 3}f}" for name in columns), grew])
        return markdown_table(cells)


def measure_growth(device: torch.device, file: Path | None) -> None:
    """Prints a table per quantity, as each is measured, and writes all of them to `file`."""
    found, machine = [], describe(device) | {"commit": identity.git_commit()} | identity.versions()
    for quantity, sizes in SIZES.items():
        with tempfile.TemporaryDirectory() as work:
            rows = []
            for value in sizes:
                devices.reset_peak_memory(device)
                own = MEASURED[quantity](value, device, Path(work))
                rows.append((value, own | {PEAK: devices.peak_memory_mb(device) or 0.0}))
        found.append(Growth(quantity, rows))
        print(found[-1].table(), end="\n\n", flush=True)
    if file is not None:
        with written_whole(file) as temporary:
            content = {"growth": FORMAT, "machine": machine, "tables": [asdict(one) for one in found]}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def took(work: Callable[[], Any], parts: int = 1) -> float:
    """Milliseconds of a piece of work, shared out to so many parts."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began) / parts


def learner(
    method: str, device: torch.device, work: Path, classes: int = 10, memory: int = 0, **own: Any
) -> dict[str, float]:
    """A method on the network of the icons, all of its classes met. memory: stored images, the memory being full."""
    plan = plan_of(Subject(method, None, "vit_tiny_icons", "32"), BATCH, device, work)
    for name, value in own.items():
        setattr(plan.method_args, name, value)
    trainer = trainer_of(plan, 1, classes)
    trainer.seen.add(torch.arange(classes))
    if memory:
        raw = trainer.images.raw(torch.zeros(memory, dtype=torch.int64))
        innermost(trainer.model).buffer.add(raw, torch.zeros(memory, dtype=torch.int64, device=raw.device))

    def learn() -> None:
        trainer.learn(trainer.images, BATCH)  # ends with a look at the loss, which waits for the device

    evaluator = trainer.evaluator
    assert evaluator is not None

    def evaluate() -> None:
        evaluator(trainer.model, trainer.seen)

    learn()
    found = {"ms/training image": took(learn, len(trainer.images))}
    evaluate()
    found |= {"ms/test image": took(evaluate, len(evaluator.images))}
    return found | {"checkpoint": took(lambda: checkpoint.save(work / "checkpoints", trainer.state_dict()))}


def tasks(value: int, device: torch.device, work: Path) -> dict[str, float]:
    """A stream of so many tasks, and a history of their ends, of which the last is recorded."""
    targets, made = torch.arange(IMAGES) % IMAGES_CLASSES, []
    found = {"stream": took(lambda: made.append(SiBlurry(targets, IMAGES_CLASSES, value)))}
    found |= {"batches of a task": took(lambda: [made[0].batches(task, 0) for task in range(value)], value)}
    history = History()
    for task in range(value):
        met = max(1, IMAGES_CLASSES * (task + 1) // value)
        if task == value - 1:
            history.tables(), history.state_dict()
        common = {"loss": 0.5, "classes_exposed": met, "seconds": float(task)}
        history.add_task_end(task, task, Scores(0.5, torch.full((met,), 0.5)), list(range(met)), **common)
    return found | {"record of a task's end": took(lambda: (history.tables(), history.metrics(), history.state_dict()))}


def stream(value: int, device: torch.device, work: Path) -> dict[str, float]:
    """A stream of so many images, and all that is done with their labels."""
    targets, made = torch.arange(value) % IMAGES_CLASSES, []
    found = {"stream": took(lambda: made.append(SiBlurry(targets, IMAGES_CLASSES)))}
    seen = SeenClasses(IMAGES_CLASSES)

    def walk() -> None:
        for task in range(made[0].num_tasks):
            for draw in made[0].batches(task, 0):
                seen.add(targets[draw.indices])
                seen.slots(targets[draw.indices])

    return found | {"ms/image": took(walk, value)}


def runs(value: int, device: torch.device, work: Path) -> dict[str, float]:
    """`--resume auto` for a run that is new among so many, and the report on all of them."""
    results = work / str(value)
    plan = plans.make({"model": "dualprompt", "dataset": "seq-digits", "results": str(results)}).with_seed(1)
    write_runs(value, plan, results)
    new = identity.config(plan)
    new["method"] = new["method"] | {"lr": 0.5}
    found = {"--resume auto": took(lambda: resume.candidates(str(results), new))}
    with contextlib.redirect_stdout(io.StringIO()):
        return found | {"report": took(lambda: report([results], work / "out"))}


def write_runs(count: int, plan: plans.Plan, results: Path) -> None:
    """Folders of so many runs that have ended, `SEEDS` of each setting."""
    history = History()
    for k in range(20):
        accuracy = Scores(0.5, torch.full((10,), 0.5))
        common = {"loss": 0.5, "classes_exposed": 10, "seconds": float(k)}
        history.add_anytime(k, k, accuracy, **common)
        if k % 5 == 4:
            history.add_task_end(k, k // 5, accuracy, list(range(10)), **common)
    measures: dict[str, Any] = history.summary()
    tables = history.tables() | {"metrics.csv": history.metrics().to_csv(index=False)}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in tables.items()}
    config = yaml.safe_dump(identity.config(plan, {"data.train": "0" * 64}), sort_keys=False)
    told = {name: getattr(plan.run, name) for name in ("model", "dataset", "scenario")}
    for k in range(count):
        setting, seed = divmod(k, SEEDS)
        text = re.sub(r"(?m)^  (seed|\w+_seed): 1$", rf"  \1: {seed + 1}", config)
        text = re.sub(r"(?m)^  lr: .*$", f"  lr: {0.001 * (setting + 1):.3f}", text)
        summary = Summary(
            label="dualprompt", **told, seed=seed + 1, **measures, samples=19, seconds=19.0, trainable_parameters=1,
            needs_task_boundaries=False, rereads=False,
        )  # fmt: skip
        folder = results / told["dataset"] / told["model"] / f"20260101-{k:06}-seed{seed + 1}"
        folder.mkdir(parents=True)
        for name, content in (tables | {"config.yaml": text}).items():
            (folder / name).write_bytes(content.encode())
        own = digests | {"config.yaml": hashlib.sha256(text.encode()).hexdigest()}
        (folder / "summary.json").write_text(summary.as_json(own), encoding="utf-8")


def meta_epochs(value: int, device: torch.device, work: Path) -> dict[str, float]:
    """The pseudo tasks of MePo's first stage, by the settings of its scripts, from the paths of a data set as large as
    ImageNet; nothing is read."""
    targets, made = torch.arange(PATHS) % PATHS_CLASSES, []
    paths = [f"n{label:08}/n{label:08}_{k}.JPEG" for k, label in enumerate(targets.tolist())]
    settings = {
        "group_size": 100,
        "num_pseudo_tasks": 50,
        "samples": 200,
        "repetitions": 1,
        "batch_size": 256,
        "seed": 1,
    }
    found = {"stream": took(lambda: made.append(Episodes(targets, PATHS_CLASSES, value, **settings)))}
    episodes = made[0]

    def draw() -> None:
        for task in range(episodes.num_tasks):
            for batch in episodes.batches(task, 0):
                [paths[row] for row in batch.indices.tolist()]

    pseudo_tasks = episodes.num_tasks * settings["num_pseudo_tasks"]
    return {**found, "sizes": took(episodes.num_batches), "ms/pseudo task": took(draw, pseudo_tasks)}


MEASURED: dict[str, Callable[[int, torch.device, Path], dict[str, float]]] = {
    "classes": lambda value, device, work: learner("dualprompt", device, work, classes=value),
    "prompts of a pool": lambda value, device, work: learner("l2p", device, work, e_pool=value),
    "images of a memory": lambda value, device, work: learner("er", device, work, memory=value, memory_size=value),
    "tasks": tasks,
    "images of a stream": stream,
    "runs": runs,
    "meta epochs": meta_epochs,
}
