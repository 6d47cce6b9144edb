"""Several networks side by side: one backbone for every method that works on features."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import backbone as backbones
import main
from command.opened import open_run
from tests.tiny import PAIR, assert_same_weights, run_folder, weights_of
from utils.errors import UsageError
from utils.files.tensors import read_tensors, write_tensors

SHORT = [
    "--n_tasks",
    "2",
    "--batch_size",
    "64",
    "--replay_size",
    "1",
    "--online_iter",
    "1",
    "--eval_period",
    "-1",
    "--device",
    "cpu",
]


@pytest.fixture
def files(tmp_path):
    """Two files with other weights of the tiny networks."""
    torch.manual_seed(0)
    for name in ("one", "two"):
        write_tensors(tmp_path / f"{name}.safetensors", backbones.build("vit_tiny_glyphs").state_dict())
    return [tmp_path / f"{name}.safetensors" for name in ("one", "two")]


def loaded(name: str, path: str | None = None) -> torch.nn.Module:
    network = backbones.build(name, (3, 32, 32))
    backbones.fill(network, backbones.weights_files(name, path))
    return network.eval()


def test_features_lie_side_by_side():
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    both, each = loaded(PAIR), [loaded(name) for name in PAIR.split("+")]
    assert both.num_features == 256 and not backbones.is_small(both)
    with torch.no_grad():
        expected = torch.cat([backbones.features(network, x) for network in each], dim=1)
        torch.testing.assert_close(backbones.features(both, x), expected)
    assert backbones.input_size(PAIR) == 32 and len(backbones.vits(both)) == 2


def test_weights_of_each_network(files, tmp_path):
    one, two = files
    network = loaded(PAIR, f"{two},{one}")
    assert_same_weights(weights_of(network.networks[0]), read_tensors(two))
    assert_same_weights(weights_of(network.networks[1]), read_tensors(one))
    write_tensors(tmp_path / "both.safetensors", network.state_dict())  # one file may hold them all
    assert_same_weights(weights_of(loaded(PAIR, str(tmp_path / "both.safetensors"))), weights_of(network))
    assert backbones.weights_files(PAIR, f"random,{one}") == [None, one]
    prints = [backbones.fingerprint(PAIR, path) for path in (None, f"{one},{two}", f"{two},{one}", f"random,{one}")]
    assert len({*prints}) == 4 and all(len(found) == 64 for found in prints)
    assert backbones.fingerprint(PAIR, "random") == backbones.fingerprint(PAIR, "random,random") == "random"
    with pytest.raises(UsageError, match="3 files, and --backbone .* is 2 networks"):
        backbones.weights_files(PAIR, f"{one},{one},{one}")


@pytest.mark.parametrize(
    "words, said",
    [
        (["finetune", "vit_tiny_glyphs+sup21k"], "take images of one size; vit_tiny_glyphs of 32 px, sup21k of 224 px"),
        (["finetune", "vit_tiny_glyphs+mlp-10"], "are pretrained ViTs, and mlp-10 is none"),
        (["finetune", "mlp-10+vit_tiny_glyphs"], "are pretrained ViTs, and mlp-10 is none"),
        (["lmsrr", "vit_tiny_glyphs+nonsense"], "--backbone nonsense: timm knows no such model"),
        (["er", "vit_tiny_glyphs+"], "--backbone vit_tiny_glyphs+: a network is missing beside a +"),
        (["lmsrr", "vit_tiny_glyphs"], "lmsrr fuses several ViTs, and vit_tiny_glyphs is not"),
        (["lmsrr", f"{PAIR}", "--trainable_blocks", "7"], "--trainable_blocks 7: the network has 6 blocks"),
        (["er", PAIR, "--trainable", "last", "--last_blocks", "7"], "--last_blocks 7: the network has 6 blocks"),
        (["l2p", PAIR], "this method works inside of a ViT, and a network of several is none"),
        (["mepo", PAIR], f"this method works inside of a ViT, and {PAIR} is none"),
        (["slca", PAIR], "a network of several is none"),
        (["posterior_replay", PAIR], "this method makes all weights of a small network"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_what_cannot_be_is_refused_in_one_line(words, said, dry, tmp_path, capsys):
    model, name, *more = words
    words = ["--model", model, "--backbone", name, *more, "--dataset", "seq-digits", "--device", "cpu", *dry]
    assert main.main([*words, "--results", str(tmp_path / "runs"), "--checkpoint_dir", str(tmp_path / "made")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())


def test_missing_weights_are_those_of_a_network(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    places = ["--checkpoint_dir", str(tmp_path), "--data_dir", str(tmp_path / "data"), "--device", "cpu"]
    words = ["--model", "lmsrr", "--dataset", "seq-cifar100", *places, "--results", str(tmp_path / "runs")]
    assert main.main([*words, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert (
        "10 tasks, batches of 32" in out and "network   orig21k_1k+sup21k, 1" in out and "GFLOP per test image" in out
    )
    lines = [line for line in out.splitlines() if "missing; " in line]
    for line, name, file in zip(lines, ("orig21k_1k", "sup21k"), ("ViT-B_16-224.npz", "ViT-B_16.npz"), strict=True):
        assert f"--backbone {name}: no weights in" in line and f"{tmp_path / file}" in line
    assert main.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "imagenet21k%2Bimagenet2012/ViT-B_16-224.npz" in error


def test_a_run_on_two_networks_is_a_run(files, few_digits, tmp_path, capsys, in_process):
    words = ["--model", "er", "--trainable", "last", "--last_blocks", "1", "--backbone", PAIR, *few_digits, *SHORT]
    words += ["--cache_dir", str(tmp_path / "cache"), "--results", str(tmp_path / "runs"), "--resume", "auto"]
    assert main.main([*words, "--export", "pth"]) == 0
    folder = run_folder(tmp_path / "runs")
    made, before = read_tensors(folder / "backbone.pth"), weights_of(loaded(PAIR))
    assert_same_weights(weights_of(loaded(PAIR, str(folder / "backbone.pth"))), made)
    moved = {tuple(name.split(".")[1:4]) for name in made if not torch.equal(made[name], before[name])}
    assert moved == {("0", "blocks", "5"), ("1", "blocks", "5")}
    assert main.main(words) == 0
    assert "complete; not repeated" in capsys.readouterr().err
    opened = open_run(folder, to_learn=False)
    names, probabilities = opened.predict([Image.new("RGB", (32, 32))])
    assert names[0] in opened.names and probabilities.sum() == pytest.approx(1)
    assert main.main([*words, "--backbone_path", str(files[0])]) == 2
    assert "the network is 2, whose files are given with commas between" in capsys.readouterr().err
    assert main.main([*words, "--backbone_path", ",".join(map(str, files)), "--dry_run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if ".safetensors" in line]
    assert lines == [["weights", str(files[0])], [str(files[1])]]
