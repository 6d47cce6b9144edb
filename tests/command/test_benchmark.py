"""`main.py benchmark`: what it counts, what it writes, and every bad input in one line before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command import measured, workload
from command.benchmark import PROMPT_METHODS, SUITES
from tests.command.test_predict import refused
from utils import machine
from utils.phases import Phases
from utils.report import speed
from utils.report.speed import BACKWARD, BATCH, DRAW, FIRST, FORWARD, LATER, OPTIMISER, PARTS, QUERY, TRANSFORM

BATCH_SIZE = 4
SMALL = ["--backbones", "vit_tiny_icons", "--batch_size", BATCH_SIZE, "--device", "cpu"]
CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch):
    """Products of the limit that take no time."""
    monkeypatch.setattr(measured, "SQUARE", (8, 8, 8))
    monkeypatch.setattr(machine, "LONG", 0.0)


@pytest.fixture
def unmeasured(monkeypatch):
    """Fails if anything is measured."""

    def measure(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(measured, "measure", measure)


def plan_of(word: str, folder: Path, backbone: str = "vit_tiny_icons", precision: str = "32"):
    (subject,) = workload.subjects_of([word], [backbone], [precision])
    plan = workload.plan_of(subject, BATCH_SIZE, CPU, folder)
    for args in (plan.method_args, getattr(plan.method_args, "host_args", None)):
        if hasattr(args, "rp_dim"):
            args.rp_dim = 64  # of a router of 10,000 features, whose ridge takes seconds
    return plan


# What methods cost, counted

# Passes of the network per training image, of three updates, and per test image, without and with known queries.
WITH_QUERY, WITHOUT = (2 * workload.UPDATES, 2, 1), (workload.UPDATES, 1, 1)
PASSES = dict.fromkeys(PROMPT_METHODS, WITH_QUERY)
PASSES |= {"flyprompt": (workload.UPDATES + 1, 2, 1), "singleprompt": WITHOUT}  # its router learns once per image
PASSES |= {f"mepo:{host}": passes for host, passes in PASSES.items()}


@pytest.mark.parametrize("word", PASSES)
def test_passes_of_the_network(word, tmp_path):
    """One more per update or per evaluation is what a day of a run is made of."""
    torch.manual_seed(0)
    trainer = workload.trainer_of(plan_of(word, tmp_path), 1)
    met: list[int] = []
    for block in (trainer.model.backbone.blocks[0], trainer.model.backbone.blocks[-2]):
        block.mlp.register_forward_hook(lambda _, inputs, output: met.append(len(output)))

    def passes(images: int) -> float:
        total = sum(met) / 2 / images
        met.clear()
        return total

    training, evaluated, later = PASSES[word]
    trainer.learn(trainer.images, BATCH_SIZE)
    assert passes(len(trainer.images)) == training
    for expected in (evaluated, later, later):
        trainer.evaluator(trainer.model, trainer.seen)
        assert passes(len(trainer.evaluator.images)) == expected


@torch.no_grad()
@pytest.mark.parametrize("word", PASSES)
def test_known_queries_change_no_bit(word, tmp_path):
    torch.manual_seed(0)
    trainer = workload.trainer_of(plan_of(word, tmp_path), 1)
    with torch.enable_grad():
        trainer.learn(trainer.images, BATCH_SIZE)
    model = trainer.model.eval()
    x = trainer.transform.test(trainer.images.raw(torch.arange(2 * BATCH_SIZE)))
    query = model.fixed_features(x)
    assert torch.equal(model(x, query), model(x))


def test_what_a_method_draws_of_its_memory_is_timed_as_drawn_and_transformed(tmp_path):
    trainer, phases, met = workload.trainer_of(plan_of("er", tmp_path), 1), Phases(), []
    for owner, name in ((trainer.images, "raw"), (trainer.transform, "train"), (trainer.transform, "test")):
        work = getattr(owner, name)
        setattr(owner, name, lambda *given, work=work: met.append(phases.now) or work(*given))
    measured.watch(trainer, phases)
    info = trainer.model.info
    images = info.images(torch.arange(2))
    info.augment(images), info.plain(images)
    assert met == [DRAW, TRANSFORM, TRANSFORM]


def test_every_prompt_method_is_counted():
    assert {*SUITES["readme"][0]} == PASSES.keys()


# GFLOP per image of one update's forward and backward pass on the reference, measured on the authors' code.
WRITTEN = {"dualprompt": (1.529, 0.846), "l2p": (1.760, 1.105), "mvp": (1.468, 0.846), "coda": (1.559, 0.880)}


@pytest.mark.parametrize("word", WRITTEN)
def test_flops_as_written(word, tmp_path):
    plan = plan_of(word, tmp_path, workload.REFERENCE)
    with torch.device("meta"):
        found = workload.as_written(plan, workload.network_of(workload.REFERENCE))
    forward, backward = WRITTEN[word]
    assert found["test"] / 1e9 == pytest.approx(forward, abs=6e-4)
    assert found["train"] / 3e9 == pytest.approx(forward + backward, abs=1.1e-3)
    wrapped = plan_of(f"mepo:{word}", tmp_path, workload.REFERENCE)
    with torch.device("meta"):
        assert workload.as_written(wrapped, workload.network_of(workload.REFERENCE)) == found
        assert workload.as_written(plan_of("flyprompt", tmp_path), workload.network_of("vit_tiny_icons")) is None


# What it says and writes


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    """A file of results."""
    import main

    file = tmp_path_factory.mktemp("speed") / "a.json"
    words = ["benchmark", "--methods", "dualprompt", "mepo:singleprompt", "--precisions", "32", "bf16", *SMALL]
    words += ["--repeats", "2", "--json", file]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "SQUARE", (8, 8, 8))
        patch.setattr(machine, "LONG", 0.0)
        assert main.main([str(word) for word in words]) == 0
    return file


def test_the_file(result):
    cases = {(case.method, case.precision): case for case in speed.read(result).cases}
    assert [*cases] == [(m, p) for m in ("dualprompt", "mepo:singleprompt") for p in ("32", "bf16")]
    for (method, precision), case in cases.items():
        assert (case.size, case.batch_size, case.updates, case.device) == (32, BATCH_SIZE, 3, "cpu")
        assert len(case.repeats) == 2
        parts = {*PARTS} - ({QUERY} if method == "mepo:singleprompt" else set())
        for repeat in case.repeats:
            assert repeat.seconds.keys() & {*PARTS} == parts
            assert sum(repeat.seconds[part] for part in parts) == pytest.approx(repeat.seconds[BATCH])
            assert repeat.limit.keys() == {"32", precision} and repeat.limit["32"].keys() == {"square", "network"}
        assert sum(case.flops.get(part, 0) for part in parts) == pytest.approx(case.flops[BATCH])
        assert (case.as_written is None) == (method == "mepo:singleprompt")
    plain, single = cases["dualprompt", "32"], cases["mepo:singleprompt", "32"]
    assert plain.flops[FIRST] - plain.flops[LATER] == pytest.approx(plain.flops[QUERY] / 3, rel=0.05)  # and embedding
    assert single.flops[FIRST] == single.flops[LATER]
    assert plain.flops[FORWARD] > plain.flops[QUERY] > 0 and plain.flops[BACKWARD] > 0.9 * plain.flops[QUERY]
    # Attention counts at both precisions, whichever way it is computed.
    assert plain.flops == cases["dualprompt", "bf16"].flops


def test_tables_of_a_file_against_itself(result, said, unmeasured):
    code, lines, errors = said("benchmark", "--show", result, "--against", result)
    assert (code, errors) == (0, [])
    assert lines[0].startswith("cpu ") and "torch " in lines[0]
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| mepo")] == ["mepo:singleprompt"] * 2
    assert sum(line.startswith("| phase") for line in lines) == 8  # 4 cases, alone and compared
    assert sum(line.startswith(f"| {OPTIMISER} ") and " 1.00 (" in line for line in lines) == 4
    code, brief, _ = said("benchmark", "--show", result, "--suite", "readme")
    assert code == 0 and brief == lines[: len(brief)] and len(brief) < 12


def test_a_method_without_prompts(said, quick, tmp_path):
    words = ["--methods", "er", "ncm", "--backbones", "resnet18-2", "--precisions", "32", "--batch_size", 3]
    code, lines, errors = said("benchmark", *words, "--repeats", 1, "--device", "cpu", "--json", tmp_path / "a.json")
    assert code == 0 and [error.partition(":")[0] for error in errors] == [
        f"{name} on resnet18-2, 32 px, 32, cpu, batches of 3, 3 updates each" for name in ("er", "ncm")
    ]
    assert "1 repeat," in errors[0]
    first, second = speed.read(tmp_path / "a.json").cases
    assert BACKWARD in first.repeats[0].seconds and BACKWARD not in second.repeats[0].seconds
    assert first.repeats[0].limit["32"].keys() == {"square"}


@pytest.mark.parametrize("lacks", [True, False])
def test_bf16_is_measured_unasked_where_the_cpu_has_it(lacks, said, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.device.lacks_bf16", lambda device: lacks)
    words = ["--methods", "ncm", "--backbones", "resnet18-2", "--batch_size", 3, "--repeats", 1, "--device", "cpu"]
    code, _, errors = said("benchmark", *words, "--json", tmp_path / "a.json")
    assert code == 0 and ("bf16 is left out" in errors[0]) == lacks
    assert [case.precision for case in speed.read(tmp_path / "a.json").cases] == (["32"] if lacks else ["32", "bf16"])


def test_time_ends_the_repeats_but_not_the_first(said, quick, tmp_path):
    words = ["--methods", "singleprompt", "--precisions", "32", "--repeats", 1000, "--seconds", 1, *SMALL]
    code, _, _ = said("benchmark", *words, "--json", tmp_path / "a.json")
    assert code == 0 and 1 <= len(speed.read(tmp_path / "a.json").cases[0].repeats) < 1000


# What it refuses


@pytest.mark.parametrize(
    "words, parts",
    [
        (["--methods", "dualpromt"], ["did you mean 'dualprompt'?"]),
        (["--methods", "mepo_cov"], ["mepo_cov: runs on shuffled", "learn si-blurry"]),
        (["--methods", "bcl"], ["bcl: runs on task-il or domain-il"]),
        (["--methods", "er:l2p"], ["er wraps no other method"]),
        (["--methods", "mepo:er"], ["MePo wraps prompt methods"]),
        (["--methods", "mepo:mepo"], ["does not learn a stream by itself"]),
        (["--methods", "l2p", "--backbones", "resnet18-20"], ["--backbone", "works inside of a ViT"]),
        (["--backbones", "vit_tiny_icon"], ["vit_tiny_icon"]),
        (["--precisions", "16"], ["--precisions 16", "32 or bf16"]),
        (["--batch_size", "0"], ["--batch_size 0"]),
        (["--repeats", "0"], ["--repeats 0"]),
        (["--seconds", "nan"], ["--seconds nan"]),
        (["--device", "tpu"], ["--device tpu"]),
        (["--suite", "all"], ["readme"]),
        (["--method", "l2p"], ["did you mean --methods?"]),
    ],
)
def test_bad_words(words, parts, said, unmeasured):
    refused(said("benchmark", *words), *parts)


def test_bad_files(said, tmp_path, result, unmeasured):
    refused(said("benchmark", "--json", tmp_path), "is a folder")
    (tmp_path / "file").write_text("no result")
    refused(said("benchmark", "--json", tmp_path / "file" / "a.json"), "is no folder")
    refused(said("benchmark", "--json", tmp_path / "a.json", "--show", result), "--show and --json")
    refused(said("benchmark", "--batch_size", "4", "--show", result), "--show and --batch_size")
    for option in ("--show", "--against"):
        refused(said("benchmark", option, tmp_path / "gone"), "gone: cannot be read (No such file")
        refused(said("benchmark", option, tmp_path / "file"), "is no result of the benchmark")
    other = ["--against", result, "--methods", "l2p", "--batch_size", "5"]
    refused(said("benchmark", *other), "has none of these cases")


@pytest.mark.parametrize(
    "change, part",
    [
        ({"speed": 2}, "is of a newer version (format 2"),
        ({"speed": True}, "is no result"),
        ({"machine": None}, "is damaged"),
        ({"cases": [{}]}, "is damaged"),
        ({"cases": 3}, "is damaged"),
    ],
)
def test_files_of_others(change, part, said, tmp_path, result, unmeasured):
    found = json.loads(result.read_text()) | change
    (tmp_path / "b.json").write_text(json.dumps(found))
    refused(said("benchmark", "--show", tmp_path / "b.json"), part)


def test_numbers_that_are_none(said, tmp_path, result):
    for place, name, value in (("seconds", "training batch", None), ("limit", "32", None), ("limit", "other", {})):
        found = json.loads(result.read_text())
        found["cases"][0]["repeats"][0][place][name] = value
        (tmp_path / "b.json").write_text(json.dumps(found))
        refused(said("benchmark", "--show", tmp_path / "b.json"), "is damaged")
    assert said("benchmark", "--show", result)[0] == 0
