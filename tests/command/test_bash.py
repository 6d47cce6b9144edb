"""The bash files of command/: for every method they ask main.py for a run that it can plan, on every dataset."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from backbone.sources import SOURCES
from tests.tiny import ROOT
from utils import plan as plans
from utils.registry import DATASETS

COMMAND = ROOT / "command"
SEVEN = ["er", "l2p", "dualprompt", "coda", "mvp", "misa", "mepo"]
ONBOARD = {"glyphs", "icons", "perm-digits", "seq-digits", "seq-emoji", "seq-glyphs", "seq-glyphs-dev"}
ONBOARD |= {"seq-characters", "seq-icons", "seq-icons-dev", "modes-2d", "regression-1d", "sines", "seq-sines"}
FILES = sorted({*DATASETS.files()} - ONBOARD - {"imagenet", "omniglot", "seq-gem", "seq-omniglot"})

RECORDER = """#!/usr/bin/env bash
if [ "$1 $2" = "main.py report" ]; then shift 2; echo "REPORT $*" >>"$RECORD"; exit 0; fi
if [ "$1 $2" = "main.py choose" ]; then shift 2; echo "CHOOSE $*" >>"$RECORD"; [ $CHOSEN ] && echo $CHOSEN; exit; fi
if [ "$1" = main.py ]; then
    shift
    line="$(printf '%q ' "$@")"
    echo "$line" >>"$RECORD"
    before=
    for word; do
        [ "$before" != --results ] || echo "$word/run" | sed 's,//*,/,g; s,^[.]/,,' # as main.py has it
        before="$word"
    done
    exit 0
fi
exec {python} "$@"
"""


@pytest.fixture
def recorded(tmp_path):
    """Runs a bash file with an interpreter that only writes down what main.py would be called with."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(RECORDER.format(python=sys.executable))
    (venv / "bin" / "python").chmod(0o755)
    (venv / "pyvenv.cfg").touch()
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
    (venv / ".requirements.sha256").write_text(digest + "\n")

    def run(file: str, *words: str, code: int = 0, rows: str = "", **variables: str) -> list[str]:
        record = tmp_path / "record"
        record.unlink(missing_ok=True)
        environment = os.environ | {"VENV": str(venv), "RECORD": str(record), "CHOSEN": "0.003"} | variables
        done = subprocess.run(
            ["bash", str(COMMAND / file), *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            input=rows,
        )
        assert done.returncode == code, done.stderr
        return record.read_text().splitlines() if record.exists() else [done.stderr.splitlines()[-1]]

    return run


@pytest.fixture
def pictures(tmp_path):
    """Two classes of three images."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "pictures" / name / f"{k}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("dataset", FILES)
def test_every_method_can_be_planned(dataset, recorded, pictures, capsys):
    lines = recorded(f"{dataset.replace('-', '_')}.sh", "--dry_run", DATA_ROOT=str(pictures), SEEDS="3 4")
    assert len(lines) == len(SEVEN)
    network = "vit_tiny_glyphs" if dataset == "seq-folder" else "sup21k"
    for method, line in zip(SEVEN, lines, strict=True):
        if dataset != "seq-imr" and method != "mepo":  # the sizes of each method are the same on all of them
            plan = plans.parse(shlex.split(line))
            assert (plan.run.model, plan.run.dataset, plan.seeds()) == (method, dataset, (3, 4))
            assert plan.run.backbone == network
            continue
        assert main.main(shlex.split(line)) == 0, line
        out = capsys.readouterr().out
        expected = "mepo (misa)" if method == "mepo" else method
        assert out.startswith(f"{expected} on {dataset}, seeds 3 4\n")
        assert f"  network   {network}, " in out and " GFLOP per test image" in out


def test_named_methods_and_options_are_passed_on(recorded):
    lines = recorded(
        "seq_imr.sh", "ranpac", "slca", "--backbone", "dino1k", DATA_ROOT="/a b", CKPT_ROOT="/c", RESULTS="/r"
    )
    *runs, report = lines
    assert report == "REPORT /r/seq-imr"
    words = shlex.split(runs[0])
    pairs = dict(zip(words, words[1:], strict=False))
    assert (pairs["--model"], pairs["--dataset"], pairs["--backbone"]) == ("ranpac", "seq-imr", "dino1k")
    assert (pairs["--data_dir"], pairs["--checkpoint_dir"], pairs["--resume"]) == ("/a b", "/c", "auto")
    assert words[words.index("--seeds") + 1 :][:5] == ["1", "2", "3", "4", "5"]
    assert shlex.split(runs[1])[:2] == ["--model", "slca"] and len(runs) == 2


@pytest.mark.parametrize("given", [["--seeds", "7", "8"], ["--seed", "7"], ["--seeds=7"]])
@pytest.mark.parametrize("file", ["seq_folder.sh", "quickstart.sh"])
def test_seeds_that_are_named_take_the_place_of_the_usual_ones(file, given, recorded):
    for line in recorded(file, *given):
        assert line.startswith("REPORT") or sum("--seed" in word for word in shlex.split(line)) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_stages_can_be_planned_for_every_source(source, recorded, capsys):
    meta, covariance = recorded("mepo_stages.sh", source, "--dry_run")
    for line, method in ((meta, "mepo_meta"), (covariance, "mepo_cov")):
        assert main.main(shlex.split(line)) == 0
        assert capsys.readouterr().out.startswith(f"{method} on imagenet, seed 1\n")


def test_headers_name_file_and_use():
    for dataset in FILES:
        text = (COMMAND / f"{dataset.replace('-', '_')}.sh").read_text()
        assert f"bash command/{dataset.replace('-', '_')}.sh [METHOD ...]" in text
        assert "# Expected: " in text and text.rstrip().endswith(f'/run.sh" {dataset} "$@"')


def reported(results: str, rows: int, rest: str) -> str:
    """The report of a comparison: of the runs of its rows, whatever lies beside them."""
    return " ".join(["REPORT", *[f"{results}/run"] * rows, rest])


# Real pictures


@pytest.mark.parametrize("name", ["emoji", "icons"])
def test_rows_on_pictures_are_plans_of_ten_seeds(name, recorded):
    *lines, report = recorded(f"compare_{name}.sh", "--host", JOBS="1")
    assert report == reported("runs/compare", len(lines), f"--baseline host --out runs/compare/seq-{name}")
    rows = [plans.parse(shlex.split(line)) for line in lines]
    hosts = {plan.method_args.host for plan in rows if plan.run.model == "mepo"}
    assert hosts == {"l2p", "dualprompt", "coda", "mvp", "misa", "flyprompt", "singleprompt"}
    for part in ("meta_path", "cor_path"):  # each half of MePo alone
        assert len({plan.method_args.host for plan in rows if getattr(plan.method_args, part, None) == "none"}) >= 3
    for plan in rows:
        assert (plan.run.dataset, plan.run.seeds, plan.run.precision) == (f"seq-{name}", (*range(1, 11),), "bf16")
        assert plan.run.backbone == "vit_tiny_icons"


def test_words_that_no_row_has_are_refused(recorded):
    assert recorded("compare_emoji.sh", "--host nobody", code=2) == ["compare: no row has the words '--host nobody'"]


def test_every_method_on_icons_has_seven_settings_to_choose_from(recorded):
    lines = [line for line in recorded("choose_icons.sh", "--model", JOBS="1") if not line.startswith("REPORT")]
    rows = [plans.parse(shlex.split(line)) for line in lines if "--save_to" not in line]
    tried = Counter((plan.run.model, getattr(plan.method_args, "host", None)) for plan in rows)
    assert {plan.run.dataset for plan in rows} == {"seq-icons-dev"} and len(lines) == len(set(lines))
    for (model, host), count in tried.items():
        assert count == {"mepo": 5, "joint": 4}.get(model, 7), (model, host)
    assert len(tried) == 6 + 1 + 7 + 5


# BCL and its baselines

NINE = ["bcl"] * 3 + ["er_ring", "gem", "agem", "ewc", "ftml", "finetune"]
BCL_FILES = {  # samples of memory per task, and the network
    "bcl_glyphs.sh": (65, "resnet18-20-pool"),
    "bcl_perm_mnist.sh": (256, "mlp-128-128-128"),
    "bcl_cifar100.sh": (65, "resnet18-20-pool"),
    "bcl_cub200.sh": (50, "resnet18-64"),
    "bcl_folder.sh": (65, "resnet18-20-pool"),
}


@pytest.mark.parametrize("file", BCL_FILES)
def test_rows_of_bcl_are_plans_of_one_network_and_one_memory(file, recorded):
    *lines, report = recorded(file, SEEDS="3 4")
    memory, network = BCL_FILES[file]
    rows = [plans.parse(shlex.split(line)) for line in lines]
    assert [plan.run.model for plan in rows] == NINE
    for plan in rows:
        assert (plan.run.backbone, plan.run.seeds, plan.tasks.inputs) == (network, (3, 4), "plain")
        assert (plan.run.batch_size, plan.run.online_iter, plan.run.n_tasks) == (10, 1, 20)
        assert plan.run.scenario == ("domain-il" if "mnist" in file else "task-il")
        assert plan.run.model == "finetune" or plan.method_args.n_memories == memory
    told = {"bcl_glyphs.sh": 0.3, "bcl_cifar100.sh": 0.3, "bcl_folder.sh": 0.05}
    assert {plan.method_args.lr for plan in rows[:3]} == {told.get(file, 0.03)}
    assert report.endswith("--baseline er_ring")


def test_the_table_of_bcl_is_run_with_the_rates_that_were_chosen(recorded):
    *lines, report = recorded("bcl_digits.sh", JOBS="1")
    rows = [plans.parse(shlex.split(line)) for line in lines]
    assert [plan.run.model for plan in rows] == [*NINE[:4], "er_ring", *NINE[4:]]
    tried = {
        line.split("--seeds")[1].split("runs/choose_bcl")[1] for line in recorded("choose_bcl_digits.sh", JOBS="1")[:-1]
    }
    for line, plan in zip(lines, rows, strict=True):
        assert plan.run.n_tasks == 10 and plan.seeds() == tuple(range(1, 11)) and plan.data.domain_seed == 0
        own = {*line.split("10 --model")[1].split()}
        assert any(own == {*other.split("--model")[1].split()} for other in tried), line
    assert "--baseline er_ring" in report


# Posterior meta-replay and what it is compared with

POSTERIOR = [
    *(("posterior_replay", kind, how) for how in ("replay", "separate", "none") for kind in ("bbb", "dirac")),
    ("vcl", "bbb", "none"),
    ("ewc_posterior", "dirac", "none"),
]
POSTERIOR_FILES = {  # dataset and network
    "posterior_split_mnist.sh": ("seq-mnist", "mlp-100-100"),
    "posterior_perm_mnist.sh": ("perm-mnist", "mlp-1000-1000"),
    "posterior_cifar10.sh": ("seq-cifar10", "resnet32-16"),
}


def planned(lines: list[str]) -> tuple[list, list[tuple[str, str, str]]]:
    """Plans of rows, and what each of them trains."""
    rows = [plans.parse(shlex.split(line)) for line in lines if not line.startswith("REPORT")]
    return rows, [(plan.run.model, plan.method_args.posterior, plan.method_args.protection) for plan in rows]


@pytest.mark.parametrize("file", POSTERIOR_FILES)
def test_rows_of_posteriors_are_plans_with_what_is_published(file, recorded):
    lines = recorded(file, SEEDS="3 4")
    dataset, network = POSTERIOR_FILES[file]
    rows, kinds = planned(lines)
    assert kinds == POSTERIOR and lines[-1] == f"REPORT runs/posterior/{dataset}"
    for plan, (model, posterior, protection) in zip(rows, kinds, strict=True):
        given = {"posterior": posterior, "protection": protection} if model == "posterior_replay" else {}
        published = plans.make({"model": model, "dataset": dataset} | given)
        assert plan.method_args == published.method_args and plan.run.backbone == network
        assert (plan.run.batch_size, plan.run.n_epochs) == (published.run.batch_size, published.run.n_epochs)
        assert plan.tasks.n_iter == published.tasks.n_iter and plan.seeds() == (3, 4)
        assert (plan.run.eval_period, plan.tasks.eval_passes) == (-1, "last")
        if file == "posterior_perm_mnist.sh":
            assert (plan.run.n_tasks, plan.data.permutations, plan.data.padding) == (10, "henning", None)
        else:
            assert (plan.run.n_tasks, plan.tasks.class_order, plan.run.scenario) == (5, "natural", "task-il")
            assert plan.tasks.inputs == ("published" if "cifar" in file else "plain")
            assert not getattr(plan.data, "autoaugment", False)


def test_the_small_network_on_permuted_mnist(recorded):
    rows, kinds = planned(recorded("posterior_perm_mnist.sh", NETWORK="mlp-100-100"))
    assert kinds == POSTERIOR[:4]
    for plan in rows:
        assert (plan.run.backbone, plan.data.padding, plan.method_args.clip_grad_norm) == ("mlp-100-100", 0, 1)
    assert [plan.method_args.chmlp_chunk_size for plan in rows[:2]] == [2900, 750]
    (error,) = recorded("posterior_perm_mnist.sh", NETWORK="mlp-5", code=2)
    assert "published are mlp-100-100 and" in error


def test_rows_on_digits_have_what_is_published_for_split_mnist(recorded):
    *lines, report = recorded("posterior_digits.sh", "--", JOBS="1")
    rows, kinds = planned(lines)
    assert kinds == [*POSTERIOR, POSTERIOR[-1]]
    assert report == reported("runs/posterior", len(lines), "--out runs/posterior/seq-digits")
    for k, (plan, (model, posterior, protection)) in enumerate(zip(rows, kinds, strict=True)):
        given = {"posterior": posterior, "protection": protection} if model == "posterior_replay" else {}
        own = {"det_multi_head": True} if k == len(POSTERIOR) else {}
        published = plans.make({"model": model, "dataset": "seq-mnist"} | given | own)
        assert plan.method_args == published.method_args and plan.tasks.n_iter == published.tasks.n_iter
        assert (plan.tasks.class_order, plan.tasks.inputs) == ("natural", "plain") and plan.run.eval_period == -1
        assert (plan.run.backbone, plan.run.batch_size) == (published.run.backbone, published.run.batch_size)
        assert plan.seeds() == (1, 2, 3, 4, 5)


def test_rows_on_toys_are_the_published_runs(recorded):
    lines = recorded("posterior_toys.sh", "--seeds", JOBS="1")
    assert [line for line in lines if line.startswith("REPORT")] == [
        reported("runs/posterior", 9, f"--out runs/posterior/{dataset}") for dataset in ("modes-2d", "regression-1d")
    ]
    for dataset in ("modes-2d", "regression-1d"):
        rows, kinds = planned([line for line in lines if f"--dataset {dataset}" in line])
        other = ("posterior_replay", "bbb", "replay") if dataset == "regression-1d" else POSTERIOR[-1]
        assert kinds == [*POSTERIOR[:6], POSTERIOR[7], POSTERIOR[6], other]
        assert [len(plan.seeds()) for plan in rows] == [10, 10, 5, 5, 5, 5, 10, 5, 10]
        assert {plan.run.backbone for plan in rows} == {"mlp-10-10"}
        for plan, (model, posterior, protection) in zip(rows[:-1], kinds, strict=False):
            given = {"posterior": posterior, "protection": protection} if model == "posterior_replay" else {}
            assert plan.method_args == plans.make({"model": model, "dataset": dataset} | given).method_args
    alone = recorded("posterior_toys.sh", "--gamma", code=2, JOBS="1")
    assert alone == ["posterior_toys: no row has the words '--gamma'"]
    some = recorded("posterior_toys.sh", "--heads split", JOBS="1")
    assert len(some) == 2 and "--dataset modes-2d" in some[0]


# OML

RATES = [0.003, 0.001, 0.0003]  # tried at first; 0.01 is tried, too, where 0.003 is chosen, and then 0.003 stands
OML_FILES = {  # rows, and what they learn
    "oml_characters.sh": (["oml", "pretraining", "srnn", "scratch", "oracle", "vit"], "seq-characters"),
    "oml_omniglot.sh": (["oml", "oml-2019", "pretraining", "srnn", "scratch", "oracle"], "seq-omniglot"),
}


@pytest.mark.parametrize("file", OML_FILES)
def test_rows_of_oml_are_searched_and_then_run(file, recorded):
    names, dataset = OML_FILES[file]
    lines = recorded(file, "--model", COUNTS="10 50", JOBS="1", RUNS="50")
    plan_of = [plans.parse(shlex.split(line)) for line in lines if line.startswith("--")]
    assert plan_of[0].run.dry_run and plan_of.pop(0).tasks.classes == 50
    stages = [plan for plan in plan_of if plan.run.dataset != dataset]
    runs = [plan for plan in plan_of if plan.run.dataset == dataset]
    assert [plan.run.model for plan in stages][-3:] == ["oml_meta", "supervised", "srnn"]
    assert {plan.run.backbone for plan in stages} == {"conv4-64" if dataset == "seq-characters" else "conv6-256"}
    assert len(runs) == 2 * len(names) * 5
    for k, count in enumerate((10, 50)):
        own = runs[k * 5 * len(names) :][: 5 * len(names)]
        search, last = own[: 4 * len(names)], own[4 * len(names) :]
        assert [plan.method_args.lr for plan in search] == RATES * len(names) + [0.01] * len(names)
        assert {plan.seeds() for plan in search} == {(101, 102, 103, 104, 105)}
        assert {plan.method_args.lr for plan in last} == {0.003} and {plan.seeds() for plan in last} == {
            (*range(1, 51),)
        }
        tried = [name for name in names for _ in RATES]
        for name, plan in zip([*tried, *names, *names], own, strict=True):
            assert (plan.tasks.classes, plan.run.scenario, plan.tasks.class_order) == (count, "class-il", "natural")
            assert (plan.run.batch_size, plan.run.eval_mask, plan.tasks.eval_train) == (1, "none", True)
            mixed = (1, 5) if name == "oracle" else (count, 1)
            assert (plan.run.n_tasks, plan.run.n_epochs) == mixed
    ends = [line for line in lines if line.startswith(("CHOOSE", "REPORT"))]
    assert [line.split()[0] for line in ends] == (["CHOOSE"] * 2 * len(names) + ["REPORT"]) * 2
    for name, line in zip(names, ends):  # the runs of the rates tried, no others that may lie beside them
        *folders, option, lr, by, measure, rule, mode = line.split()[1:]
        assert [folder.split("/search/")[1] for folder in folders] == [f"10/{name}/{rate}/run" for rate in RATES]
        assert [option, lr, by, measure, rule, mode] == ["--option", "lr", "--by", "A_train", "--rule", "mode"]
    results = {plan.run.results for plan in runs if plan.tasks.classes == 50} - {plan.run.results for plan in search}
    assert ends[-1] == reported(*results, len(names), f"--interval --out {[*results][0]}/{dataset}")


@pytest.mark.parametrize("setting, layers, batch", [("2020", 1, 10), ("2019", 2, 32)])
def test_rows_on_sines_are_the_published_runs(setting, layers, batch, recorded):
    *lines, report = recorded("oml_sines.sh", "--model", SETTING=setting, JOBS="1")
    oml, plain, *rows = [plans.parse(shlex.split(line)) for line in lines]
    assert (oml.run.dataset, oml.run.batch_size, oml.method_args.meta_lr) == ("sines", batch, 1e-4)
    assert (oml.method_args.tasks, oml.method_args.update_lr) == (10, 0.003)
    assert (oml.method_args.iid, plain.method_args.iid) == (False, True)
    assert plain.method_args.capacity == oml.method_args.capacity
    assert (plain.method_args == replace(oml.method_args, iid=True, save_to=plain.method_args.save_to)) == (layers == 1)
    for plan in rows:
        assert (plan.run.dataset, plan.run.n_tasks, plan.tasks.classes) == ("seq-sines", 10, 10)
        assert (plan.tasks.n_iter, plan.run.batch_size, plan.method_args.lr) == (40, 32, 0.003)
        assert (plan.method_args.pln_layers, plan.run.backbone) == (layers, oml.run.backbone)
        assert plan.seeds() == (*range(1, 51),)
    assert len(rows) == 3 and "--interval" in report
    assert recorded("oml_sines.sh", SETTING="2018", code=2) == ["oml_sines: SETTING=2018: neither 2019 nor 2020"]


@pytest.mark.parametrize(
    ("rates", "tried"),
    [
        ("0.003", ["0.003"]),
        ("0.01 0.003", ["0.01", "0.003"]),
        ("0.01 0.003 0.001 0.0003 0.0001", ["0.003", "0.001", "0.0003", "0.01"]),  # the best is the first of three
        ("0.03 0.01 0.005 0.003 0.00003", ["0.01", "0.005", "0.003", "3e-05"]),  # the last
        ("0.01 0.003 0.001", ["0.01", "0.003", "0.001"]),
    ],
)
def test_rates_are_tried_as_far_as_the_best_is_at_the_edge(rates, tried, recorded):
    lines = recorded("oml_characters.sh", "--model oml --rln none --backbone", COUNTS="10", JOBS="1", RATES=rates)
    assert searched(lines) == tried


def searched(lines: list[str]) -> list[str]:
    """The rates that were tried."""
    rows = [shlex.split(line) for line in lines if "/search/" in line and not line.startswith("CHOOSE")]
    return [words[words.index("--lr") + 1] for words in rows]


def test_the_edge_is_found_whatever_way_a_rate_is_written(recorded):
    rates = {"RATES": "10 1.0 1e-1 .01 0.001", "CHOSEN": "1.0"}
    lines = recorded("oml_characters.sh", "--model oml --rln none --backbone", COUNTS="10", JOBS="1", **rates)
    assert searched(lines) == ["1", "0.1", "0.01", "10"]


def test_a_search_that_chooses_nothing_ends_it(recorded):
    lines = recorded("oml_characters.sh", "--model", code=1, COUNTS="10", JOBS="1", RATES="0.003", CHOSEN="")
    assert lines[-1].startswith("CHOOSE") and not any("REPORT" in line for line in lines)


@pytest.mark.parametrize("results", ["./some runs/", "some//runs"])
def test_the_folder_of_results_may_be_written_in_any_way(results, recorded):
    given = {"rows": "scratch --model oml --rln none", "COUNTS": "5", "RATES": "0.003", "RESULTS": results}
    lines = recorded("run_oml.sh", "CALLER", "seq-digits", "out", "--model", **given)
    chosen = next(line for line in lines if line.startswith("CHOOSE"))
    assert chosen == f"CHOOSE {Path(results)}/search/5/scratch/0.003/run --option lr --by A_train --rule mode"


def test_folders_of_omniglot_may_have_blanks(recorded):
    places = {"DATA_ROOT": "/my data", "CKPT_ROOT": "/my products"}
    lines = recorded("oml_omniglot.sh", "--model", COUNTS="10", JOBS="1", RATES="0.003", RUNS="1", **places)
    plan_of = [plans.parse(shlex.split(line)) for line in lines if line.startswith("--")]
    assert {plan.run.data_dir for plan in plan_of} == {"/my data"}
    named = [getattr(plan.method_args, "save_to", None) or plan.method_args.rln for plan in plan_of[1:]]
    assert {"/my products/oml_omniglot/2020", "/my products/oml_omniglot/2020/rln.safetensors"} <= {*named}


def test_longer_stages_of_oml_go_to_folders_of_their_own(recorded):
    given = {"COUNTS": "10", "JOBS": "1", "RATES": "0.003"}
    lines = recorded("oml_characters.sh", "--model oml --rln none --backbone", **given, STEPS="8000")
    _, meta, *classifiers = [plans.parse(shlex.split(line)) for line in lines[:4]]
    assert meta.method_args.steps == 8000 and [plan.run.n_epochs for plan in classifiers] == [8, 8]
    assert "characters-8000/" in meta.method_args.save_to and "runs/oml_characters-8000/search/10/" in lines[4]
    assert recorded("oml_characters.sh", STEPS="80", code=2) == ["oml_characters: STEPS=80: give thousands, as 8000"]


def test_rows_of_oml_on_a_blurry_stream_are_searched_where_nobody_looks(recorded):
    lines = recorded("oml_glyphs.sh", "--model", JOBS="1")
    plan_of = [plans.parse(shlex.split(line)) for line in lines if line.startswith("--")]
    assert [(plan.run.model, plan.run.dataset) for plan in plan_of[:2]] == [
        ("oml_meta", "glyphs"),
        ("supervised", "glyphs"),
    ]
    assert {(plan.run.dataset, plan.run.scenario) for plan in plan_of[2:]} == {("seq-glyphs", "si-blurry")}
    searched = [plan for plan in plan_of[2:] if plan.run.validation]
    rows = [plan for plan in plan_of[2:] if not plan.run.validation]
    assert len(rows) == 9 and len(searched) == 3 * 7 and {plan.seeds() for plan in searched} == {(100,)}
    assert {plan.seeds() for plan in rows} == {(1, 2, 3, 4, 5)}
    assert {plan.method_args.lr for plan in rows if plan.run.model not in ("ncm", "ranpac")} == {0.003}  # as chosen
    assert sum(line.startswith("CHOOSE") for line in lines) == 7 and lines[-1].startswith("REPORT")


def test_bad_words_and_numbers_of_oml_are_refused(recorded):
    assert recorded("oml_characters.sh", "nobody", code=2) == ["run_oml: no row has the words 'nobody'"]
    whole = "is no whole number from 1 on"
    for name, value, reason in [
        *(("COUNTS", value, whole) for value in ("fifty", "0", "1.5", "010")),
        *(("COUNTS", " ", whole), ("RATES", " ", "is no number")),
        *(("RUNS", value, whole) for value in ("ten", "0", "1.5")),
        *(("JOBS", value, whole) for value in ("two", "0")),
        *(("RATES", value, "is no number") for value in ("-1", "1.2.3", ".", "1e")),
        ("RUNS", "101", "are more than 100, and seed 101 is one of the search"),
    ]:
        (refused,) = recorded("oml_characters.sh", code=2, **{name: value})
        assert refused.endswith(f": {name}: '{value.strip()}' {reason}")
    (refused,) = recorded("oml_characters.sh", code=2, ARGS="--dry_run")
    assert refused.startswith("run_oml: ARGS has --dry_run, but rows are known when")
    for name, value in (("STEPS", "abc"), ("STEPS", "08"), ("RUNS", "1.9")):
        assert recorded("oml_sines.sh", code=2, **{name: value}) == [f"oml_sines: {name}: '{value}' {whole}"]
    assert recorded("oml_sines.sh", "nobody", code=2) == ["oml_sines: no row has the words 'nobody'"]
    assert recorded("oml_glyphs.sh", "nobody", code=2)[-1] == "oml_glyphs: no row has the words 'nobody'"


# LMSRR and its rivals

PAIR = "vit_tiny_glyphs+vit_tiny_icons"
TWELVE = ["lmsrr"] * 3 + ["er", "der", "derpp", "agem", "fdr", "lwf", "si", "icarl", "finetune"]
LMSRR_FILES = {  # dataset, tasks and passes
    "lmsrr_cifar10.sh": ("seq-cifar10", 5, 1),
    "lmsrr_cifar100.sh": ("seq-cifar100", 10, 1),
    "lmsrr_tinyimg.sh": ("seq-tinyimg", 10, 10),
    "lmsrr_imr.sh": ("seq-imr", 10, 10),
    "lmsrr_cub200.sh": ("seq-cub200", 10, 20),
    "lmsrr_cars196.sh": ("seq-cars196", 14, 20),
    "lmsrr_rot_mnist.sh": ("rot-mnist", 20, 1),
}


def equal(plan, memory: int, tasks: int) -> None:
    """Three blocks of each network train by plain SGD, and the memory is that of the others."""
    own = plan.method_args
    name = plan.run.model
    assert getattr(own, "trainable_blocks" if name == "lmsrr" else "last_blocks") == 3
    assert name == "lmsrr" or own.trainable == "last"
    assert getattr(own, "optimizer", "plain") == ("sgd" if name in ("lwf", "si", "finetune") else "plain")
    sizes = [getattr(own, size, None) for size in ("buffer_size", "memory_size")]
    sizes.append(own.n_memories * tasks if name == "agem" else None)
    kept = [size for size in sizes if size is not None]
    assert all(memory - tasks < size <= memory for size in kept) and len(kept) == (
        name not in ("lwf", "si", "finetune")
    )
    replayed = {"lmsrr": "minibatch_size", "agem": "replay_batch_size"}.get(name, "replay_size")
    assert getattr(own, replayed, 32) == 32
    agem_on_domains = name == "agem" and plan.run.scenario == "domain-il"  # their columns are shared
    assert name == "lmsrr" or own.train_mask == ("seen" if name == "lwf" or agem_on_domains else "none")
    assert name not in ("er", "der", "derpp") or own.exact_reservoir
    assert name != "lwf" or (own.alpha, own.optim_wd) == (0.5, 0)
    assert (plan.run.batch_size, plan.run.online_iter, plan.run.eval_period) == (32, 1, -1)
    assert plan.tasks.inputs == ("plain" if plan.run.dataset == "rot-mnist" else "published")


@pytest.mark.parametrize("file", LMSRR_FILES)
def test_rows_of_lmsrr_are_plans_of_two_networks_and_one_memory(file, recorded):
    *lines, report = recorded(file, SEEDS="3 4", BUFFER="200")
    dataset, tasks, passes = LMSRR_FILES[file]
    rows = [plans.parse(shlex.split(line)) for line in lines]
    assert report == f"REPORT runs/lmsrr/200/{dataset} --baseline derpp"
    apart = {"lwf", "icarl"} if dataset == "rot-mnist" else set()
    assert {plan.run.model for plan in rows} == {*TWELVE} - apart and len(rows) == 10 - len(apart)
    published = plans.make({"model": "lmsrr", "dataset": dataset})
    assert (published.run.n_tasks, published.run.n_epochs) == (tasks, passes)
    for plan in rows:
        equal(plan, 200, tasks)
        assert (plan.run.dataset, plan.run.n_tasks, plan.run.n_epochs) == (dataset, tasks, passes)
        assert plan.run.scenario == ("domain-il" if dataset == "rot-mnist" else "class-il")
        assert (plan.run.backbone, plan.method_args.lr) == ("orig21k_1k+sup21k", 0.03)
        assert (plan.tasks.eval_passes, plan.seeds()) == ("last", (3, 4))
        assert dataset == "rot-mnist" or plan.tasks.class_order == "natural"
        if plan.run.model == "lmsrr":
            assert plan.method_args.alpha == published.method_args.alpha


def test_the_table_of_lmsrr_is_run_with_rates_that_were_tried(recorded):
    lines = recorded("lmsrr_icons.sh", "--backbone", JOBS="1")
    assert [line for line in lines if line.startswith("REPORT")] == [
        reported("runs/lmsrr", 14, f"--out runs/lmsrr/{dataset}") for dataset in ("seq-icons", "seq-glyphs")
    ]
    rates = {word for line in lines for before, word in pairwise(line.split()) if before == "--lr"}
    grids = re.findall(r"RATES:-([^}]*)}", (COMMAND / "choose_lmsrr.sh").read_text())
    assert rates <= {rate for grid in grids for rate in grid.split()}
    told = recorded("choose_lmsrr.sh", JOBS="1", RATES=" ".join(rates))
    tried = [line for line in told if line.startswith("--")]  # others are of runs that this checkout may have
    assert len(tried) == len({*tried}) == 2 * 14 * len(rates)
    chosen = [plans.parse(shlex.split(line)) for line in tried]
    for plan in chosen:
        equal(plan, 100, 5)
        assert (plan.run.n_tasks, plan.run.scenario) == (5, "class-il")
    for stream in ("seq-icons", "seq-glyphs"):
        rows = [plans.parse(shlex.split(line)) for line in lines if f"--dataset {stream} " in line]
        assert [plan.run.model for plan in rows] == [*TWELVE, "derpp", "derpp"]
        assert [plan.run.backbone for plan in rows] == [PAIR] * 12 + PAIR.split("+")
        assert [(plan.method_args.alpha, plan.method_args.fusion) for plan in rows[:3]] == [
            (0.3, "both"),
            (0, "both"),
            (0.3, "none"),
        ]
        for plan in rows:
            equal(plan, 200, 10)
            assert (plan.run.n_tasks, plan.run.scenario) == (10, "class-il") and len(plan.seeds()) == 10
            alike = [
                other
                for other in chosen
                if (other.run.dataset, other.run.model) == (f"{stream}-dev", plan.run.model)
                and (other.run.backbone, other.method_args.lr) == (plan.run.backbone, plan.method_args.lr)
            ]
            assert len(alike) == (3 if plan.run.model == "lmsrr" else 1)
