"""Which run is "this run": the same options, and the same content of everything that was read, wherever it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import main
from backbone.products import open_dataset
from command import train as training
from tests.tiny import ROOT, random_covariance, run_folder
from utils import plan as plans
from utils.errors import UsageError
from utils.files import disk
from utils.files.manifest import write_manifest
from utils.registry import DATASETS
from utils.runs import identity, resume
from utils.runs.cores import Cores
from utils.runs.saving import Saving


def swap(picture: Path) -> None:
    """Another picture of the same name, size in bytes and time of change."""
    state, pixels = picture.stat(), np.asarray(Image.open(picture)).copy()
    Image.fromarray(255 - pixels).save(picture, compress_level=0)
    size = max(state.st_size, picture.stat().st_size)
    picture.write_bytes(picture.read_bytes().ljust(size, b"\0"))
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))


def stop(words: list[str], monkeypatch) -> None:
    """A run that was asked to stop after a few batches."""
    progress = Saving.progress

    def asked(self, trainer):
        self.request.code = 75
        progress(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "progress", asked)
        assert main.main(words) == 75


def last_line(capsys) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.fixture
def ended(own, capsys) -> Path:
    assert main.main(own) == 0
    return Path(capsys.readouterr().out.strip())


# Data


def test_another_folder_is_another_run(own, ended, pictures, tmp_path, capsys):
    other = tmp_path / "others"
    shutil.copytree(pictures, other)
    swap(other / "dog" / "03.png")
    words = [*own, "--resume", "auto"]
    assert main.main([*words, "--data_dir", str(other)]) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()) != ended and f"{ended} is not this run: data.t" in said.err
    assert main.main([*words, "--data_dir", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in last_line(capsys)
    assert main.main(["report", str(tmp_path / "runs")]) == 0
    rows = [line.split("|")[1].split() for line in capsys.readouterr().out.splitlines() if line.startswith("| er")]
    assert len(rows) == 2 and rows[0] != rows[1]


def test_a_moved_or_copied_folder_changes_nothing(own, ended, pictures, tmp_path, capsys):
    copied = tmp_path / "copied"
    shutil.copytree(pictures, copied)  # new times of change for folders, new inodes
    for folder in (copied, pictures.rename(tmp_path / "moved")):
        assert main.main([*own, "--data_dir", str(folder), "--resume", "auto"]) == 0
        assert f"{ended} is this run, complete" in last_line(capsys)


@pytest.mark.parametrize("part", ["cat/00.png", "cat/19.png"])
def test_a_picture_swapped_in_between_is_noticed(part, own, pictures, monkeypatch, tmp_path, capsys):
    words = [*own, "--resume", "auto"]
    stop(words, monkeypatch)
    folder = run_folder(tmp_path / "runs")
    kept = tmp_path / "kept.png"
    shutil.copy2(pictures / part, kept)
    swap(pictures / part)
    capsys.readouterr()
    for asked in ("auto", str(folder)):
        assert main.main([*own, "--resume", asked]) == 2
        error = last_line(capsys)
        assert str(folder) in error and "has the content" in error and ("data.train" in error or "data.test" in error)
    shutil.copy2(kept, pictures / part)
    assert main.main(words) == 0
    assert f"{folder} goes on after" in capsys.readouterr().err


def test_labels_are_part_of_the_data(own, ended, pictures, capsys):
    (pictures / "cat").rename(pictures / "zebra")  # the same files in another order of classes
    assert main.main([*own, "--resume", "auto"]) == 0
    assert Path(capsys.readouterr().out.strip()) != ended


def test_lists_count_by_the_images_that_they_name(own, pictures, tmp_path, capsys):
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    lists = [tmp_path / "train.txt", tmp_path / "test.txt"]

    def write(prefix: str) -> list[str]:
        for file, part in zip(lists, (names[1::2], names[::2])):
            file.write_text("".join(f"{prefix}/{name}\n" for name in part))
        return [*own, "--train_list", str(lists[0]), "--test_list", str(lists[1]), "--resume", "auto"]

    assert main.main(write("/old")) == 0
    first = capsys.readouterr().out.strip()
    assert main.main(write("/new")) == 0
    assert f"{first} is this run" in last_line(capsys)
    lists[1].write_text("".join(f"{name}\n" for name in names[2::2]))
    assert main.main([*write("/new")[:-6], "--train_list", str(lists[0]), "--test_list", str(lists[0])]) == 2


def test_an_order_of_classes_counts_by_what_it_says(own, pictures, tmp_path, capsys):
    order = tmp_path / "order.txt"
    words = [*own, "--scenario", "class-il", "--class_order", str(order), "--resume", "auto"]
    found = []
    for text in ("dog\ncat\nemu\n", "\n1\r\ncat\r\nemu", "emu\ndog\ncat\n"):
        order.write_text(text)
        assert main.main(words) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] != found[2]


def test_no_seed_is_trained_before_another_one_is_refused(own, pictures, monkeypatch, tmp_path, capsys):
    stop([*own, "--seed", "2", "--resume", "auto"], monkeypatch)
    swap(pictures / "cat" / "00.png")
    assert main.main([*own, "--seeds", "1", "2", "--resume", "auto"]) == 2
    assert "has the content" in last_line(capsys) and len(list((tmp_path / "runs").glob("*/*/*"))) == 1


# Weights and products


def test_weights_swapped_in_between_are_noticed(own, glyph_weights, monkeypatch, tmp_path, capsys):
    weights = tmp_path / "weights.safetensors"
    shutil.copy(glyph_weights, weights)
    words = [*own, "--backbone_path", str(weights), "--resume", "auto"]
    stop(words, monkeypatch)
    moved = weights.rename(tmp_path / "elsewhere.safetensors")
    save_file({name: value * 1.5 for name, value in load_file(moved).items()}, weights)
    assert main.main(words) == 2
    assert "run.backbone_path has the content" in last_line(capsys)
    assert main.main([*words, "--backbone_path", str(moved)]) == 0  # where they lie does not matter


def test_products_are_known_by_their_content(words, monkeypatch, tmp_path, capsys):
    covariance, prompts = tmp_path / "covariance.npy", tmp_path / "prompts"
    np.save(covariance, random_covariance(128))
    prompts.mkdir()
    for name, rows, length in (("g_prompt.pt", 1, 20), ("e_prompt.pt", 10, 60)):
        torch.save(torch.rand(rows, length, 128), prompts / name)

    def given(covariance: Path, prompts: Path) -> list[str]:
        paths = ["--meta_path", "none", "--cor_path", str(covariance), "--load_pt", str(prompts)]
        return ["--model", "mepo", *words, *paths, "--results", str(tmp_path / "runs")]

    stop(given(covariance, prompts), monkeypatch)
    before = (prompts / "e_prompt.pt").read_bytes()
    torch.save(torch.rand(10, 60, 128), prompts / "e_prompt.pt")
    assert main.main(given(covariance, prompts)) == 2
    assert "host.load_pt has the content" in last_line(capsys)
    (prompts / "e_prompt.pt").write_bytes(before)
    np.save(tmp_path / "other.npy", random_covariance(128, seed=1))
    assert main.main(given(tmp_path / "other.npy", prompts)) == 2
    assert "method.cor_path has the content" in last_line(capsys)
    (prompts / "notes.txt").touch()
    moved = covariance.rename(tmp_path / "moved.npy"), prompts.rename(tmp_path / "moved")
    assert main.main(given(*moved)) == 0
    assert "goes on after" in capsys.readouterr().err


def stage_of(folder: Path, data: Path, skip_bad: bool = False) -> main.Any:
    given = {"model": "misa", "dataset": "seq-imr", "pretrain": "seq-folder", "pretrain_dir": str(data)}
    given |= {"skip_bad": skip_bad, "backbone": "vit_tiny_glyphs"}
    places = {"checkpoint_dir": str(folder), "cache_dir": str(folder / "cache"), "backbone_path": "random"}
    plan = plans.make(given | places).with_seed(1)
    (stage,) = plan.method.prepare(plan.run, plan.method_args)
    return stage


def test_other_pretraining_data_make_another_product(pictures, tmp_path):
    first = stage_of(tmp_path, pictures)
    first.output.parent.mkdir(parents=True)

    def made_from(config: dict) -> None:
        (first.output.parent / "config.yaml").write_text(yaml.safe_dump(config))

    data = open_dataset(plans.make({"model": "er", "dataset": "seq-folder", "data_dir": str(pictures)}))
    own = data[0].digest(data[1], train=True)
    for same in ({"identity": {"incidental": [], "read": {"data.train": own}}}, {"run": {}}):
        made_from(same)
        assert stage_of(tmp_path, pictures).output == first.output
    made_from({"identity": {"incidental": [], "read": {"data.train": "0" * 64}}})
    assert stage_of(tmp_path, pictures).output.parent.name == f"{first.output.parent.name}-{own[:8]}"


def test_names_of_products_stay():
    """Products take hours; those of a published version are found by every later one."""
    plan = plans.make({"model": "mepo", "dataset": "seq-digits", "pretrain": "glyphs"}).with_seed(1)
    stages = plan.method.prepare(plan.run, plan.method_args)
    assert [stage.output.parent.name for stage in stages] == [
        "mepo_meta-glyphs-550f1fa865", "mepo_cov-glyphs-6b77698d80", "misa_isa-glyphs-f2791ffbfe"
    ]  # fmt: skip


def test_a_product_without_a_manifest_is_made_again(words, monkeypatch, tmp_path, capsys):
    made = []

    def run(job, cores, again):
        folder = Path(job.plan.method_args.save_to)
        made.append(folder)
        for name, rows, length in (("g_prompt.pt", 1, 20), ("e_prompt.pt", 10, 60)):
            torch.save(torch.rand(rows, length, 128), folder / name)
        (folder / "config.yaml").write_text("{}")
        write_manifest(folder)

    plan = plans.parse(["--model", "misa", *words]).with_seed(1)
    (stage,) = training.check(plan).stages
    stage.output.parent.mkdir(parents=True)
    stage.output.touch()  # what a process that was killed left
    monkeypatch.setattr(training, "run", run)
    training.make_product(stage, plan, Cores(early=False))
    assert made == [stage.output.parent] and "may be unfinished" in capsys.readouterr().err
    training.make_product(stage, plan, Cores(early=False))
    assert len(made) == 1 and "does not say which data it was made from" in capsys.readouterr().err
    assert not (stage.output.parent / ".lock").exists()


def test_a_product_that_another_process_makes_is_waited_for(words, monkeypatch, tmp_path, capsys):
    plan = plans.parse(["--model", "misa", *words]).with_seed(1)
    (stage,) = training.check(plan).stages
    monkeypatch.setattr(training, "run", lambda *given, **words: pytest.fail("made twice"))
    held = disk.claim(stage.output.parent / ".lock")
    waits = threading.Thread(target=training.make_product, args=(stage, plan, Cores(early=False)))
    waits.start()
    for name in ("g_prompt.pt", "e_prompt.pt"):
        (stage.output.parent / name).touch()
    write_manifest(stage.output.parent)
    held.release()
    waits.join()
    assert training.is_made(stage)


def test_the_product_of_a_complete_stage_is_left_where_it_is_wanted(words, tmp_path, capsys):
    words = [word for pair in zip(words[::2], words[1::2]) if pair[0] != "--n_tasks" for word in pair]
    words = ["--model", "mepo_cov", *words, "--samples", "5", "--results", str(tmp_path / "runs"), "--save_to"]
    for folder in ("first", "second", "second"):
        assert main.main([*words, str(tmp_path / folder)]) == 0
    files = [(tmp_path / folder / "covariance.npy").read_bytes() for folder in ("first", "second")]
    assert files[0] == files[1] and len(list((tmp_path / "runs").glob("*/*/*"))) == 2
    (tmp_path / "second" / "covariance.npy").write_bytes(b"?")
    assert main.main([*words, str(tmp_path / "second")]) == 0
    assert (tmp_path / "second" / "covariance.npy").read_bytes() == files[0]


def test_a_product_from_other_data_is_not_taken_after_waiting(words, monkeypatch, tmp_path):
    plan = plans.parse(["--model", "misa", *words]).with_seed(1)
    (stage,) = training.check(plan).stages
    monkeypatch.setattr(DATASETS.load("glyphs"), "digest", lambda self, places, train: "1" * 64)
    monkeypatch.setattr(training, "is_made", lambda stage, calls=[]: bool(calls) or calls.append(1))
    stage.output.parent.mkdir(parents=True)
    config = {"identity": {"incidental": [], "read": {"data.train": "0" * 64}}}
    (stage.output.parent / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError, match="from other data; start the same command again"):
        training.make_product(stage, plan, Cores(early=False))


def test_a_stage_begins_anew_where_its_caller_could_not_say_so(own, pictures, monkeypatch, tmp_path, capsys):
    words = [*own, "--resume", "auto"]
    stop(words, monkeypatch)
    swap(pictures / "cat" / "00.png")
    plan = plans.parse(words).with_seed(1)
    settings = training.with_content(training.check(plan))
    capsys.readouterr()
    assert resume.begun_run(plan.run, settings, stage=True) is None
    assert "is not this run: data.t" in (said := capsys.readouterr().err) and "a new one begins" in said


def test_the_data_of_a_product_are_found_as_its_stage_reads_them(pictures, tmp_path):
    """With --skip_bad, as the run says it."""
    (pictures / "cat" / "bad.png").write_text("no image")
    (pictures / "empty").mkdir()
    first = stage_of(tmp_path, pictures, skip_bad=True)
    first.output.parent.mkdir(parents=True)
    config = {"identity": {"incidental": [], "read": {"data.train": "0" * 64}}}
    (first.output.parent / "config.yaml").write_text(yaml.safe_dump(config))
    other = stage_of(tmp_path, pictures, skip_bad=True)
    assert other.output != first.output and other.data is not None
    assert stage_of(tmp_path, tmp_path / "nowhere").data is None


# Runs of older versions


def forget(folder: Path) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["identity"], config["code_sha256"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_an_older_run_is_not_guessed_at(own, monkeypatch, tmp_path, capsys):
    words = [*own, "--resume", "auto"]
    stop(words, monkeypatch)
    folder = run_folder(tmp_path / "runs")
    forget(folder)
    assert main.main(words) == 2
    assert f"{folder}: " in (error := last_line(capsys)) and "did not record what a run reads" in error
    assert f"--resume {folder} goes on with it" in error
    assert main.main([*own, "--resume", str(folder)]) == 0
    assert f"note: {folder} does not say which data" in capsys.readouterr().err
    assert main.main(words) == 0  # a complete one is not taken for this run either
    said = capsys.readouterr()
    assert Path(said.out.strip()) != folder and f"{folder} is not this run: a version" in said.err


def test_an_option_that_came_later_counts_as_its_default(own, ended, capsys):
    config = yaml.safe_load((ended / "config.yaml").read_text())
    del config["run"]["precision"], config["method"]["exact_reservoir"]
    for given, reason in (([], None), (["--exact_reservoir"], "method.exact_reservoir is True here and unknown there")):
        plan = plans.parse([*own, *given]).with_seed(1)
        here = identity.without_content(identity.config(plan))
        assert identity.differences(config, here) == ([reason] if reason else [])


def test_a_file_that_an_older_version_did_not_look_at_counts_where_it_is_asked_for():
    there = {"identity": {"incidental": ["method.pln"], "read": {"method.rln": "1" * 64}}}
    here = {"identity": {"incidental": ["method.pln"], "read": {"method.rln": "1" * 64, "method.pln": "2" * 64}}}
    assert identity.differences(there, here) == []
    here["origin"] = {"pln": "command line"}
    assert identity.differences(there, here) == ["method.pln has the content 22222222 here and is unknown there"]
    here["identity"]["read"]["method.pln"] = None
    assert identity.differences(there, here) == []


# The code


def test_changed_code_is_told_and_recorded(own, monkeypatch, tmp_path, capsys):
    words = [*own, "--resume", "auto"]
    stop(words, monkeypatch)
    folder = run_folder(tmp_path / "runs")
    first = yaml.safe_load((folder / "config.yaml").read_text())
    changed = identity.code() | {"git_commit": "f00d", "code_sha256": "0" * 64}
    monkeypatch.setattr(identity, "code", lambda: changed)
    assert main.main(words) == 0
    assert f"there changed: the code (commit {first['git_commit']}, now f00d)" in capsys.readouterr().err
    last = yaml.safe_load((folder / "config.yaml").read_text())
    assert last["git_commit"] == first["git_commit"] and last["resumed"] == changed


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with a copy of the code in its folder `inside`."""
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "inside" / "utils").mkdir(parents=True)
    monkeypatch.setattr(identity, "ROOT", (tmp_path / "inside").resolve())
    return tmp_path


def test_the_commit_is_that_of_the_code(repository, monkeypatch):
    assert identity.git_commit() is None  # a copy without its own .git
    monkeypatch.setattr(identity, "ROOT", repository.resolve())
    (repository / "notes.txt").touch()
    commit = identity.git_commit()
    assert len(commit) == 40
    (repository / "utils").mkdir()
    (repository / "utils" / "new.py").touch()
    assert identity.git_commit() == f"{commit}+"


def test_any_file_of_the_code_counts(tmp_path, monkeypatch):
    for folder in ("utils", "models"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", tmp_path)
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    found = {identity.code_sha256()}
    (tmp_path / "models" / "er.py").write_text("changed")
    found.add(identity.code_sha256())
    (tmp_path / "utils" / "new.py").touch()
    found.add(identity.code_sha256())
    assert len(found) == 3


# Everything is checked first


def test_missing_data_are_told_before_any_stage_is_made(glyph_weights, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "mepo", "--dataset", "seq-imr", "--backbone", "vit_tiny_glyphs", "--device", "cpu"]
    assert main.main([*words, "--backbone_path", str(glyph_weights)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: seq-imr is not there") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            ["--pretrain", "imagenet"],
            "misa needs a run of misa_isa on imagenet, which is not possible: imagenet is not there",
        ),
        (["--pretrain", "seq-folder", "--pretrain_dir", "few"], "--num_sessions 10: only 2 of the 3 classes"),
        (["--load_pt", "none", "--checkpoint_dir", "few/cat/00.png/x"], None),
        (["--checkpoint_dir", "few/cat/00.png/x"], "--checkpoint_dir few/cat/00.png/x"),
    ],
)
def test_what_a_stage_lacks_is_told_first_and_in_terms_of_the_caller(
    given, reason, pictures, words, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    pictures.rename("few")
    words = [word for pair in zip(words[::2], words[1::2]) if pair[0] != "--checkpoint_dir" for word in pair]
    code = main.main(["--model", "misa", *words, *given])
    if reason is None:  # no stage, no folder for it
        assert code == 0
        return
    assert code == 2
    error = capsys.readouterr().err
    assert reason in error and not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()
    assert ("--num_sessions" not in error) or "name its product by --load_pt" in error


def test_a_run_to_go_on_with_is_one_run(own, ended, capsys):
    assert main.main([*own, "--resume", str(ended), "--seeds", "1", "2"]) == 2
    assert "is one run; --seeds 1 2 asks for several" in last_line(capsys)


def test_an_option_of_several_values_stands_there_once(own, capsys):
    assert main.main([*own, "--seeds", "1", "--seeds", "2"]) == 2
    assert "--seeds stands there twice" in last_line(capsys)


def test_a_paused_run_of_other_options_is_left_alone(own, monkeypatch, tmp_path, capsys):
    stop([*own, "--resume", "auto"], monkeypatch)
    assert main.main([*own, "--resume", "auto", "--lr", "0.01"]) == 0
    assert len(list((tmp_path / "runs").glob("*/*/*"))) == 2


def test_a_damaged_record_is_no_run(own, ended, capsys):
    for section in ("nonsense", {"read": 3}, {"incidental": None, "read": {}}):
        config = yaml.safe_load((ended / "config.yaml").read_text())
        (ended / "config.yaml").write_text(yaml.safe_dump(config | {"identity": section}))
        with pytest.raises(UsageError):
            resume.config_of(ended)
