"""What a method is told. In general continual learning nobody says where a task ends."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from models.base import ContinualModel, ModelArgs
from tests.tiny import ROOT, Patches, assert_same_weights, build, weights_of
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.registry import METHODS
from utils.streams.base import TaskList
from utils.streams.si_blurry import SiBlurry


@dataclass(kw_only=True)
class ProbeArgs(ModelArgs):
    lr: float = option(0.1, "learning rate")


class Probe(ContinualModel):
    """A method that writes down every call and everything it is shown."""

    Args = ProbeArgs

    def __init__(self, backbone, info, args):
        super().__init__(backbone, info, args)
        self.head = nn.Linear(3, info.num_classes)
        self.calls: list[tuple] = []

    def forward(self, x, fixed=None):
        return self.head(x.mean(dim=(2, 3)))

    def observe(self, batch):
        self.calls.append(("observe", batch))
        return torch.zeros(())

    def end_batch(self, batch):
        self.calls.append(("end_batch", batch))

    def begin_task(self, session):
        self.calls.append(("begin_task", session))

    def end_task(self, session):
        self.calls.append(("end_task", session))

    def end_stream(self):
        self.calls.append(("end_stream", None))


class ProbeWithBorders(Probe):
    needs_task_boundaries = True


def labels() -> torch.Tensor:
    return torch.from_numpy(Patches().load(None, train=True)[1])


def probed(kind: type, **run):
    run = build(kind, stream=SiBlurry(labels(), 12, 3, 50, 10, True, 1, 16), **run)
    run.trainer.train()
    return run


def names(run) -> list[str]:
    return [name for name, _ in run.model.calls]


def test_borders_are_kept_from_a_method_that_does_not_ask():
    run = probed(Probe, online_iter=2)
    batches = run.trainer.stream.num_batches()
    assert names(run) == ["observe", "observe", "end_batch"] * batches + ["end_stream"]


def test_borders_are_told_to_a_method_that_asks():
    run = probed(ProbeWithBorders)
    stream = run.trainer.stream
    expected = []
    for task in range(3):
        expected += ["begin_task", *["observe", "end_batch"] * len(stream.batches(task, 0)), "end_task"]
    assert names(run) == [*expected, "end_stream"]
    for hook in ("begin_task", "end_task"):
        told = [session for name, session in run.model.calls if name == hook]
        sizes = [len(stream.tasks[task]) for task in range(3)]
        updates = [len(stream.batches(task, 0)) * run.trainer.online_iter for task in range(3)]
        expected = [(task, stream.task_classes(task), None, sizes[task], None, updates[task]) for task in range(3)]
        assert told == [Session(*each) for each in expected]


def test_batch_and_stream_info_carry_nothing_else():
    """A new field may be fine, but not unseen: what is in it must be checked against general continual learning."""
    assert [field.name for field in dataclasses.fields(Batch)] == ["x", "y", "raw", "seen", "indices", "functions"]
    assert [field.name for field in dataclasses.fields(StreamInfo)] == [
        "num_classes", "num_tasks", "num_images", "num_updates", "image_size", "seed", "augment", "plain", "images",
        "num_targets", "num_slots",
    ]  # fmt: skip
    run = probed(Probe)
    for _, batch in run.model.calls[:-1]:
        assert type(batch) is Batch and vars(batch).keys() == {"x", "y", "raw", "seen", "indices", "functions"}
        assert batch.functions is None
    assert vars(run.info).keys() == {field.name for field in dataclasses.fields(StreamInfo)}


def test_the_upper_bound_alone_reads_the_stream_again():
    readers = {f.stem for f in (ROOT / "models").glob("*.py") if re.search(r"info\.images|\.indices", f.read_text())}
    assert readers == {"joint"}
    told = {f.stem for f in (ROOT / "models").glob("*.py") if re.search(r"batch\.functions", f.read_text())}
    assert told == {"oml_meta"} and not METHODS.load("oml_meta").evaluated


def test_batch_knows_the_classes_met_but_none_to_come():
    run = probed(Probe)
    met: set[int] = set()
    for name, batch in run.model.calls:
        if name == "observe":
            fresh = [slot for slot in dict.fromkeys(batch.y.tolist()) if slot not in met]
            assert fresh == list(range(len(met), len(met) + len(fresh)))  # slots in order of appearance
            met |= set(fresh)
            assert batch.seen == len(met)
            assert batch.raw.dtype == torch.uint8 and batch.x.dtype == torch.float32
            assert batch.x.shape == batch.raw.shape and batch.y.shape == (len(batch.x),)
    assert met == set(range(12))


def test_batch_cannot_be_changed_by_a_method():
    batch = probed(Probe).model.calls[0][1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.y = batch.y + 1


def cut(order: torch.Tensor, borders: list[int]) -> TaskList:
    """One order of images, cut into tasks elsewhere."""
    tasks = [part.contiguous() for part in torch.tensor_split(order, borders)]
    return TaskList(tasks, [sorted(set(labels()[task].tolist())) for task in tasks], 12, batch_size=16)


BOUNDARY_FREE = [
    ("er", {}),
    ("dualprompt", {"step_schedule": "samples"}),
    ("misa", {"step_schedule": "samples"}),
    ("flyprompt", {"rp_dim": 64}),
    ("mepo", {"host": "misa", "step_schedule": "samples", "align_stats": "running"}),
]


@pytest.mark.parametrize("name, own", BOUNDARY_FREE, ids=[name for name, _ in BOUNDARY_FREE])
def test_where_tasks_are_cut_changes_nothing(name, own, products):
    own = own | (products if name == "mepo" else {})
    order = torch.randperm(192, generator=torch.Generator().manual_seed(0))
    runs = [build(name, own, stream=cut(order, borders), eval_period=32) for borders in ([], [64], [32, 160])]
    for run in runs:
        assert run.info.num_images == 192 and run.info.num_updates == 12
        run.trainer.train()
    whole, *others = runs
    anytime = [without_loss(run) for run in runs]
    assert len(anytime[0]) == 6
    for run, rows in zip(others, anytime[1:], strict=True):
        assert rows == anytime[0]
        assert_same_weights(dict(run.model.named_parameters()), dict(whole.model.named_parameters()))


def without_loss(run) -> list[dict]:
    """Anytime rows; their loss is a mean since the row before, which may be a task end."""
    rows = [row for row in run.trainer.history.rows if row["kind"] == "anytime"]
    return [{name: value for name, value in row.items() if name not in ("loss", "seconds")} for row in rows]


def test_method_that_counts_tasks_does_notice_the_cut():
    """The check above can fail: with `step_schedule task` the borders are told, and the numbers move."""
    order = torch.randperm(192, generator=torch.Generator().manual_seed(0))
    one, two = (build("dualprompt", {"step_schedule": "task"}, stream=cut(order, borders)) for borders in ([], [64]))
    assert one.model.needs_task_boundaries
    for run in (one, two):
        run.trainer.train()
    assert not torch.equal(weights_of(one.model)["e_prompt.key"], weights_of(two.model)["e_prompt.key"])


def test_methods_know_their_own_kind():
    assert not build("dualprompt", {"step_schedule": "samples"}).model.needs_task_boundaries
    assert not build("er").model.needs_task_boundaries
    assert build("mepo_meta", {"group_size": 6, "num_tasks": 2, "samples": 4}).model.needs_task_boundaries
