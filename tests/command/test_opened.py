"""A learner from the folder of its run: what it predicts, and that it learns on as if the run had not stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import main
from command.opened import open_run
from tests.command.conftest import CLASSES, rewrite
from tests.command.test_predict import ER
from tests.tiny import CPU, EVERY_METHOD, ROOT, Patches, assert_same, run_folder
from tests.whole.test_hostile import JSONS, PICKLES, SAFETENSORS, TRACE, torch_file
from utils.errors import UsageError
from utils.runs import checkpoint
from utils.runs.description import FILE
from utils.runs.folder import STATE
from utils.streams.si_blurry import SiBlurry

MEPO = ("--model", "mepo", "--host", "dualprompt", "--meta_path", "none", "--cor_path")


def pictures(zoo: Path) -> list[Path]:
    """The training pictures in the order of the dataset."""
    return sorted((zoo / "train").glob("*/*.png"))


# Going on


@pytest.mark.parametrize("method", ["er", "finetune", "dualprompt", "mepo", "misa", "flyprompt"])
def test_a_learner_goes_on_as_the_unbroken_run(method, zoo, covariance, tmp_path, monkeypatch):
    """A run that ends after the first task, and learns the batches of the second, has weights, optimiser, memories and
    draws of the run over both tasks, bit for bit; and it needs nothing but its folder."""
    place, streams = tmp_path / "place", []
    place.mkdir()
    words = ["--model", method, "--dataset", "seq-folder", "--data_dir", str(zoo), "--cache_dir", str(place / "cache")]
    words += ["--n_tasks", "2", "--batch_size", "5", "--online_iter", "2", "--eval_period", "-1", "--device", "cpu"]
    weights = shutil.copy(ROOT / "backbone" / "weights" / "vit_tiny_glyphs.safetensors", place / "vit.safetensors")
    words += ["--backbone_path", str(weights)]
    if method == "mepo":
        words += [*MEPO[2:], str(shutil.copy(covariance, place / "covariance.npy"))]
    if method == "misa":
        words += ["--load_pt", "none"]
    if method == "flyprompt":
        words += ["--rp_dim", "64"]
    assert main.main([*words, "--results", str(tmp_path / "whole")]) == 0
    made = SiBlurry.of.__func__

    def cut(cls, *given):
        stream = made(cls, *given)
        streams.append(stream)
        stream.num_tasks = 1
        return stream

    monkeypatch.setattr(SiBlurry, "of", classmethod(cut))
    assert main.main([*words, "--results", str(tmp_path / "cut")]) == 0
    shutil.rmtree(place)
    torch.manual_seed(77)  # of others
    before = torch.get_rng_state()
    learner = open_run(run_folder(tmp_path / "cut"))
    ours, rest = pictures(zoo), streams[-1].tasks[1].tolist()  # the first was made to check sizes
    assert len(rest) > 5, "several batches"
    for start in range(0, len(rest), 10):  # two batches a call
        rows = rest[start : start + 10]
        learner.learn([ours[row] for row in rows], [ours[row].parent.name for row in rows])
    assert torch.equal(torch.get_rng_state(), before)
    whole = run_folder(tmp_path / "whole")
    other, files = open_run(whole), sorted((zoo / "test").glob("*/*.png"))
    assert learner.names == other.names and len(learner.names) == 6
    assert torch.equal(learner.predict(files)[1], other.predict(files)[1])
    for name, tensor in load_file(whole / "model.safetensors").items():
        if not name.endswith(".counter"):  # of prompts chosen in evaluation, too, which nothing but reports reads
            assert torch.equal(learner.model.state_dict()[name], tensor), name
    expected, here = checkpoint.read_state(whole, CPU), learner.trainer.state_dict()
    for part in ("extra", "optimizer", "scheduler", "seen", "augment", "images_met"):
        assert_same(here[part], expected[part])
    assert_same(learner.random, expected["random"])


def test_new_classes_take_the_outputs_that_are_left(copied, zoo, monkeypatch):
    run = copied("--model", "er", "--n", "101", "--n_tasks", "3")
    learner = open_run(run)
    assert {*learner.names} == {*CLASSES}
    files = [str(file) for file in pictures(zoo)[:2]]
    with pytest.raises(
        UsageError, match="^class zebra: is new, and the 6 outputs of the classifier have classes alrea"
    ):
        learner.learn(files, ["cat", "zebra"])
    description = json.loads((run / FILE).read_text()) | {"labels": [0, 1, 2, 3]}
    rewrite(run, FILE, json.dumps(description).encode())
    state = checkpoint.read_state(run, CPU)
    state["seen"]["met"] = [0, 1, 2, 3]
    checkpoint.write_state(run, state)
    for name in STATE:
        rewrite(run, name, (run / name).read_bytes())
    learner = open_run(run)
    assert learner.names == [*CLASSES[:4]] and learner.predict(files)[1].shape == (2, 4)
    with pytest.raises(UsageError, match="^class owl: is new"):
        learner.learn([*files, *files], ["fox", "zebra", "owl", "ant"])
    assert learner.names == [*CLASSES[:4]]
    learner.learn([*files, *files], ["zebra", 5, "ant", "zebra"])
    assert learner.names == [*CLASSES[:4], "zebra", "fox"]
    learner.learn(files, ["zebra", "fox"])
    names, probabilities = learner.predict(files)
    assert probabilities.shape == (2, 6) and {*names} <= {*learner.names}


@pytest.mark.parametrize(
    "words, told",
    [
        (("--model", "coda"), "is told where a task begins and ends"),
        (("--model", "joint", "--updates", "1"), "trains on the images of its stream again"),
        ((*ER, "--no-keep_state"), "holds no state.json, without which nothing goes on"),
    ],
)
def test_learners_that_cannot_go_on_still_predict(words, told, train, zoo):
    learner, files = open_run(train(*words)), pictures(zoo)[:4]
    before = learner.predict(files)
    with pytest.raises(UsageError, match=told):
        learner.learn(files, ["ant"] * 4)
    assert torch.equal(learner.predict(files)[1], before[1])


# Predicting


def test_what_pictures_may_be(train, zoo):
    """Files, pictures and arrays are the same to it."""
    learner, files = open_run(train(*ER)), pictures(zoo)[::7]
    names, probabilities = learner.predict(files)
    assert names == [learner.names[k] for k in probabilities.argmax(1)]
    assert torch.allclose(probabilities.sum(1), torch.ones(len(files)))
    opened = [Image.open(file) for file in files]
    one_by_one = [learner.predict(np.asarray(image).transpose(2, 0, 1)[None])[1] for image in opened]
    assert torch.equal(learner.predict(opened)[1], probabilities)
    assert torch.allclose(torch.cat(one_by_one), probabilities, atol=1e-5)
    assert torch.allclose(learner.predict(files, batch_size=1)[1], probabilities, atol=1e-5)
    assert learner.predict([])[0] == [] and learner.predict([])[1].shape == (0, 6)
    for wrong, told in (
        (np.zeros((1, 3, 8, 8)), "float64 .1, 3, 8, 8.; uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8 .N, 3, H, W. is needed"),
        (str(files[0]), "give a list"),
        ([zoo / "gone.png"], "gone.png: cannot be read .No such file"),
        ([zoo], "cannot be read"),
    ):
        with pytest.raises(UsageError, match=told):
            learner.predict(wrong)
    with pytest.raises(UsageError, match="^2 images and 1 labels"):
        learner.learn(files[:2], ["ant"])


def test_a_network_of_grey_images_sees_brightness(tmp_path, few_digits):
    words = [*few_digits, "--model", "er", "--backbone", "mlp-8-8", "--n_tasks", "2", "--online_iter", "1"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--results", str(tmp_path / "runs"), "--device", "cpu"]
    assert main.main(words) == 0
    run = run_folder(tmp_path / "runs")
    learner = open_run(run, plugins=str(tmp_path / "plugins"))
    assert learner.description.channels == 1 and learner.names == [str(k) for k in learner.trainer.seen.labels]
    side = learner.description.held
    red = np.zeros((1, 3, side, side), np.uint8)
    red[:, 0] = 100
    assert torch.equal(learner.predict(red)[1], learner.predict(np.full_like(red, 30))[1])


def test_a_run_of_an_older_version(copied, zoo, said):
    """Which left neither description nor state."""
    run = copied(*ER)
    expected = said("predict", run, zoo / "test")
    for name in (FILE, *STATE):
        rewrite(run, name, None)
    assert said("predict", run, zoo / "test") == expected
    table = (run / "per_class.csv").read_text()
    for label, name in enumerate(CLASSES):
        table = table.replace(f",{name},", f",{label},")
    rewrite(run, "per_class.csv", table.encode())
    code, lines, _ = said("predict", run, zoo / "test")
    assert code == 0 and [line.rpartition(" ")[2] for line in lines] == [
        line.rpartition(" ")[2] for line in expected[1]
    ]
    assert {*re.findall(r"(\S+) \d\.\d{3}", " ".join(lines))} == {str(k) for k in range(6)}


@EVERY_METHOD
def test_what_predictions_need(case, start):
    """The weights alone, unless the method says otherwise."""
    trained = start(batch_size=32)
    if not trained.model.evaluated:
        return
    trained.trainer.train()
    fresh = start(batch_size=32)
    fresh.model.load_state_dict(trained.model.state_dict())
    x = trained.trainer.transform.test(torch.from_numpy(Patches().load(None, False)[0][::3]))
    with torch.no_grad():
        one, other = trained.model.eval()(x), fresh.model.eval()(x)
    assert torch.equal(one, other) or trained.model.predicts_from_state


# Other people's folders


def test_nothing_in_a_folder_runs(copied, zoo, tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    run, picture = copied(*ER), zoo / "test" / "fox" / "1.png"
    kept = {name: (run / name).read_bytes() for name in ("model.safetensors", FILE, *STATE)}
    bombs = [PICKLES[name] for name in ("call", "old protocol", "deep lists")]
    bad = {"model.safetensors": [*bombs, *SAFETENSORS.values(), b"", torch_file({"head.bias": 1})]}
    bad[STATE[0]] = [*bombs, b""]
    bad[STATE[1]] = bad[FILE] = [bombs[0], JSONS["deep"], b"", b"\xff", b"{}", b'{"dict": 5}']
    bad[FILE] = bad[FILE] + [damaged.encode() for damaged in descriptions(kept[FILE].decode())]
    for name, contents in bad.items():
        for content in contents:
            rewrite(run, name, content)
            with pytest.raises(UsageError, match="^[^\n]*$"):
                open_run(run)
        rewrite(run, name, kept[name])
        (run / name).unlink()
        os.mkfifo(run / name)
        with pytest.raises(UsageError, match="not what the run left"):
            open_run(run)
        (run / name).unlink()
        (run / name).write_bytes(kept[name])
    rewrite(run, "model.safetensors", PICKLES["call"])
    code, lines, errors = said("predict", run, picture)
    assert (code, lines, len(errors)) == (2, [], 1) and errors[0].startswith("error: ")
    assert not (tmp_path / TRACE).exists()


def descriptions(text: str) -> list[str]:
    """`learner.json` with values that no run has."""
    plain = json.loads(text)
    changes: list[dict] = [{"labels": [0, 0, 1, 2, 3, 4]}, {"labels": [6]}, {"labels": 5}, {"labels": [0] * 7}]
    changes += [{"names": ["a"]}, {"names": ["a"] * 6}, {"names": [1, 2, 3, 4, 5, 6]}, {"std": [0, 1, 1]}]
    changes += [{"side": 10**9}, {"side": None}, {"held": True}, {"channels": 2}, {"fit": "stretch"}, {"mean": [1]}]
    changes += [{"num_classes": 10**12}, {"num_outputs": 5}, {"num_outputs": 10**5}, {"num_tasks": 0}, {"side": 64}]
    changes += [{"num_images": "many"}, {"num_domains": 10**4, "num_classes": 10**6}, {"labels": [0, 1]}]
    return [json.dumps(plain | change) for change in changes]


def test_a_state_that_does_not_fit(copied, zoo):
    run, plain = copied(*ER), None
    for change in (
        {"extra": None},
        {"extra": {}},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"random": {"cpu": torch.zeros(3)}},
        {"augment": "none"},
        {"position": [10**9, 0, 0]},
        {"seen": {"met": [10**9]}},
        {"seen": {"met": [5, 4, 3, 2, 1, 0]}},
        {"seen": []},
        {"images_met": "many"},
    ):
        plain = plain or checkpoint.read_state(run, CPU)
        checkpoint.write_state(run, plain | change)
        for name in STATE:
            rewrite(run, name, (run / name).read_bytes())
        with pytest.raises(UsageError, match=r"^[^\n]*its state does not fit this run[^\n]*$"):
            open_run(run)


def test_files_that_are_not_what_the_run_left(copied):
    run = copied(*ER)
    for name in ("model.safetensors", FILE, *STATE):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept + b" ")
        with pytest.raises(UsageError, match=f"{name}: not what the run left"):
            open_run(run)
        (run / name).write_bytes(kept)
    open_run(run)


# What the pages show


@pytest.mark.parametrize("page", ["docs/using.md", "README.md"])
def test_the_example_of_the_pages(page, train, zoo, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    for block in [block for block in blocks if "open_run" in block]:
        monkeypatch.chdir(tmp_path)
        (run,) = re.findall(r'open_run\("([^"]+)"', block)
        if not Path(run).exists():
            shutil.copytree(train(*ER), run)
            for name in re.findall(r"\w+\.jpg", block):
                Image.open(zoo / "test" / "fox" / "0.png").save(name)
        ran: dict = {}
        exec(compile(block, page, "exec"), ran)
        assert len(ran["names"]) == len(ran["probabilities"]) == 2 and {*ran["names"]} <= {*ran["learner"].names}
