"""main.py from the command line to the files it leaves, and what it says to bad input."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import main
from command import train
from models.mepo import Mepo
from tests.tiny import ROOT, build, random_covariance
from utils import plan as plans
from utils.args import RunArgs, TaskArgs, method_options, option_names
from utils.errors import UsageError
from utils.registry import DATASETS, METHODS
from utils.runs import identity
from utils.runs.folder import RunFolder, export_complete
from utils.runs.summary import METRICS, Summary
from utils.training.history import History

WIDTH = 128  # of vit_tiny_glyphs

PLUGIN_METHOD = '''
"""Nearest mean of the pixels, a method of one file."""
from dataclasses import dataclass
import torch
from torch import nn
from models.base import ContinualModel, ModelArgs
from utils.args import option

@dataclass(kw_only=True)
class NearestArgs(ModelArgs):
    scale: float = option(3.0, "sharpness", low=0)

class Nearest(ContinualModel):
    Args = NearestArgs
    def __init__(self, backbone, info, args):
        super().__init__(backbone, info, args)
        self.register_buffer("total", torch.zeros(info.num_classes, 3 * info.image_size ** 2))
    def forward(self, x, fixed=None):
        total = nn.functional.normalize(self.total, dim=1)
        return self.args.scale * nn.functional.normalize(x.flatten(1), dim=1) @ total.T
    def observe(self, batch):
        self.total.index_add_(0, batch.y, batch.x.flatten(1))
        return batch.x.new_zeros(())
    def configure_optimizer(self):
        return None
'''

PLUGIN_DATASET = '''
"""Noisy stripes, a dataset of one file."""
import numpy as np
from datasets.base import Dataset

class {name}(Dataset):
    num_classes = {classes}
    image_size = 32
    mean = std = (0.5, 0.5, 0.5)
    def load(self, root, train):
        random = np.random.default_rng(train)
        labels = np.arange(self.num_classes).repeat({images})
        patterns = np.random.default_rng(7).integers(0, 256, (self.num_classes, 3, 32, 1))
        noise = random.integers(-40, 40, (len(labels), 3, 32, 32))
        return (patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels
'''


@pytest.fixture
def plugins(tmp_path):
    """The method `nearest`, and the datasets `stripes` (6 classes of 12 images) and `many-stripes` (50 of 2)."""
    folder = tmp_path / "plugins"
    for kind in ("models", "datasets"):
        (folder / kind).mkdir(parents=True)
    (folder / "models" / "nearest.py").write_text(PLUGIN_METHOD)
    (folder / "datasets" / "stripes.py").write_text(PLUGIN_DATASET.format(name="Stripes", classes=6, images=12))
    (folder / "datasets" / "many_stripes.py").write_text(PLUGIN_DATASET.format(name="Many", classes=50, images=2))
    return folder


@pytest.fixture
def places(tmp_path, glyph_weights):
    """Options that keep a run inside the test's folder."""
    folders = {"data_dir": "data", "cache_dir": "cache", "results": "runs", "checkpoint_dir": "products"}
    words = ["--device", "cpu", "--backbone_path", str(glyph_weights)]
    return words + [word for name, folder in folders.items() for word in (f"--{name}", str(tmp_path / folder))]


def command(*words) -> subprocess.CompletedProcess:
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as in this process: sums differ in the last digit otherwise
    words = [sys.executable, "main.py", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, env=one_thread, capture_output=True, text=True)


def run_folder(out: str) -> Path:
    return Path(out.splitlines()[-1])


def metrics_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns="seconds")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Whole runs


ER = ["--model", "er", "--dataset", "seq-digits", "--lr", "0.06", "--online_iter", "1", "--eval_period", "500"]
COMPLETE = ["config.yaml", "curve.png", "learner.json", "metrics.csv", "model.safetensors", "per_class.csv",
            "state.json", "state.safetensors", "stream.csv", "stream.png", "summary.json"]  # fmt: skip


def test_a_seed_begins_without_the_memory_of_the_one_before(words, tmp_path, monkeypatch):
    """Even if a circle holds it, as the frames of matplotlib do that once failed to parse a text."""
    prepare, earlier = train.prepared, []

    def prepared(job):
        assert not [trainer for trainer in earlier if trainer() is not None]
        trainer, *rest = prepare(job)
        trainer.circle = trainer
        earlier.append(weakref.ref(trainer))
        return trainer, *rest

    monkeypatch.setattr(train, "prepared", prepared)
    gc.disable()
    try:
        assert main.main([*words, "--model", "ncm", "--seeds", "1", "2", "--results", str(tmp_path)]) == 0
    finally:
        gc.enable()
    assert len(earlier) == 2


def test_two_seeds_of_er(tmp_path, places, capsys):
    done = command(*ER, *places, "--seeds", 1, 2)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    folders = [Path(line) for line in done.stdout.splitlines()]
    assert [folder.parent for folder in folders] == [tmp_path / "runs" / "seq-digits" / "er"] * 2
    assert [folder.name.partition("-seed")[2] for folder in folders] == ["1", "2"]
    for seed, folder in enumerate(folders, 1):
        assert files_below(folder) == COMPLETE
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["complete"] and summary["seed"] == seed and summary["samples"] == 1437
        assert summary["A_last"] > 0.2 and summary["A_auc"] > 0.15  # chance: 0.1
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["run"]["stream_seed"] == config["run"]["train_seed"] == seed
        assert (config["method"]["lr"], config["origin"]["lr"]) == (0.06, "command line")
        assert (config["run"]["batch_size"], config["origin"]["batch_size"]) == (32, "er")
        stream = pd.read_csv(folder / "stream.csv")
        assert sorted(stream["index"]) == list(range(1437))
        per_class = pd.read_csv(folder / "per_class.csv")
        assert per_class["accuracy"].between(0, 1).all() and set(per_class["label"]) == set(range(10))
        metrics = metrics_of(folder)
        assert metrics["kind"].value_counts().to_dict() == {"task_end": 5, "anytime": 2}
        assert load_file(folder / "model.safetensors")["head.weight"].shape == (10, WIDTH)
    first, second = map(metrics_of, folders)
    assert not first["accuracy"].equals(second["accuracy"])

    assert main.main([*ER, *places, "--seed", "1"]) == 0  # in another process, and alone
    again = run_folder(capsys.readouterr().out)
    assert again not in folders
    pd.testing.assert_frame_equal(metrics_of(again), first, check_exact=True)
    alike = load_file(again / "model.safetensors"), load_file(folders[0] / "model.safetensors")
    assert all(torch.equal(alike[0][name], alike[1][name]) for name in alike[1])


def test_new_method_and_dataset_in_a_folder_of_ones_own(plugins, places):
    words = ["--plugins", plugins, "--model", "nearest", "--dataset", "stripes"]
    done = command(*words, *places, "--scale", 2, "--n_tasks", 2)
    assert done.returncode == 0, done.stderr
    folder = run_folder(done.stdout)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["label"] == "nearest" and summary["A_last"] > 0.9
    assert yaml.safe_load((folder / "config.yaml").read_text())["method"] == {"scale": 2.0}


QUICK = ["--n_tasks", "1", "--online_iter", "1", "--eval_period", "-1"]


def test_mepo_with_products_given(plugins, places, glyph_weights, tmp_path, in_process, capsys):
    refined = tmp_path / "refined.safetensors"
    save_file({name: 0.9 * value for name, value in load_file(glyph_weights).items()}, refined)
    covariance = tmp_path / "covariance.npy"
    np.save(covariance, random_covariance(WIDTH))
    words = ["--plugins", str(plugins), "--model", "mepo", "--dataset", "stripes", *QUICK, *places]
    assert main.main([*words, "--meta_path", str(refined), "--cor_path", str(covariance), "--host", "dualprompt"]) == 0
    folder = run_folder(capsys.readouterr().out)
    assert files_below(folder) == COMPLETE
    assert json.loads((folder / "summary.json").read_text())["label"] == "mepo (dualprompt)"
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["backbone.cls_token"], load_file(refined)["cls_token"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["host"]["len_g_prompt"] == 5 and config["method"]["cor_path"] == str(covariance)
    assert not (tmp_path / "products").exists()


def test_mepo_makes_its_products_once(plugins, tmp_path, in_process, capsys):
    """On a small timm network, whose stages take seconds."""
    folder = tmp_path / "products"
    places = ["--results", str(tmp_path / "runs"), "--checkpoint_dir", str(folder), "--device", "cpu"]
    network = ["--backbone", "test_vit", "--backbone_path", "random"]
    words = ["--plugins", str(plugins), "--model", "mepo", "--dataset", "stripes", "--pretrain", "many-stripes"]
    words += ["--load_pt", "none"]
    assert main.main([*words, *network, *QUICK, *places]) == 0
    first = capsys.readouterr()
    made = files_below(folder)
    assert [Path(name).name for name in made] == [
        "config.yaml", "covariance.npy", "manifest.json",
        "config.yaml", "manifest.json", *(f"meta_epoch_{epoch}.safetensors" for epoch in range(6)),
    ]  # fmt: skip
    assert {Path(name).parts[0] for name in made} == {"test_vit"}
    assert first.err.count("is not there yet; making it with") == 2
    stages = sorted({Path(name).parent for name in made})
    for stage, model in zip(stages, ("mepo_cov", "mepo_meta"), strict=True):
        config = yaml.safe_load((folder / stage / "config.yaml").read_text())
        assert (config["run"]["model"], config["run"]["dataset"]) == (model, "many-stripes")
    covariance = np.load(folder / stages[0] / "covariance.npy")
    assert covariance.shape == (64, 64) and np.linalg.matrix_rank(covariance) == 49

    times = {name: (folder / name).stat().st_mtime_ns for name in made}
    assert main.main([*words, *network, *QUICK, *places]) == 0
    second = capsys.readouterr()
    assert {name: (folder / name).stat().st_mtime_ns for name in files_below(folder)} == times
    assert "making it" not in second.err
    pd.testing.assert_frame_equal(metrics_of(run_folder(first.out)), metrics_of(run_folder(second.out)))


def test_parameters_that_are_frozen_on_the_way_count_as_trainable(plugins, tmp_path, in_process, capsys):
    places = ["--results", str(tmp_path), "--backbone", "test_vit", "--backbone_path", "random", "--device", "cpu"]
    words = ["--plugins", str(plugins), "--model", "ranpac", "--dataset", "stripes", "--rp_dim", "16", *QUICK, *places]
    assert main.main(words) == 0
    summary = json.loads((run_folder(capsys.readouterr().out) / "summary.json").read_text())
    assert summary["trainable_parameters"] > 1000  # the adapters; at the end nothing trains


def test_misa_warms_its_prompts_once(plugins, tmp_path, in_process, capsys):
    """Stage one with prompts of the shape that is asked for; the stream starts from what it leaves."""
    folder = tmp_path / "products"
    places = ["--results", str(tmp_path / "runs"), "--checkpoint_dir", str(folder), "--device", "cpu"]
    words = ["--plugins", str(plugins), "--model", "misa", "--dataset", "stripes"]
    pretrained = ["--pretrain", "many-stripes"]
    words += ["--backbone", "test_vit", "--backbone_path", "random", "--pos_e_prompt", "2", "--len_e_prompt", "3"]
    assert main.main([*words, *pretrained, *QUICK, *places]) == 0
    first = capsys.readouterr()
    assert first.err.count("is not there yet; making it with misa_isa on many-stripes") == 1
    made = files_below(folder)
    assert [Path(name).name for name in made] == ["config.yaml", "e_prompt.pt", "g_prompt.pt", "manifest.json"]
    assert torch.load(folder / made[1], weights_only=True).shape == (10, 3, 64)
    config = yaml.safe_load((folder / made[0]).read_text())
    assert config["run"]["scenario"] == "adaptation" and config["method"]["pos_e_prompt"] == [2]
    warm = load_file(run_folder(first.out) / "model.safetensors")

    times = {name: (folder / name).stat().st_mtime_ns for name in made}
    prompts = ["--load_pt", str((folder / made[1]).parent)]
    for given in (pretrained, prompts):
        assert main.main([*words, *QUICK, *places, *given]) == 0
        again = capsys.readouterr()
        assert "making it" not in again.err
        weights = load_file(run_folder(again.out) / "model.safetensors")
        assert all(torch.equal(weights[name], warm[name]) for name in warm)
    assert {name: (folder / name).stat().st_mtime_ns for name in files_below(folder)} == times
    assert main.main([*words, *QUICK, *places, "--load_pt", "none"]) == 0
    cold = load_file(run_folder(capsys.readouterr().out) / "model.safetensors")
    assert not torch.equal(cold["e_prompt.prompts"], warm["e_prompt.prompts"])


def test_products_are_named_by_what_they_depend_on(glyph_weights, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({name: value + 1 for name, value in load_file(glyph_weights).items()}, other)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(glyph_weights.read_bytes())

    def outputs(weights, **given):
        place = {"backbone_path": str(weights), "checkpoint_dir": str(tmp_path)}
        usual = {"model": "mepo", "dataset": "seq-digits", "load_pt": "none"}
        plan = plans.make(usual | place | given).with_seed(given.get("seed", 1))
        return [stage.output for stage in Mepo.prepare(plan.run, plan.method_args)]

    assert len(outputs(glyph_weights)) == 2
    assert outputs(glyph_weights) == outputs(copy) == outputs(copy, seed=2)
    assert outputs(copy) == outputs(copy, host="dualprompt", n_tasks=3)
    for different in (outputs(other), outputs(copy, pretrain="seq-digits")):
        assert not set(different) & set(outputs(copy))
    refined = outputs(copy, meta_path=str(other))
    assert [path.name for path in refined] == ["covariance.npy"]
    assert refined[0] not in outputs(copy)
    assert outputs(copy, cor_coef=0.0) == outputs(copy)[:1]
    assert outputs(copy, meta_path="none", cor_path="none") == []
    warm = outputs(copy, load_pt=None)  # the host's own stage comes last, whatever MePo needs
    assert [path.name for path in warm] == [*(path.name for path in outputs(copy)), "e_prompt.pt"]
    assert outputs(copy, load_pt=None, meta_path="none", cor_path="none") == warm[-1:]
    assert outputs(other, load_pt=None)[-1] != warm[-1]


def test_failed_stage_leaves_no_product_behind(plugins, tmp_path, in_process, capsys, monkeypatch):
    from models.mepo_meta import MepoMeta

    monkeypatch.setattr(MepoMeta, "loss", lambda self, batch: self.head[0].bias.sum() * float("nan"))
    words = ["--plugins", str(plugins), "--model", "mepo", "--dataset", "stripes", "--pretrain", "many-stripes"]
    words += ["--load_pt", "none"]
    places = ["--results", str(tmp_path / "runs"), "--checkpoint_dir", str(tmp_path / "products"), "--device", "cpu"]
    assert main.main([*words, "--backbone", "test_vit", "--backbone_path", "random", *places]) == 1
    assert "the loss is not finite" in capsys.readouterr().err.splitlines()[-1]
    left = [Path(name).name for name in files_below(tmp_path / "products")]
    assert left == ["meta_epoch_0.safetensors"]  # the untouched backbone, which no later run takes for the product


@pytest.mark.parametrize("name", METHODS.files())
def test_published_values_are_options_of_the_method_or_the_run(name):
    kind = METHODS.load(name)
    for key, table in kind.published.items():
        known = option_names(RunArgs) | option_names(TaskArgs) | option_names(kind.Args)
        hosts = [key.removeprefix("host ").partition(" on ")[0]] if key.startswith("host ") else []
        if method_options(kind.Args) and not hosts:
            hosts = [kind.Args().host]
        for host in hosts:
            known |= option_names(METHODS.load(host).Args)
        dataset = key.rpartition(" on ")[2]
        if DATASETS.is_known(dataset):
            known |= option_names(DATASETS.load(dataset).Args)
        assert table.keys() <= known, key


def test_values_that_a_wrapper_publishes_for_a_host():
    def resolved(**given):
        plan = plans.make({"model": "mepo", "dataset": "seq-digits"} | given)
        return plan.method_args.cor_coef, plan.method_args.align_when, plan.method_args.host

    assert resolved() == (0.7, "always", "misa")
    assert resolved(host="l2p") == (0.5, "always", "l2p")
    assert resolved(host="mvp") == (0.5, "training", "mvp")
    assert resolved(host="mvp", cor_coef=0.3, align_when="always") == (0.3, "always", "mvp")


def test_values_that_a_wrapper_publishes_for_a_network():
    """More special ones win: the host on that network over the network, the dataset over both."""

    def rate(dataset: str, **given) -> float:
        return plans.make({"model": "mepo", "dataset": dataset} | given).method_args.host_args.lr

    assert rate("seq-emoji", host="dualprompt") == rate("seq-digits", backbone="vit_tiny_icons") == 0.015
    assert rate("seq-emoji", host="coda") == 0.005 == rate("seq-glyphs", host="l2p", backbone="vit_tiny_icons")
    assert rate("seq-emoji", host="coda", lr=0.1) == 0.1


def test_values_that_a_method_publishes_for_its_variants(monkeypatch):
    """Above those for every run and for the dataset; which variant it is, the command line or the default says."""
    from models.posterior_replay import PosteriorReplay

    def resolved(*words: str) -> tuple[float, float, int, str]:
        plan = plans.parse(["--model", "posterior_replay", "--dataset", "seq-digits", *words])
        return plan.method_args.lr, plan.method_args.beta, plan.run.n_epochs, plan.origins["method"].get("lr", "")

    published = {
        "*": {"lr": 0.1, "beta": 0.1, "n_epochs": 2},
        "dirac replay": {"lr": 0.2, "n_epochs": 3},
        "seq-digits": {"beta": 0.3},
        "dirac replay on seq-digits": {"beta": 0.4},
        "dirac none on seq-mnist": {"lr": 0.5},
    }
    monkeypatch.setattr(PosteriorReplay, "published", published)
    assert resolved() == resolved("--protection", "none") == (0.1, 0.3, 2, "posterior_replay")
    assert resolved("--posterior", "dirac") == (0.2, 0.4, 3, "posterior_replay dirac replay")
    assert resolved("--posterior", "dirac", "--protection", "none") == (0.1, 0.3, 2, "posterior_replay")
    assert resolved("--posterior", "dirac", "--beta", "0.6", "--n_epochs", "1")[1:3] == (0.6, 1)
    published["dirac replay"]["protection"] = "none"
    with pytest.raises(UsageError, match="posterior_replay dirac replay: published sets protection, whose value says"):
        resolved("--posterior", "dirac")


# Help


@pytest.mark.parametrize("name", METHODS.files())
def test_help_of_every_method(name, capsys):
    assert main.main(["--model", name, "--dataset", "seq-digits", "--help"]) == 0
    text = capsys.readouterr().out
    kind = METHODS.load(name)
    for option in plans.option_names(kind.Args) | {"n_tasks", "seeds"}:
        assert f"--{option} " in text or f"--{option}," in text, option
    document = (sys.modules[kind.__module__].__doc__ or "").strip()
    assert document.splitlines()[0] in text


def test_help_shows_the_value_that_would_hold_and_its_origin(capsys):
    main.main(["--model", "mepo", "--host", "dualprompt", "--lr", "0.1", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "options of its host" in text and "--len_e_prompt" in text
    assert "learning rate of Adam, constant [0.1; command line]" in text
    main.main(["--model", "er", "--help"])
    assert "images of a stream batch [32; er]" in " ".join(capsys.readouterr().out.split())
    main.main(["--model", "posterior_replay", "--protection", "separate", "--dataset", "modes-2d", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "learning rate, constant [0.001; posterior_replay bbb separate on modes-2d]" in text
    assert "instead of passes [10001; posterior_replay bbb separate on modes-2d]" in text


def test_overview_lists_every_method_and_dataset(capsys):
    main.main(["--help"])
    text = capsys.readouterr().out
    for registry in (METHODS, DATASETS):
        for name in registry.files():
            assert f"  {name} " in text and registry.describe(name) in text


# Bad input


def refused(words, tmp_path, capsys) -> str:
    """The one line of a refusal; nothing may be left behind."""
    assert main.main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "products").exists()
    return err


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--model", "mesa"], "unknown model 'mesa'; did you mean 'misa'?"),
        (["--model", "dualpromt"], "did you mean 'dualprompt'?"),
        (["--dataset", "seq-digit"], "unknown dataset 'seq-digit'; did you mean 'seq-digits'?"),
        (["--memory_sise", "5"], "unknown option --memory_sise; did you mean --memory_size?"),
        (["--memory_sise=5"], "did you mean --memory_size?"),
        (["--len_e_prompt", "5"], "unknown option --len_e_prompt"),  # of another method
        (["--mem", "5"], "unknown option --mem"),  # no abbreviations
        (["stray"], "unknown option stray"),
        (["--lr"], "--lr: expected one argument"),
        (["--lr", "fast"], "--lr: invalid float value: 'fast'"),
        (["--lr", "nan"], "--lr nan: must be a finite number"),
        (["--lr", "-0.1"], "--lr -0.1: must be in 0 ... 100"),
        (["--batch_size", "0"], "--batch_size 0: must be at least 1"),
        (["--batch_size", "2.5"], "--batch_size: invalid int value: '2.5'"),
        (["--replay_size", "0"], "--replay_size 0: must be in 1 ... 10000"),
        (["--n", "102"], "--n 102: must be in 0 ... 101"),
        (["--m", "-1"], "--m -1: must be in 0 ... 100"),
        (["--n_tasks", "0"], "--n_tasks 0: must be in 1 ... 10000"),
        (["--seed", "-1"], "--seed -1: must be in 0 ... 2147483647"),
        (["--seeds", "1", "4294967296"], "--seeds 4294967296: must be in"),
        (["--seeds", "1", "2", "1"], "--seeds 1 2 1: a seed stands there twice"),
        (["--eval_period", "0"], "--eval_period 0: give a number"),
        (["--optimizer", "lion"], "--optimizer: invalid choice: 'lion' (choose from"),
        (["--scenario", "class_il"], "--scenario: invalid choice"),
        (["--scenario", "shuffled"], "--scenario shuffled: er runs on si-blurry or class-il"),
        (["--scenario", "class-il", "--n_tasks", "11"], "--n_tasks 11: a class-incremental split of 10 classes"),
        (["--no-varying", "--n_tasks", "3"], "--no-varying needs the 7 blurry classes"),
        (["--no-varying", "--n", "101"], "--n 101 (natural class order) exists only with --varying"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "meta"], "--device meta: only cpu and cuda"),
        (["--plugins", "no/such/folder"], "--plugins no/such/folder"),
        (["--backbone", "vit_tiny_glyph"], "did you mean 'vit_tiny_glyphs'?"),
        (["--backbone", "resnet18"], "--backbone resnet18"),
        (["--backbone", "vit_tiny_patch16_224"], "the network needs"),  # the file is of another network
        (["--model", "misa", "--load_pt", "none", "--pos_g_prompt", "6"], "--pos_g_prompt 6: the backbone has blocks"),
        (["--model", "misa", "--load_pt", "no/such/folder"], "no/such/folder/g_prompt.pt"),
        (["--model", "misa", "--pretrain", "glyph"], "unknown dataset 'glyph'; did you mean 'glyphs'?"),
        (["--model", "misa_isa", "--online_iter", "3"], "--online_iter 3: misa_isa repeats its updates by --updates"),
        (["--model", "misa_isa"], "--num_sessions 10: only 9 of the 10 classes are session classes"),
        (
            ["--model", "misa_isa", "--num_sessions", "2", "--session_share", "1"],
            "--session_share 1.0: no image is left",
        ),
        (
            ["--model", "misa_isa", "--num_sessions", "2", "--projector_factor", "999"],
            "--projector_factor 999: prompts",
        ),
        (["--model", "mepo", "--host", "mesa"], "unknown model 'mesa'"),
        (["--model", "mepo", "--host", "mepo"], "--host mepo: "),
        (["--model", "mepo", "--host", "slca"], "--host slca: MePo wraps prompt methods"),
        (
            ["--model", "mepo", "--host", "ncm", "--backbone", "vit_tiny_icons"],  # which has no option --lr
            "--host ncm: MePo wraps prompt methods",
        ),
        (["--model", "joint", "--host", "mepo"], "--host mepo: "),
        (["--model", "joint", "--host", "si"], "--host si: runs on class-il or task-il or domain-il, and a method to"),
        (["--model", "mepo", "--host", "mepo_cov"], "--host mepo_cov: "),
        (["--model", "mepo", "--host", "misa_isa"], "--host misa_isa: "),
        (["--model", "mepo", "--pretrain", "glyph"], "unknown dataset 'glyph'; did you mean 'glyphs'?"),
        (["--model", "mepo", "--cor_coef", "1.5"], "--cor_coef 1.5: must be in 0 ... 1"),
        (["--model", "mepo", "--meta_path", "no/such/file"], "no/such/file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_answered_in_one_line(words, reason, places, tmp_path, capsys):
    given = ["--model", "er", "--dataset", "seq-digits", *places]
    assert reason in refused([*given, *words], tmp_path, capsys)  # of an option given twice the last counts


def test_missing_names(tmp_path, capsys):
    assert "--model is missing" in refused(["--dataset", "seq-digits"], tmp_path, capsys)
    assert "--dataset is missing" in refused(["--model", "er"], tmp_path, capsys)


def spoilt_weights(file: Path, how: str) -> str:
    state = load_file(file)
    if how == "NaN":
        state["norm.weight"][0] = float("nan")
    elif how == "does not fit":
        del state["cls_token"]
    elif how == "shape":
        state["pos_embed"] = state["pos_embed"][:, :-1].contiguous()
    save_file(state, file)
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "missing":
        file.unlink()
    return str(file)


@pytest.mark.parametrize(
    "how, reason",
    [
        ("missing", "no such file"),
        ("truncated", "cannot be read"),
        ("NaN", "norm.weight holds values that are not finite"),
        ("does not fit", "missing ['cls_token']"),
        ("shape", "pos_embed has shape [1, 16, 128], the network needs [1, 17, 128]"),
    ],
)
@pytest.mark.parametrize(
    "words", [["--model", "er"], ["--model", "mepo", "--load_pt", "none", "--cor_path", "none"]], ids=["er", "mepo"]
)
def test_bad_weight_files(words, how, reason, places, glyph_weights, tmp_path, capsys):
    file = tmp_path / "spoilt.safetensors"
    file.write_bytes(glyph_weights.read_bytes())
    option = "--backbone_path" if words[1] == "er" else "--meta_path"
    words = [*words, "--dataset", "seq-digits", *places, option, spoilt_weights(file, how)]
    message = refused(words, tmp_path, capsys)
    assert reason in message and str(file) in message


class Gadget:
    """Runs code when unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


BARE = ["--load_pt", "none", "--meta_path", "none"]  # MePo that needs no stage


def asymmetric():
    matrix = random_covariance(WIDTH)
    matrix[0, 1] += 1
    return matrix


def with_value(value):
    matrix = random_covariance(WIDTH)
    matrix[3, 4] = matrix[4, 3] = value
    return matrix


@pytest.mark.parametrize(
    "matrix, reason",
    [
        (lambda: random_covariance(WIDTH - 1), "the backbone needs float [128, 128]"),
        (lambda: random_covariance(WIDTH)[0], "the backbone needs float [128, 128]"),
        (lambda: np.eye(WIDTH, dtype=int), "the backbone needs float [128, 128]"),
        (lambda: np.eye(WIDTH, dtype=complex), "the backbone needs float [128, 128]"),
        (asymmetric, "not symmetric"),
        (lambda: random_covariance(WIDTH) - np.eye(WIDTH), "not positive semi-definite"),
        (lambda: 100 * np.eye(WIDTH) - np.diag([100.001] + [0] * (WIDTH - 1)), "not positive semi-definite"),
        (lambda: with_value(np.nan), "not finite"),
        (lambda: with_value(-np.inf), "not finite"),
        (lambda: 1e300 * np.eye(WIDTH), "not finite"),
        (lambda: np.full((WIDTH, WIDTH), None), "cannot be read as .npy"),
    ],
    ids=["width", "vector", "integers", "complex", "asymmetric", "negative", "just", "nan", "inf", "huge", "objects"],
)
def test_bad_covariances(matrix, reason, places, tmp_path, capsys):
    file = tmp_path / "covariance.npy"
    np.save(file, matrix())
    words = ["--model", "mepo", "--dataset", "seq-digits", *places, *BARE, "--cor_path", file]
    message = refused(words, tmp_path, capsys)
    assert reason in message and str(file) in message


def test_damaged_covariance_files(places, tmp_path, capsys):
    file, trace = tmp_path / "covariance.npy", tmp_path / "trace"
    words = ["--model", "mepo", "--dataset", "seq-digits", *places, *BARE, "--cor_path", file]
    np.save(file, random_covariance(WIDTH))
    whole = file.read_bytes()
    open_header = whole[:10] + b"(" + whole[11:]
    truncated = [whole[:length] for length in (0, 5, 60, 500, len(whole) - 1)]
    for content in (*truncated, b"PK\x03\x04" + whole, open_header, b"noise" * 99):
        file.write_bytes(content)
        assert "cannot be read as .npy" in refused(words, tmp_path, capsys)
    np.save(file, np.array([Gadget(trace)], dtype=object), allow_pickle=True)
    assert "cannot be read as .npy" in refused(words, tmp_path, capsys)
    assert not trace.exists()
    file.unlink()
    assert "no such file" in refused(words, tmp_path, capsys)


def test_good_covariance_of_low_rank_is_taken(tmp_path):
    from models.mepo import load_covariance

    for dtype in (np.float32, np.float64):
        means = np.random.default_rng(0).normal(size=(10, WIDTH))
        np.save(tmp_path / "covariance.npy", np.cov(means.T).astype(dtype))
        loaded = load_covariance(tmp_path / "covariance.npy", WIDTH)
        assert loaded.dtype == torch.float32
        np.testing.assert_allclose(loaded.numpy(), np.cov(means.T), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", ["--results", "--checkpoint_dir", "--cache_dir"])
def test_file_in_the_way_of_a_folder(option, places, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    model = {"--checkpoint_dir": ["--model", "mepo", "--pretrain", "seq-digits"]}.get(option, ["--model", "er"])
    dataset = "seq-glyphs" if option == "--cache_dir" else "seq-digits"
    assert main.main([*model, "--dataset", dataset, *places, option, str(tmp_path / "file" / "below")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and str(tmp_path / "file") in error
    assert (tmp_path / "file").read_text() == "kept"
    assert files_below(tmp_path) == ["file"]


def test_refusal_of_the_whole_program_shows_no_traceback(places, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("--model", "er", "--dataset", "seq-digits", *places, "--results", tmp_path / "file")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --results") and done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(places):
    with pytest.raises(plans.UsageError):
        main.main(["--model", "er", "--dataset", "seq-digits", *places, "--debug", "--batch_size", "0"])


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "exactly one subclass of ContinualModel, found 0"),
        (PLUGIN_METHOD + "\nclass Second(Nearest):\n    pass\n", "exactly one subclass of ContinualModel, found 2"),
    ],
)
def test_plugin_file_that_is_no_method(text, reason, plugins, places, tmp_path, in_process, capsys):
    (plugins / "models" / "nearest.py").write_text(text)
    words = ["--plugins", plugins, "--model", "nearest", "--dataset", "stripes", *places]
    assert reason in refused(words, tmp_path, capsys)


def test_plugin_under_a_name_that_is_taken(plugins, places, tmp_path, in_process, capsys):
    (plugins / "models" / "er.py").write_text(PLUGIN_METHOD)
    words = ["--plugins", plugins, "--model", "er", "--dataset", "stripes", *places]
    assert "the name 'er' is taken by" in refused(words, tmp_path, capsys)


def test_class_incremental_run(plugins, places, in_process, capsys):
    words = ["--plugins", str(plugins), "--model", "er", "--dataset", "stripes", *places]
    scenario = ["--scenario", "class-il", "--n_tasks", "3"]
    assert main.main([*words, *scenario, "--online_iter", "1", "--n_epochs", "2", "--eval_period", "-1"]) == 0
    folder = run_folder(capsys.readouterr().out)
    stream = pd.read_csv(folder / "stream.csv")
    assert stream.groupby("label")["task"].nunique().tolist() == [1] * 6
    assert stream.groupby("task")["label"].nunique().tolist() == [2, 2, 2]
    metrics = metrics_of(folder)
    assert metrics["kind"].tolist() == ["task_end"] * 6 and metrics["classes_exposed"].tolist() == [2, 2, 4, 4, 6, 6]


# Runs that are planned, not repeated, exported


def test_dry_run_says_what_would_be_done_and_writes_nothing(places, tmp_path, capsys):
    assert main.main([*ER, *places, "--seeds", "1", "2", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("er on seq-digits, seeds 1 2\n")
    assert "1,437 training and 360 test images, 10 classes, 32 x 32 px" in out
    assert "1,218,186 parameters, 1,290 of them trained" in out
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("method", ["mepo_meta", "mepo_cov", "misa_isa", "oml_meta", "supervised"])
def test_a_stage_makes_the_place_of_its_product_when_it_runs_and_not_before(method, tmp_path, capsys):
    place = tmp_path / "products" / "a"
    words = ["--model", method, "--dataset", "seq-digits", "--device", "cpu", "--save_to", str(place)]
    words += {"misa_isa": ["--num_sessions", "2"], "mepo_meta": ["--num_tasks", "5"]}.get(method, [])
    assert main.main([*words, "--dry_run"]) == 0
    train.check(plans.parse([*words, "--results", str(tmp_path / "runs")]).with_seed(1))
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_so_many_batches_and_a_model_per_task(tmp_path, capsys):
    assert main.main(["--model", "ewc_posterior", "--dataset", "modes-2d", "--n_iter", "70", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "60 training and 600 test samples" in out and "batches of 32, 1 updates each, 70 batches of each task" in out
    assert "not counted: each task has a model" in out and "FLOP" not in out


def test_dry_run_counts_the_test_images_of_every_domain(capsys):
    cost, words = {}, ["--model", "finetune", "--dataset", "perm-digits", "--backbone", "vit_tiny_glyphs", "--dry_run"]
    for tasks in ("20", "80"):
        assert main.main([*words, "--n_tasks", tasks]) == 0
        cost[tasks] = float(re.search(r"([\d.,]+) in \d+ evaluations", capsys.readouterr().out)[1].replace(",", ""))
    assert 15 < cost["80"] / cost["20"] < 17  # four times as many evaluations, each of four times as many images


def test_dry_run_names_missing_weights_and_stages(tmp_path, capsys):
    words = ["--model", "mepo", "--host", "l2p", "--dataset", "seq-imr", "--checkpoint_dir", str(tmp_path)]
    assert main.main([*words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "weights   missing; " in out and "ViT-B_16.npz" in out
    assert "stage     mepo_meta on imagenet (to be made)" in out
    assert main.main(words) == 2  # without --dry_run it is an error
    assert "ViT-B_16.npz" in capsys.readouterr().err


def test_complete_run_is_not_repeated(places, tmp_path, capsys):
    words = [*ER, *places, "--resume", "auto"]
    assert main.main([*words, "--seeds", "1"]) == 0
    first = run_folder(capsys.readouterr().out)
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    assert main.main([*words, "--seeds", "1", "2"]) == 0
    again, other = map(Path, capsys.readouterr().out.splitlines())
    assert again == first and other != first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert main.main([*words, "--seeds", "1", "--lr", "0.05"]) == 0  # another setting is another run
    assert run_folder(capsys.readouterr().out) not in (first, other)
    (first / "summary.json").unlink()  # a run that did not end
    assert main.main([*words, "--seeds", "1"]) == 0
    assert run_folder(capsys.readouterr().out) != first


def test_a_run_that_left_a_file_is_not_repeated_and_may_leave_it_again(tmp_path, capsys):
    words = ["--model", "supervised", "--dataset", "seq-digits", "--backbone", "mlp-8", "--device", "cpu"]
    words += ["--results", str(tmp_path / "runs"), "--save_to", str(tmp_path / "made" / "net.safetensors")]
    assert main.main([*words, "--n_epochs", "1"]) == 0
    first = run_folder(capsys.readouterr().out)
    assert main.main([*words, "--n_epochs", "1", "--resume", "auto"]) == 0
    assert run_folder(capsys.readouterr().out) == first
    assert main.main([*words, "--n_epochs", "2"]) == 0


def test_exported_network_loads_as_a_bare_vit(places, glyph_weights, tmp_path, capsys):
    assert main.main([*ER, *places, "--export", "pth"]) == 0
    state = torch.load(run_folder(capsys.readouterr().out) / "backbone.pth", weights_only=True)
    assert state.keys() == load_file(glyph_weights).keys()
    assert all(torch.equal(state[name], value) for name, value in load_file(glyph_weights).items())


def test_weights_from_elsewhere_are_reported(places, glyph_weights, capsys):
    assert main.main([*ER, *places]) == 0
    assert f"{glyph_weights}: 78 tensors loaded, none ignored, none missing\n" in capsys.readouterr().err


def test_options_of_a_dataset_are_its_own(tmp_path, capsys):
    assert main.main(["--model", "er", "--dataset", "seq-cub200", "--help"]) == 0
    assert "--split {authors,official}" in capsys.readouterr().out
    assert main.main(["--model", "er", "--dataset", "seq-digits", "--split", "official"]) == 2
    assert "unknown option --split" in capsys.readouterr().err
    plan = plans.parse(["--model", "er", "--dataset", "seq-imagenet-r", "--skip_bad"])
    assert plan.run.dataset == "seq-imr" and plan.settings()["data"]["skip_bad"] is True


def test_a_complete_run_is_exported_from_its_weights(places, glyph_weights, capsys):
    assert main.main([*ER, *places]) == 0
    later = run_folder(capsys.readouterr().out)
    again = [*ER, *places, "--resume", "auto", "--export", "pth"]
    assert main.main(again) == 0
    assert run_folder(capsys.readouterr().out) == later
    state = torch.load(later / "backbone.pth", weights_only=True)
    assert state.keys() == load_file(glyph_weights).keys()
    assert all(torch.equal(state[name], value) for name, value in load_file(glyph_weights).items())
    (later / "backbone.pth").write_bytes(b"?")  # of somebody who was interrupted
    assert main.main(again) == 0
    assert torch.load(later / "backbone.pth", weights_only=True).keys() == state.keys()
    (later / "backbone.pth").unlink()
    file = later / "model.safetensors"
    file.write_bytes(file.read_bytes() + b"?")
    capsys.readouterr()
    assert main.main(again) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --export pth: ") and "is not as the run left it" in error
    assert not (later / "backbone.pth").exists()
    file.unlink()  # no complete run any more, so it is repeated
    assert main.main(again) == 0
    said = capsys.readouterr()
    assert f"{file} is gone" in said.err and (run_folder(said.out) / "backbone.pth").exists()


def test_backbone_of_a_wrapper_is_found_under_its_first_name(tmp_path):
    model = build("joint", {"host": "finetune"}).model
    folder = RunFolder(tmp_path)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "checkpoints").mkdir()
    numbers = dict.fromkeys((*METRICS, "samples", "seconds", "trainable_parameters"), 0)
    summary = Summary(label="x", dataset="y", seed=1, needs_task_boundaries=False, **numbers)
    folder.write_end(summary, History(), model, "pth")
    first = (tmp_path / "backbone.pth").read_bytes()
    (tmp_path / "backbone.pth").unlink()
    names = list(model.backbone.state_dict())
    export_complete(tmp_path, names)
    assert (tmp_path / "backbone.pth").read_bytes() == first
    with pytest.raises(UsageError, match="has no elsewhere of the backbone"):
        export_complete(tmp_path, [*names, "elsewhere"])


SHORT = ["--model", "er", "--dataset", "seq-digits", "--validation", "0.5"]  # 721 images; period of the dataset: 100


def test_a_short_stream_is_evaluated_ten_times_and_says_so(places, capsys):
    words = [*SHORT, *places, "--resume", "auto", "--device", "cpu", "--online_iter", "1"]
    assert main.main(words) == 0
    out, err = capsys.readouterr()
    folder = run_folder(out)
    assert "--eval_period 72 instead of 100: the stream has only 721 images" in err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run"]["eval_period"] == 72
    assert config["origin"]["eval_period"] == "seq-digits: a tenth of the stream"
    kinds = pd.read_csv(folder / "metrics.csv")["kind"].tolist()
    assert kinds.count("anytime") >= 10
    assert json.loads((folder / "summary.json").read_text())["A_auc"] > 0
    assert main.main(words) == 0  # the same run
    assert run_folder(capsys.readouterr().out) == folder
    # A run that began before there were such periods is the same, and goes on with the one it has.
    old = config | {"run": config["run"] | {"eval_period": 100}, "origin": {}}
    for given, same in (([], True), (["--eval_period", "100"], True), (["--eval_period", "300"], False)):
        plan = plans.parse([*words, *given]).with_seed(1)
        here = identity.without_content(identity.config(plan))
        assert (identity.differences(old, here) == []) == same


@pytest.mark.parametrize("form", [["--results", "~/runs"], ["--results=~/runs"]])
def test_the_home_folder_is_known_in_every_path(form, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = plans.parse(["--model", "er", "--dataset", "seq-digits", *form, "--data_dir", "~"]).run
    assert (args.results, args.data_dir) == (str(tmp_path / "runs"), str(tmp_path))


def test_a_home_that_nobody_has_is_one_line(capsys):
    for words in (
        ["--model", "er", "--dataset", "seq-digits", "--results"],
        ["report", "--out"],
        ["doctor", "--results"],
    ):
        assert main.main([*words, "~no.such.user/x"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ~no.such.user/x: ") and error.count("\n") == 1
