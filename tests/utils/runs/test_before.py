"""What earlier versions left: a run that was stopped, its checkpoint, and the folder of a stage's product.

`before/` holds them as commit 72cb453 wrote them, which knew no options of tasks, and of `finetune` no `--optimizer`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import main
from command.train import is_made
from utils import plan as plans
from utils.files.manifest import write_manifest
from utils.runs import identity

BEFORE = Path(__file__).parent / "before"
WORDS = ["--model", "finetune", "--trainable", "head", "--dataset", "seq-digits", "--n_tasks", "3"]
WORDS += ["--online_iter", "1", "--eval_period", "300", "--device", "cpu", "--resume", "auto"]


@pytest.fixture
def stopped(tmp_path) -> Path:
    folder = tmp_path / "runs" / "seq-digits" / "finetune" / "20261127-031203-seed1"
    shutil.copytree(BEFORE / "run", folder)
    return folder


def test_a_run_is_found_and_gone_on_with(stopped, tmp_path, capsys):
    words = [*WORDS, "--results", str(tmp_path / "runs")]
    assert main.main(words) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()) == stopped and f"{stopped} goes on after 576 images" in said.err
    assert main.main([*WORDS, "--results", str(tmp_path / "unbroken")]) == 0
    other = Path(capsys.readouterr().out.strip())
    # Another machine adds up in another order.
    weights, unbroken = (load_file(folder / "model.safetensors") for folder in (stopped, other))
    assert all(torch.allclose(weights[name], unbroken[name], atol=1e-4) for name in weights)
    assert main.main(words) == 0
    assert f"{stopped} is this run, complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([], None),
        (["--optimizer", "adam"], None),  # what it counts as
        (["--optimizer", "sgd"], "method.optimizer is 'sgd' here and unknown there"),
        (["--scenario", "task-il"], "run.scenario is 'si-blurry' there, 'task-il' here"),
    ],
)
def test_an_option_that_it_lacks_counts_as_its_default(more, reason):
    there = yaml.safe_load((BEFORE / "run" / "config.yaml").read_text())
    here = identity.without_content(identity.config(plans.parse([*WORDS, *more]).with_seed(1)))
    assert identity.differences(there, here) == ([reason] if reason else [])


def test_a_stage_product_keeps_its_name(tmp_path):
    (kept,) = (folder for folder in BEFORE.iterdir() if folder.name.startswith("misa_isa"))
    plan = plans.parse(["--model", "misa", "--dataset", "seq-digits", "--checkpoint_dir", str(tmp_path), "--dry_run"])
    (stage,) = plan.method.prepare(plan.run, plan.method_args)
    assert stage.output.parent == tmp_path / "vit_tiny_glyphs" / kept.name
    shutil.copytree(kept, stage.output.parent)
    assert not is_made(stage)
    stage.output.touch()
    write_manifest(stage.output.parent)
    assert is_made(stage)
