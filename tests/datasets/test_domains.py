"""Domain-incremental streams: permuted and rotated MNIST, all classes under one transform after the other."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

import main
from datasets.base import Places
from datasets.perm_mnist import DomainArgs, PermMnist
from datasets.rot_mnist import RotMnist
from datasets.seq_mnist import SeqMnist
from tests.miniatures import idx, mnist, write
from tests.tiny import CPU, Run, assert_same_weights, rows_of, tiny_vit, weights_of
from utils import plan as plans
from utils.classes import SeenClasses
from utils.data.images import DomainSet, ImageSet, image_set
from utils.data.splits import hold_out
from utils.errors import UsageError
from utils.streams import make_stream
from utils.streams.domain_il import DomainIncremental
from utils.training.assembly import assemble
from utils.training.loop import Listener

KINDS = pytest.mark.parametrize("kind", [PermMnist, RotMnist])
NAMES = {PermMnist: "perm-mnist", RotMnist: "rot-mnist"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The miniature of MNIST, but every image is noise of its own."""
    folder = tmp_path_factory.mktemp("mnist")
    mnist(folder / "MNIST" / "raw")
    random = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 10)):
        noise = random.integers(0, 256, (count, 28, 28))
        write(folder / "MNIST" / "raw" / f"{name}-images-idx3-ubyte.gz", gzip.compress(idx(noise)))
    return folder


def load(kind, digits, train=True, **options):
    dataset = kind(DomainArgs(**options))
    return dataset, *dataset.load(Places(digits, digits / "cache", 32), train)


# Transforms of the domains


@KINDS
def test_images_on_disk_are_those_of_mnist(kind, digits):
    for train in (True, False):
        _, images, labels = load(kind, digits, train)
        plain = SeqMnist().load(Places(digits, digits / "cache", 32), train)
        assert np.array_equal(images, plain[0]) and np.array_equal(labels, plain[1])


@KINDS
def test_a_shift_depends_on_image_domain_and_seed_alone(kind, digits):
    dataset, images, _ = load(kind, digits)
    images = torch.from_numpy(np.array(images[:4]))
    domains = torch.tensor([2, 0, 2, 7])
    shifted = dataset.shift(images, domains)
    assert shifted.shape == images.shape and shifted.dtype == torch.uint8
    for row in range(4):
        assert torch.equal(dataset.shift(images[row : row + 1], domains[row : row + 1]), shifted[row : row + 1])
    assert torch.equal(load(kind, digits)[0].shift(images, domains), shifted)
    assert not torch.equal(load(kind, digits, domain_seed=1)[0].shift(images, domains), shifted)
    assert not torch.equal(dataset.shift(images, domains + 1), shifted)
    assert (shifted == shifted[:, :1]).all()  # still grey


def test_a_permutation_moves_every_pixel_once(digits):
    dataset, images, _ = load(PermMnist, digits)
    orders = dataset.permutations
    assert orders.shape == (1000, 784)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(784).expand(1000, -1))
    assert len({tuple(order) for order in orders.tolist()}) == 1000
    assert not torch.equal(orders[0], torch.arange(784))  # the first domain is permuted, too
    raw = torch.from_numpy(np.array(images[:3]))
    shifted = dataset.shift(raw, torch.tensor([5, 5, 5]))
    expected = raw.flatten(2)[:, :, orders[5]].view_as(raw)
    assert torch.equal(shifted, expected)


def test_permutations_as_in_posterior_meta_replay(digits):
    """RandomState(42), images with an edge, the first domain as it is; the calls of the release's data handlers."""
    dataset, images, _ = load(PermMnist, digits, permutations="henning")
    assert dataset.native_size == 32 and PermMnist().native_size == RotMnist().native_size == 28
    raw = torch.from_numpy(np.array(images[:3]))
    edged = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    edged[:, :, 2:30, 2:30] = raw
    draw = np.random.RandomState(42)
    first, second = draw.permutation(1024), draw.permutation(1024)
    shifted = dataset.shift(raw, torch.tensor([0, 2, 1]))
    assert torch.equal(shifted[0], edged[0])
    assert torch.equal(shifted[1].flatten(1), edged[1].flatten(1)[:, second])
    assert torch.equal(shifted[2].flatten(1), edged[2].flatten(1)[:, first])
    bare, _, _ = load(PermMnist, digits, permutations="henning", padding=0)
    assert torch.equal(bare.shift(raw, torch.tensor([0, 0, 0])), raw)
    expected = raw.flatten(2)[:, :, np.random.RandomState(42).permutation(784)].view_as(raw)
    assert torch.equal(bare.shift(raw, torch.tensor([1, 1, 1])), expected)
    seeded, _, _ = load(PermMnist, digits, permutations="henning", domain_seed=3)
    assert not torch.equal(seeded.shift(raw, torch.tensor([1, 1, 1])), dataset.shift(raw, torch.tensor([1, 1, 1])))


def test_a_rotation_turns_as_torchvision_does(digits):
    dataset, _, _ = load(RotMnist, digits)
    angles = dataset.angles
    assert angles.shape == (1000,) and 0 <= angles.min() < 1 and 179 < angles.max() < 180
    # A blob off the centre: nearest pixels may round otherwise at its edge.
    image = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    image[:, :, 3:9, 16:24] = 200
    for domain in range(8):
        ours = dataset.shift(image, torch.tensor([domain]))
        assert set(ours.unique().tolist()) == {0, 200}
        turned = [vision.rotate(image, sign * angles[domain].item(), InterpolationMode.NEAREST) for sign in (1, -1)]
        differences = [(ours != other).float().mean().item() for other in turned]
        assert min(differences) < 0.01
    dataset.angles = torch.tensor([0.0, 90.0, 180.0])
    assert torch.equal(dataset.shift(image, torch.tensor([0])), image)
    assert torch.equal(dataset.shift(image, torch.tensor([2])), image.rot90(2, (2, 3)))
    quarter = dataset.shift(image, torch.tensor([1]))
    assert any(torch.equal(quarter, image.rot90(turns, (2, 3))) for turns in (1, 3))
    grey = torch.full((1, 3, 28, 28), 9, dtype=torch.uint8)
    dataset.angles = torch.tensor([45.0])
    assert dataset.shift(grey, torch.tensor([0]))[0, 0, 0, 0] == 0  # black fills the corners


def test_digits_are_shifted_by_few_pixels_and_domains_are_not_augmented(digits):
    images = torch.rand(8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(PermMnist().augment(images, generator), images)
    assert torch.equal(RotMnist().augment(images, generator), images)
    assert not torch.equal(SeqMnist().augment(images, generator), images)


# The set of images and the stream


@KINDS
def test_a_domain_set_names_every_image_under_every_transform(kind, digits):
    dataset, images, labels = load(kind, digits)
    rows = np.array([29, 3, 4, 11])
    images_of = DomainSet(images, labels, CPU, rows, dataset, 3)
    assert len(images_of) == 12
    assert images_of.labels.tolist() == [d * 10 + labels[row] for d in range(3) for row in rows]
    chosen = torch.tensor([0, 11, 5, 4])
    raw = torch.from_numpy(np.array(images[rows[[0, 3, 1, 0]]]))
    assert torch.equal(images_of.raw(chosen), dataset.shift(raw, torch.tensor([0, 2, 1, 1])))
    options = plans.make({"model": "er", "dataset": NAMES[kind], "n_tasks": 3}).run
    assert isinstance(image_set(dataset, options, (images, labels), CPU, None), DomainSet)
    plain = image_set(SeqMnist(), options, (images, labels), CPU, None)
    assert type(plain) is ImageSet and len(plain) == 30


def test_a_task_shows_all_images_under_one_transform():
    labels = torch.tensor([0, 1, 2, 1, 0])
    targets = torch.cat([labels + 3 * domain for domain in range(4)])
    stream = DomainIncremental(targets, 3, 4, seed=1, batch_size=2, num_epochs=2)
    assert (stream.num_tasks, stream.num_domains, stream.num_classes) == (4, 4, 3)
    assert stream.num_images() == 20 and stream.num_batches() == 2 * 4 * 3
    orders = set()
    for task in range(4):
        assert stream.task_classes(task) == [0, 1, 2]
        for epoch in range(2):
            draws = [draw.indices.tolist() for draw in stream.batches(task, epoch)]
            assert [len(draw) for draw in draws] == [2, 2, 1]
            drawn = sum(draws, [])
            assert sorted(drawn) == list(range(5 * task, 5 * task + 5))
            orders.add(tuple(index - 5 * task for index in drawn))
    assert len(orders) > 4  # every pass has an order of its own
    same, other = (DomainIncremental(targets, 3, 4, seed, 2, 2) for seed in (1, 2))
    order = [torch.cat([draw.indices for draw in s.batches(0, 0)]).tolist() for s in (stream, same, other)]
    assert order[0] == order[1] != order[2]


# Classes met


def test_a_class_has_one_slot_in_all_domains_and_is_met_in_each():
    seen = SeenClasses(3, num_domains=4)
    seen.add(torch.tensor([2, 0]))
    assert seen.labels == [2, 0] and len(seen) == 2
    assert seen.slots(torch.arange(12)).tolist() == [1, -1, 0] + [-1] * 9
    seen.add(torch.tensor([3 + 1, 3 + 0]))  # a class that is new, in another domain
    assert seen.labels == [2, 0, 1] and len(seen) == 3
    assert seen.slots(torch.arange(12)).tolist() == [1, -1, 0, 1, 2, -1] + [-1] * 6
    seen.add(torch.tensor([1, 9 + 2, 9 + 2]))
    assert seen.labels == [2, 0, 1] and seen.met == [2, 0, 4, 3, 1, 11]
    assert seen.slots(torch.arange(12)).tolist() == [1, 2, 0, 1, 2, -1, -1, -1, -1, -1, -1, 0]


def test_classes_met_in_domains_come_back():
    first, second = (SeenClasses(3, num_domains=4) for _ in range(2))
    first.add(torch.tensor([2, 7, 3, 2]))
    second.add(torch.tensor([0, 1]))
    second.load_state_dict(first.state_dict())
    assert second.met == first.met and second.labels == first.labels
    assert torch.equal(second.slots(torch.arange(12)), first.slots(torch.arange(12)))
    first.add(torch.tensor([11]))
    assert second.slots(torch.tensor([11])).tolist() == [-1]


# Runs


def start(kind, digits, model: str = "er", listener: Listener | None = None, **run) -> Run:
    """A run on three domains of the miniature."""
    words = {"model": model, "dataset": NAMES[kind], "n_tasks": 3, "batch_size": 8, "online_iter": 2, "eval_period": 20}
    plan = plans.make({"eval_batch_size": 16} | words | run).with_seed(1)
    dataset, *part = load(kind, digits)
    test = load(kind, digits, False)[1:]
    images = tuple(image_set(dataset, plan.run, images, CPU, None) for images in (part, test))
    stream = make_stream(plan.run, {}, images[0].labels, dataset.num_classes)
    vit = tiny_vit().requires_grad_(False)
    torch.manual_seed(plan.run.init_seed)
    trainer = assemble(plan, dataset, vit, images, stream, 32)
    trainer.listeners = [] if listener is None else [listener]
    return Run(trainer.model, trainer, trainer.model.info, {})


class Saver(Listener):
    """Keeps the state after every batch, as bytes."""

    def __init__(self):
        self.states: list[bytes] = []

    def progress(self, trainer):
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        self.states.append(file.getvalue())


@pytest.mark.parametrize("kind, model", [(PermMnist, "er"), (RotMnist, "dualprompt"), (PermMnist, "coda")])
def test_a_run_resumes_exactly_in_the_middle_of_a_domain(kind, model, digits):
    saver = Saver()
    whole = start(kind, digits, model, saver)
    whole.trainer.train()
    assert len(saver.states) == 12  # three domains of four batches
    for number in (1, 4, 5, 9):
        resumed = start(kind, digits, model)
        torch.manual_seed(99)  # of another process
        resumed.trainer.load_state_dict(torch.load(io.BytesIO(saver.states[number]), weights_only=True))
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        assert_same_weights(weights_of(resumed.model), weights_of(whole.model))


def test_a_run_tests_on_the_domains_met(digits):
    run = start(PermMnist, digits)
    sizes = []
    evaluator = run.trainer.evaluator

    def watched(model, seen):
        sizes.append((seen.slots(evaluator.images.labels) >= 0).sum().item())
        return evaluator(model, seen)

    run.trainer.evaluator = watched
    history = run.trainer.train()
    ends = [size for size, row in zip(sizes, history.rows, strict=True) if row["kind"] == "task_end"]
    assert ends == [10, 20, 30]
    assert [row["classes_exposed"] for row in history.rows if row["kind"] == "task_end"] == [10] * 3
    assert run.trainer.images_met == 90 and sorted(run.trainer.seen.labels) == list(range(10))
    assert sorted(run.trainer.seen.met) == list(range(30))


def test_held_out_images_come_in_every_domain(digits):
    dataset, images, labels = load(PermMnist, digits)
    rows, held = hold_out(labels, 0.4)
    sets = [DomainSet(images, labels, CPU, part, dataset, 2) for part in (rows, held)]
    assert len(sets[0]) == 40 and len(sets[1]) == 20
    shown = [{image.numpy().tobytes() for image in part.raw(torch.arange(len(part)))} for part in sets]
    assert not shown[0] & shown[1]


@pytest.fixture
def words(digits, glyph_weights, tmp_path):
    places = {"data_dir": digits, "cache_dir": tmp_path / "cache", "results": tmp_path / "runs"}
    given = ["--model", "er", "--device", "cpu", "--backbone", "vit_tiny_glyphs", "--backbone_path", glyph_weights]
    given += [word for option, folder in places.items() for word in (f"--{option}", folder)]
    return [*map(str, given), "--batch_size", "16", "--online_iter", "1", "--eval_period", "-1"]


@pytest.mark.parametrize("name", ["perm-mnist", "rot-mnist"])
def test_the_command_on_three_domains(name, words, capsys):
    assert main.main([*words, "--dataset", name, "--n_tasks", "3", "--domain_seed", "5"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["scenario"] == "domain-il" and summary["samples"] == 90 and summary["complete"]
    stream = pd.read_csv(folder / "stream.csv")
    assert sorted(stream["index"]) == list(range(90))
    assert stream.groupby("task")["label"].nunique().tolist() == [10] * 3
    per_class = pd.read_csv(folder / "per_class.csv")
    assert per_class["label"].value_counts().tolist() == [3] * 10


def test_the_number_of_domains_is_twenty_by_default():
    for name in ("perm-mnist", "rot-mnist"):
        plan = plans.make({"model": "er", "dataset": name})
        assert (plan.run.scenario, plan.run.n_tasks) == ("domain-il", 20)
        assert plan.origins["run"]["n_tasks"] == name


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--dataset", "perm-mnist", "--scenario", "si-blurry"], "--scenario si-blurry: perm-mnist comes in domains"),
        (["--dataset", "rot-mnist", "--scenario", "class-il"], "--scenario class-il: rot-mnist comes in domains"),
        (["--dataset", "seq-mnist", "--scenario", "domain-il"], "--scenario domain-il: seq-mnist has no domains"),
        (["--dataset", "seq-digits", "--scenario", "domain-il"], "--scenario domain-il: seq-digits has no domains"),
        (["--dataset", "perm-mnist", "--n_tasks", "1001"], "--n_tasks 1001: perm-mnist has at most 1000 domains"),
        (["--dataset", "perm-mnist", "--model", "supervised"], "--scenario domain-il: supervised runs on shuffled"),
        (["--dataset", "perm-mnist", "--domain_seed", "-1"], "--domain_seed -1: must be at least 0"),
        (["--dataset", "seq-mnist", "--domain_seed", "1"], "unknown option --domain_seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_scenarios_that_do_not_fit(options, reason, words, tmp_path, capsys):
    assert main.main([*words, *options]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1 and reason in error
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


def test_a_stream_needs_a_domain():
    with pytest.raises(UsageError, match="--n_tasks 0"):
        plans.parse(["--model", "er", "--dataset", "perm-mnist", "--n_tasks", "0"])
