"""Features of test images that runs share: the same bits as computed ones, and never those of something else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from command import train
from models.dualprompt import DualPrompt, DualPromptArgs
from models.ncm import Ncm
from tests.tiny import build
from utils import device as devices
from utils import plan as plans
from utils.data import features
from utils.data.features import kept_features

NUMBERS = torch.arange(24.0).view(8, 3)


def asked(folder, numbers=NUMBERS, settings=("a",), weights=None):
    """What `kept_features` gives for these numbers in batches of two, and how many of these it computed."""
    computed = []

    def part(rows):
        computed.append(rows)
        return rows

    parts = [lambda rows=rows: part(rows) for rows in numbers.split(2)]
    found = kept_features(folder, weights or {"w": torch.ones(2)}, [*settings], len(numbers), parts)
    return found, len(computed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_later_run_computes_the_first_batch_alone(tmp_path, dtype, capsys):
    numbers = NUMBERS.to(dtype)
    for expected in (4, 1, 1):
        found, computed = asked(tmp_path / "new" / "features", numbers)
        assert torch.equal(found, numbers) and found.dtype == dtype and computed == expected
    for other in ({"settings": ("b",)}, {"weights": {"w": torch.zeros(2)}}):
        assert asked(tmp_path / "new" / "features", numbers, **other)[1] == 4
    assert capsys.readouterr().err == ""


def spoil(file, how):
    content = bytearray(file.read_bytes())
    if how == "a number":
        content[-1] ^= 1
    elif how == "cut off":
        content = content[:-5]
    elif how == "empty":
        content = b""
    elif how == "of another name":
        asked(file.parent, NUMBERS.flip(1), settings=("b",))
        (other,) = set(file.parent.iterdir()) - {file}
        content = other.read_bytes()
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["a number", "cut off", "empty", "of another name"])
def test_a_file_that_is_not_what_was_written_is_computed_again(tmp_path, capsys, how):
    asked(tmp_path)
    (file,) = tmp_path.iterdir()
    spoil(file, how)
    found, computed = asked(tmp_path)
    assert torch.equal(found, NUMBERS) and computed == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {file}: ") and line.endswith("; computed again")
    assert asked(tmp_path)[1] == 1 and features.fault(file) is None


def test_features_that_would_be_others_here_are_computed_again(tmp_path, capsys):
    """As other code, or a library that rounds otherwise, would give them."""
    asked(tmp_path, NUMBERS.nextafter(torch.tensor(99.0)))
    assert torch.equal(asked(tmp_path)[0], NUMBERS)
    assert "its first batch is not what is computed now; computed again" in capsys.readouterr().err
    assert asked(tmp_path)[1] == 1
    for part, count in ((NUMBERS[:6], 6), (torch.cat((NUMBERS, NUMBERS)), 16)):
        (file,) = tmp_path.iterdir()
        file.unlink()
        asked(tmp_path, part)
        assert torch.equal(asked(tmp_path)[0], NUMBERS)
        assert f"it has {count} images, not 8; computed again" in capsys.readouterr().err


def test_what_was_not_read_for_longest_leaves_first(tmp_path, monkeypatch):
    asked(tmp_path)
    (first,) = tmp_path.iterdir()
    monkeypatch.setattr(features, "LIMIT", 3 * first.stat().st_size)
    own = [tmp_path / "weights.safetensors", tmp_path / "notes.txt"]  # of somebody else
    for file in own:
        file.write_bytes(bytes(10**6))
        os.utime(file, (0, 0))
    (tmp_path / ".features-0.safetensors.x.part").write_bytes(bytes(10))  # of a killed process
    os.utime(tmp_path / ".features-0.safetensors.x.part", (1, 1))
    asked(tmp_path, settings=("b",))
    (second,) = {*tmp_path.glob(features.FILES)} - {first}
    os.utime(first, (2, 2)), os.utime(second, (3, 3))
    assert asked(tmp_path)[1] == 1  # read just now
    asked(tmp_path, settings=("c",))
    asked(tmp_path, settings=("d",))
    assert first.exists() and not second.exists() and all(file.exists() for file in own)
    assert not list(tmp_path.glob(".*.part"))
    assert sum(file.stat().st_size for file in tmp_path.glob(features.FILES)) <= features.LIMIT
    monkeypatch.setattr(features, "LIMIT", NUMBERS.nbytes - 1)
    before = set(tmp_path.iterdir())
    assert asked(tmp_path, settings=("e",))[1] == 4 and set(tmp_path.iterdir()) == before


def test_what_cannot_be_kept_is_said_and_no_fault(tmp_path, capsys):
    (tmp_path / "file").touch()
    found, _ = asked(tmp_path / "file" / "features")
    assert torch.equal(found, NUMBERS)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be kept (Not a directory); later runs compute it again" in line


def test_features_that_are_not_finite_are_not_kept(tmp_path):
    asked(tmp_path, NUMBERS / 0)
    assert not list(tmp_path.iterdir())


def test_several_at_once(tmp_path, capsys):
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(found, NUMBERS) for found, _ in pool.map(lambda _: asked(tmp_path), range(24)))
    assert len(list(tmp_path.iterdir())) == 1 and capsys.readouterr().err == ""


# In an evaluation


def evaluated(run, kept, **other) -> tuple[torch.Tensor, int]:
    """Logits of all test images, and how many batches of fixed features were computed for them."""
    model, evaluator, logits, computed = run.model, run.trainer.evaluator, [], []
    evaluator.kept, evaluator._fixed, evaluator.batch_size = kept, None, 16
    for name, value in other.items():
        setattr(evaluator, name, value)
    run.trainer.seen.add(torch.arange(12))
    with pytest.MonkeyPatch.context() as patch:
        real = model.fixed_features
        patch.setattr(model, "fixed_features", lambda x: computed.append(len(x)) or real(x))
        handle = model.register_forward_hook(lambda module, given, out: logits.append(out.clone()))
        evaluator(model, run.trainer.seen)
        handle.remove()
    return torch.cat(logits), len(computed)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_methods_share_what_is_the_same_to_the_bit(tmp_path, precision):
    queries = [("dualprompt", {}), ("l2p", {}), ("coda", {}), ("misa", {"load_pt": "none"})]
    queries += [("ncm", {}), ("finetune", {"trainable": "head"})]
    queries += [("mepo", {"host": "dualprompt", "meta_path": "none", "cor_path": "none"})]
    queries = queries if precision == "32" else queries[:1]
    files = 0
    for name, own in [*queries, ("flyprompt", {"rp_dim": 64}), ("mvp", {}), ("mvp", {"use_last_layer": True})]:
        run = build(name, own, precision=precision)
        alone, computed = evaluated(run, None)
        assert computed == 5
        first, computed = evaluated(run, tmp_path)
        made = len(list(tmp_path.iterdir())) - files
        files += made
        assert computed == (5 if made else 1)
        # FlyPrompt's are in float32 at any precision.
        assert made == (name in ("dualprompt", "mvp") or (name, precision) == ("flyprompt", "bf16"))
        again, computed = evaluated(run, tmp_path)
        assert computed == 1 and torch.equal(alone, first) and torch.equal(alone, again)


def test_other_weights_images_precision_transform_and_batches_are_other_features(tmp_path):
    run = build("dualprompt")
    evaluated(run, tmp_path)
    files = 1

    def is_new(**other) -> bool:
        nonlocal files
        logits, _ = evaluated(run, tmp_path, **other)
        before, files = files, len(list(tmp_path.iterdir()))
        assert torch.equal(logits, evaluated(run, None, **other)[0])
        return files == before + 1

    assert not is_new()
    with torch.no_grad():
        run.model.backbone.blocks[-1].mlp.fc2.bias[0] += 1e-6
    assert is_new()
    run.trainer.evaluator.images._images[-1, 0, 0, 0] ^= 1
    assert is_new()
    run.trainer.evaluator.transform.mean += 0.1
    run.trainer.evaluator.transform.dataset.mean = (0.6, 0.6, 0.6)
    assert is_new()
    assert is_new(batch_size=12)
    run.model.autocast = devices.autocast(torch.device("cpu"), "bf16")
    assert is_new(precision="bf16")


class Trained(DualPrompt):
    """Its query moves with what it learns, and it says nothing of it."""

    Args = DualPromptArgs

    def fixed_features(self, x):
        return super().fixed_features(x) + self.head.bias.mean()


def test_a_method_that_says_nothing_shares_nothing(tmp_path):
    for run in (build(Trained), build("ranpac", {"rp_dim": 16})):
        if run.model.label() == "ranpac":
            run.model.end_first_session()
        assert run.model.has_fixed_features and run.model.shared_as("32") is None
        assert evaluated(run, tmp_path)[1] == 5 and not list(tmp_path.iterdir())


class Looking(Ncm):
    """Its prediction looks at the image, and it says nothing of it."""

    def forward(self, x, fixed=None):
        return super().forward(x, fixed) + x.mean(dim=(1, 2, 3))[:, None]


def test_a_method_that_says_nothing_is_given_the_images():
    assert Ncm.fixed_suffice and len(evaluated(build(Looking), None)[0]) == 72


@pytest.mark.parametrize("name", ["ncm", "ranpac", "finetune"])
def test_images_are_not_read_again_where_features_suffice(name, monkeypatch):
    run = build(name, {"rp_dim": 16} if name == "ranpac" else {"trainable": "head"} if name == "finetune" else {})
    if name == "ranpac":
        evaluated(run, None)  # the first session looks at every image
        run.model.end_first_session()
    expected, _ = evaluated(run, None)
    monkeypatch.setattr(run.trainer.evaluator.images, "raw", lambda indices: pytest.fail("read again"))
    monkeypatch.setattr(run.trainer.evaluator, "batch_size", 16)
    logits = []
    run.model.register_forward_hook(lambda module, given, out: logits.append(out))
    run.trainer.evaluator(run.model, run.trainer.seen)
    assert torch.equal(torch.cat(logits), expected)


def test_a_run_finds_what_one_of_another_seed_kept_in_the_cache(tmp_path, glyph_weights):
    words = {"model": "ncm", "dataset": "seq-digits", "device": "cpu", "backbone_path": str(glyph_weights)}
    found = []
    for seed in (1, 2):
        plan = plans.make(words | {"cache_dir": str(tmp_path)}).with_seed(seed)
        trainer, *_ = train.prepared(train.check(plan))
        trainer.seen.add(torch.arange(10))
        computed, fixed_features = [], trainer.model.fixed_features
        trainer.model.fixed_features = lambda x, f=fixed_features, seen=computed: seen.append(len(x)) or f(x)
        found.append((trainer.evaluator(trainer.model, trainer.seen), computed))
    (one, first), (other, second) = found
    assert (sum(first), second) == (360, [128]) and one.average == other.average
    assert len(list((tmp_path / features.FOLDER).iterdir())) == 1
