"""The small networks: their weights and features, the methods that run on them, and what is refused."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import backbone as backbones
import main
from backbone import small
from backbone.vit import embed, encode
from datasets.seq_digits import SeqDigits
from tests.tiny import (
    NEEDED,
    assert_same_results,
    assert_same_weights,
    build,
    rows_of,
    run_folder,
    tiny_vit,
    weights_of,
)
from utils.contracts import Batch, Places
from utils.errors import UsageError
from utils.files.tensors import write_tensors
from utils.registry import DATASETS
from utils.training.loop import Listener

NAMES = ["mlp-16", "resnet18-4"]
# Method -> its options, with rates at which a few updates show
METHODS = {
    "finetune": {"lr": 0.003},
    "er": {"lr": 0.002},
    "er_ace": {"lr": 0.002},
    "derpp": {"lr": 0.002},
    "joint": {"host": "finetune", "lr": 0.003, "updates": 2, "joint_batch": 16},
    "supervised": {},
}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Weights and features


@pytest.mark.parametrize(
    "name, shape, weights",
    [
        ("mlp-100-100", (1, 28, 28), 784 * 100 + 100 + 100 * 100 + 100),
        ("mlp-100-100", (3, 32, 32), 3072 * 100 + 100 + 100 * 100 + 100),
        ("mlp-7", (5,), 5 * 7 + 7),
        # stem; four stages of convolutions, batch norms and shortcuts
        (
            "resnet18-20",
            (3, 32, 32),
            (540 + 40)
            + (4 * 3600 + 4 * 40)
            + (7200 + 3 * 14400 + 4 * 80 + 800 + 80)
            + (28800 + 3 * 57600 + 4 * 160 + 3200 + 160)
            + (115200 + 3 * 230400 + 4 * 320 + 12800 + 320),
        ),
        ("conv4-64", (1, 32, 32), 9 * 64 + 64 + 3 * (9 * 64 * 64 + 64)),
        ("conv6-256", (1, 84, 84), 9 * 256 + 256 + 5 * (9 * 256 * 256 + 256)),  # OML's
        ("resnet18-20-pool", (1, 84, 84), 1093140 - 360),
        ("resnet32-16", (3, 32, 32), 465_290 - 650),  # of the release with ten classes, without their layer
        ("resnet18-64", (3, 32, 32), 11173962 - 5130),  # Mammoth's with ten classes, without their layer
    ],
)
def test_weights_are_as_many_as_counted_by_hand(name, shape, weights, monkeypatch):
    assert count(backbones.build(name, shape)) == weights
    monkeypatch.setattr(small, "free_memory", lambda: 4 * weights)
    backbones.check(name, shape)
    monkeypatch.setattr(small, "free_memory", lambda: 4 * weights - 1)
    with pytest.raises(UsageError, match=f"its {weights:,} weights"):
        backbones.build(name, shape)


def test_an_mlp_begins_glorot_uniform():
    torch.manual_seed(0)
    network = backbones.build("mlp-200-100", (1, 28, 28))
    for layer in network.layers:
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name, width", [("mlp-9-11", 11), ("resnet18-4", 32), ("resnet18-4-pool", 32), ("resnet32-2", 8)]
)
def test_features_of_images(name, width, channels, side):
    network = backbones.build(name, (channels, side, side)).eval()
    x = torch.rand(2, 3, side, side)
    out = backbones.features(network, x)
    assert out.shape == (2, width) and network.num_features == width
    others = torch.cat((x[:, :1], torch.rand(2, 2, side, side)), dim=1)
    assert torch.equal(out, backbones.features(network, others)) == (channels == 1)  # of a grey image the first


def test_features_of_numbers():
    network = backbones.build("mlp-6", (4,))
    x = torch.rand(3, 4)
    assert torch.equal(backbones.features(network, x), F.relu(F.linear(x, network.layers[0].weight)))


def test_convolutions_are_omls():
    """Unpadded, of strides 2, 1, 2, 1, 2, 2; the whole last map is the feature. Kaiming normal, zero biases."""
    torch.manual_seed(0)
    network = backbones.build("conv6-256", (1, 84, 84))
    x = torch.rand(2, 3, 84, 84)
    z = x[:, :1]
    for layer, stride, side in zip(network.layers, (2, 1, 2, 1, 2, 2), (41, 39, 19, 17, 8, 3), strict=True):
        z = F.conv2d(z, layer.weight, layer.bias, stride).relu()
        assert z.shape[-1] == side and not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
    assert torch.equal(network(x), z.flatten(1)) and network.num_features == 2304


def test_convolutions_of_grey_images_see_the_mean_of_colours(tmp_path):
    grey, colour = (backbones.build("conv2-8", (channels, 16, 16)) for channels in (1, 3))
    write_tensors(tmp_path / "grey.safetensors", grey.state_dict())
    report = backbones.load_weights(colour, tmp_path / "grey.safetensors")
    assert report.notes == ["layers.0.weight, of grey images, shared out to three channels"]
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(colour(x), grey(x.mean(dim=1, keepdim=True)))
    with pytest.raises(UsageError, match=r"layers.0.weight has shape \[8, 3, 3, 3\], the network needs \[8, 1, 3, 3\]"):
        write_tensors(tmp_path / "colour.safetensors", colour.state_dict())
        backbones.load_weights(grey, tmp_path / "colour.safetensors")


def test_a_resnet_ends_as_gems_does():
    """avg_pool2d(out, 4) of a 4x4 map; the reference is written down here, with the weights of the network."""
    network = backbones.build("resnet18-4", (3, 32, 32)).eval()
    x = torch.rand(2, 3, 32, 32)
    out = F.relu(network.bn1(network.conv1(x)))
    sides = [out.shape[-1]]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            inner = F.relu(block.bn1(block.conv1(out)))
            out = F.relu(block.bn2(block.conv2(inner)) + block.shortcut(out))
        sides.append(out.shape[-1])
    assert sides == [32, 32, 16, 8, 4]
    torch.testing.assert_close(backbones.features(network, x), F.avg_pool2d(out, 4).flatten(1))


def test_a_resnet32_is_the_released_one():
    """Its forward pass is written down here: groups of 16, 32, 64 channels; shortcuts without weights."""
    network = backbones.build("resnet32-2", (3, 32, 32)).eval()
    x = torch.rand(2, 3, 32, 32)
    out, shapes = F.relu(network.bn1(network.conv1(x))), []
    for k, block in enumerate(network.blocks):
        shortcut = out
        if k in (5, 10):
            padded = torch.zeros(2, 2 * out.shape[1], out.shape[2] // 2, out.shape[3] // 2)
            padded[:, out.shape[1] // 2 : 3 * out.shape[1] // 2] = out[:, :, ::2, ::2]
            shortcut = padded
        inner = F.relu(block.bn1(block.conv1(out)))
        out = F.relu(block.bn2(block.conv2(inner)) + shortcut)
        shapes.append(tuple(out.shape[1:]))
    assert shapes == [(2, 32, 32)] * 5 + [(4, 16, 16)] * 5 + [(8, 8, 8)] * 5
    assert all(conv.bias is not None for conv in network.modules() if isinstance(conv, nn.Conv2d))
    torch.testing.assert_close(backbones.features(network, x), F.avg_pool2d(out, 8).flatten(1))


def test_features_of_a_vit_are_its_class_token():
    vit, x = tiny_vit(), torch.rand(2, 3, 32, 32)
    assert torch.equal(backbones.features(vit, x), encode(vit, embed(vit, x)))


def test_numbers_are_for_mlps():
    for name in ("conv1-8", "resnet18-20", "vit_tiny_glyphs", "sup21k"):
        with pytest.raises(UsageError, match=f"--backbone {name}: takes images, not 5 numbers"):
            backbones.build(name, (5,))
    with pytest.raises(UsageError, match="the shape of the samples must be given"):
        backbones.build("mlp-5")


def test_what_datasets_say():
    grey = {name for name in DATASETS.files() if DATASETS.load(name).grey}
    digits = {"seq-digits", "perm-digits", "seq-mnist", "perm-mnist", "rot-mnist"}
    drawn = {"glyphs", "seq-characters", "icons", "seq-icons", "seq-icons-dev", "omniglot", "seq-omniglot"}
    assert grey == digits | drawn | {"seq-fmnist"}
    sizes = {name: DATASETS.load(name).native_size for name in DATASETS.files()}
    assert {name: size for name, size in sizes.items() if size} == {
        "perm-digits": 8, "seq-mnist": 28, "perm-mnist": 28, "rot-mnist": 28, "seq-fmnist": 28,
        "seq-cifar10": 32, "seq-cifar100": 32, "seq-tinyimg": 64, "omniglot": 84, "seq-omniglot": 84,
    }  # fmt: skip


def test_grey_digits_have_three_equal_channels(tmp_path):
    images, _ = SeqDigits().load(Places(tmp_path, tmp_path, 32), train=False)
    assert (images == images[:, :1]).all()


# Methods


def trained(method: str, name: str, listener: Listener | None = None, **run):
    run = build(method, METHODS[method], listener=listener, **{"backbone": name, "n_tasks": 2, "online_iter": 3} | run)
    run.trainer.train()
    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_methods_train_all_weights_and_the_loss_falls(method, name):
    run = trained(method, name, eval_period=-1, n_epochs=2)
    fresh = build(method, METHODS[method], backbone=name, n_tasks=2, online_iter=3, n_epochs=2)
    assert not run.frozen and not run.model.has_fixed_features
    after = weights_of(run.model)
    for key, value in weights_of(fresh.model).items():
        assert not torch.equal(value, after[key]), key  # the statistics of batch norms among them
    rows = run.trainer.stream.rows(run.trainer.stream.num_tasks - 1)
    x = run.trainer.transform.test(run.trainer.images.raw(rows))
    slots = run.trainer.seen.slots(run.trainer.images.labels[rows])
    with torch.no_grad():
        losses = [F.cross_entropy(model.eval()(x), slots).item() for model in (fresh.model, run.model)]
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.parametrize("method", ["finetune", "er", "ewc"])
def test_a_small_network_that_begins_untrained_trains_whole(method):
    for trainable in ("head", "all"):
        model = build(method, {"trainable": trainable}, backbone="mlp-16").model
        assert all(p.requires_grad for p in model.parameters()) and not model.has_fixed_features
        assert build(method, {"trainable": trainable}).model.has_fixed_features == (trainable == "head")
    with pytest.raises(UsageError, match="--trainable last: a small network has no blocks; --trainable all or head"):
        build(method, {"trainable": "last"}, backbone="mlp-16")


class Saver(Listener):
    """Keeps the state after every batch, as bytes."""

    def __init__(self):
        self.states: list[bytes] = []

    def progress(self, trainer):
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        self.states.append(file.getvalue())


@pytest.mark.parametrize("method, on_nan", [("er", "stop"), ("derpp", "skip"), ("joint", "skip")])
def test_a_resumed_run_equals_an_unbroken_one(method, on_nan, tmp_path):
    saver = Saver()
    whole = trained(method, "resnet18-4", saver, on_nan=on_nan)
    for number in (len(saver.states) // 2, len(saver.states) - 2):
        state = torch.load(io.BytesIO(saver.states[number]), weights_only=True)
        assert "backbone.bn1.running_mean" in state["model"] and "backbone.bn1.num_batches_tracked" in state["model"]
        options = {"backbone": "resnet18-4", "n_tasks": 2, "online_iter": 3, "on_nan": on_nan}
        resumed = build(method, METHODS[method], **options)
        torch.manual_seed(99)  # of another process
        resumed.trainer.load_state_dict(state)
        resumed.trainer.train()
        assert rows_of(resumed.trainer) == rows_of(whole.trainer)
        for run, file in ((whole, tmp_path / "whole"), (resumed, tmp_path / "resumed")):
            write_tensors(file, run.model.state_dict())
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()


def test_an_update_left_out_leaves_the_statistics_of_batch_norms():
    run = build("er", backbone="resnet18-4", on_nan="skip")
    x = torch.full((4, 3, 32, 32), torch.nan)
    before = weights_of(run.model)
    run.model.train()
    assert run.trainer._update(Batch(x, torch.zeros(4, dtype=torch.int64), x, 1)) is None
    assert_same_weights(before, weights_of(run.model))


@pytest.mark.parametrize(
    "method", ["l2p", "coda", "singleprompt", "slca", "ranpac", "mepo_meta", "mepo_cov", "misa_isa"]
)
def test_methods_inside_of_a_vit_refuse_other_networks(method):
    with pytest.raises(UsageError, match="is none; vit_tiny_glyphs, vit_tiny_icons, sup21k,") as caught:
        build(method, NEEDED.get(method), backbone="resnet18-4")
    assert "\n" not in str(caught.value)


# Weight files


def test_weights_of_a_small_network(tmp_path):
    torch.manual_seed(0)
    first, other = (backbones.build("resnet18-4", (3, 32, 32)).train() for _ in range(2))
    first(torch.rand(8, 3, 32, 32))  # moves the statistics
    write_tensors(tmp_path / "whole.safetensors", first.state_dict())
    report = backbones.load_weights(other, tmp_path / "whole.safetensors")
    assert_same_weights(weights_of(first), weights_of(other))
    assert str(report) == f"{len(first.state_dict())} tensors loaded, none ignored, none missing"
    state = weights_of(first)
    bad = {
        "missing ['bn1.bias']": {name: value for name, value in state.items() if name != "bn1.bias"},
        "unknown ['linear.weight']": state | {"linear.weight": torch.zeros(2, 32)},
        "bn1.bias has shape [3]": state | {"bn1.bias": torch.zeros(3)},
        "not finite": state | {"bn1.bias": torch.full((4,), torch.nan)},
        "bn1.bias is no dense tensor": state | {"bn1.bias": torch.zeros(4, dtype=torch.int64)},
        "a whole method": {f"backbone.{name}": value for name, value in state.items()},
    }
    untouched = weights_of(other)
    for reason, content in bad.items():
        write_tensors(tmp_path / "bad.safetensors", content)
        with pytest.raises(UsageError) as caught:
            backbones.load_weights(other, tmp_path / "bad.safetensors")
        assert reason in str(caught.value) and "\n" not in str(caught.value)
        assert_same_weights(untouched, weights_of(other))


def test_a_small_network_without_a_file_is_random(tmp_path):
    assert backbones.fingerprint("mlp-8", None) == backbones.fingerprint("mlp-8", "random") == "random"
    with pytest.raises(UsageError, match="no such file"):
        backbones.fingerprint("mlp-8", str(tmp_path / "absent"))


# The command line


DIGITS = ["--dataset", "seq-digits", "--device", "cpu"]
SHORT = ["--n_tasks", "2", "--online_iter", "1", "--batch_size", "128", "--eval_period", "-1"]


def test_runs_leave_networks_that_load(tmp_path, capsys):
    words = ["--model", "er", "--backbone", "resnet18-4", *DIGITS, *SHORT]
    assert main.main([*words, "--results", str(tmp_path / "a"), "--export", "pth"]) == 0
    folder = run_folder(tmp_path / "a")
    network = backbones.build("resnet18-4", (1, 32, 32))
    backbones.load_weights(network, folder / "backbone.pth")
    assert network.bn1.num_batches_tracked > 0
    capsys.readouterr()
    short = ["--model", "finetune", "--backbone", "resnet18-4", *DIGITS, "--backbone_path"]
    again = [*short, str(folder / "backbone.pth"), "--dry_run"]
    assert main.main(again) == 0
    assert str(folder / "backbone.pth") in capsys.readouterr().out
    for method, scenario in (("finetune", "class-il"), ("ewc", "task-il"), ("bcl", "task-il")):
        frozen = [*again, "--model", method, "--scenario", scenario, "--trainable", "head"]
        assert main.main(frozen) == 0
        assert "parameters, 330 of them trained" in capsys.readouterr().out  # the classifier of ten classes
    for file in ("model.safetensors", "metrics.csv"):
        assert main.main([*short, str(folder / file), "--results", str(tmp_path / "b")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_equal_commands_leave_equal_files(tmp_path, capsys):
    words = ["--model", "derpp", "--backbone", "mlp-16-16", *DIGITS, *SHORT]
    for results in ("a", "b"):
        assert main.main([*words, "--results", str(tmp_path / results)]) == 0
    assert_same_results(run_folder(tmp_path / "a"), run_folder(tmp_path / "b"))
    once = [*words, "--results", str(tmp_path / "a"), "--resume", "auto", "--export", "pth"]
    assert main.main(once) == 0
    assert "complete; not repeated" in capsys.readouterr().err
    backbones.load_weights(backbones.build("mlp-16-16", (1, 32, 32)), run_folder(tmp_path / "a") / "backbone.pth")


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
@pytest.mark.parametrize(
    "words, reason",
    [
        *(
            (["er", name], f"--backbone {name}: no such network")
            for name in ("mlp-", "mlp-0", "mlp-abc", "mlp", "mlp-8-")
        ),
        *(
            (["er", name], f"--backbone {name}: no such network")
            for name in ("resnet18-", "resnet18-0", "resnet18-8-x", "resnet32", "resnet32-16-pool")
        ),
        *((["er", name], f"--backbone {name}: no such network") for name in ("conv7-8", "conv4", "conv0-8", "conv-8")),
        (["er", "conv6-8"], "--backbone conv6-8: takes images of 43 px or more, these have 32 px"),
        (["er", "mlp-1000000-1000000"], "1,001,026,000,000 weights need 3,729.1 GiB"),
        (["er", "mlp-1000000000000"], "no such network"),
        (["er", "resnet18-999999999"], "GiB of memory are free"),
        (["l2p", "mlp-100"], "is none; vit_tiny_glyphs, vit_tiny_icons, sup21k,"),
        (["mepo", "mlp-100"], "is none; vit_tiny_glyphs, vit_tiny_icons, sup21k,"),
        (["misa", "resnet18-20"], "is none; vit_tiny_glyphs, vit_tiny_icons, sup21k,"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, reason, dry, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(SeqDigits, "load", lambda *_: pytest.fail("data were read"))
    model, name = words
    words = ["--model", model, "--backbone", name, *DIGITS, "--results", str(tmp_path / "runs")]
    assert main.main([*words, "--checkpoint_dir", str(tmp_path / "products"), *dry]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and reason in said
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_a_size_needs_a_network_with_one(tmp_path, capsys):
    words = ["--model", "er", "--backbone", "resnet18-20", "--dataset", "seq-cub200", "--data_dir", str(tmp_path)]
    assert main.main([*words, "--dry_run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no input size of its own, and the images of seq-cub200" in said


@pytest.mark.parametrize(
    "name, dataset, said, weights",
    [
        ("mlp-100-100", "seq-mnist", "28 x 28 px", 88_600 + 1_010),
        ("resnet18-20", "seq-cifar10", "32 x 32 px", 1_093_140 + 1_610),
        ("resnet18-20", "seq-tinyimg", "64 x 64 px", 1_093_140 + 200 * 161),
        ("resnet18-20-pool", "seq-digits", "32 x 32 px", 1_093_140 - 360 + 1_610),
    ],
)
def test_dry_run_knows_small_networks(name, dataset, said, weights, capsys):
    assert main.main(["--model", "er", "--backbone", name, "--dataset", dataset, "--device", "cpu", "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert said in out and "weights   none, it begins untrained" in out
    assert f"network   {name}, {weights:,} parameters, {weights:,} of them trained" in out
