"""Weight files of the field, rebuilt small with their true key names: what is read, refused and reported."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

import backbone as backbones
from backbone.sources import SOURCES
from backbone.vit import embed, encode
from tests.miniatures import Gadget
from tests.tiny import ROOT, WIDTH, assert_same_weights, tiny_vit, weights_of
from utils.errors import UsageError
from utils.files.tensors import export_pth, read_tensors

HEADS = 2
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def small_vit(seed: int = 0, **settings):
    return tiny_vit(seed, **{"depth": 2, "num_heads": HEADS} | settings)


def without_norm(vit):
    vit.norm = nn.Identity()
    return vit


@torch.no_grad()
def assert_same_features(ours, theirs, images=IMAGES) -> None:
    """The features that methods see are timm's of the other network."""
    expected = theirs.forward_features(images)[:, 0]
    torch.testing.assert_close(encode(ours, embed(ours, images)), expected, rtol=1e-4, atol=1e-5)


# The files


def google_arrays(state: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """A state dict as Google's JAX code stores it, with a classifier."""
    state = {name: value.numpy() for name, value in state.items()}
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": np.zeros((WIDTH, 7), np.float32),
        "head/bias": np.zeros(7, np.float32),
        "pre_logits/kernel": np.zeros((WIDTH, WIDTH), np.float32),
        "pre_logits/bias": np.zeros(WIDTH, np.float32),
    }
    for block in range(sum(name.endswith("norm1.bias") for name in state)):
        ours, theirs = f"blocks.{block}", f"Transformer/encoderblock_{block}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for norm, number in (("norm1", 0), ("norm2", 2)):
            arrays[f"{theirs}/LayerNorm_{number}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/LayerNorm_{number}/bias"] = state[f"{ours}.{norm}.bias"]
        for row, part in enumerate(("query", "key", "value")):
            rows = slice(row * WIDTH, (row + 1) * WIDTH)
            kernel = state[f"{ours}.attn.qkv.weight"][rows].T
            arrays[f"{attention}/{part}/kernel"] = kernel.reshape(WIDTH, HEADS, WIDTH // HEADS)
            arrays[f"{attention}/{part}/bias"] = state[f"{ours}.attn.qkv.bias"][rows].reshape(HEADS, WIDTH // HEADS)
        kernel = state[f"{ours}.attn.proj.weight"].T
        arrays[f"{attention}/out/kernel"] = kernel.reshape(HEADS, WIDTH // HEADS, WIDTH)
        arrays[f"{attention}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for number, layer in enumerate(("fc1", "fc2")):
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}.mlp.{layer}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}.mlp.{layer}.bias"]
    return {prefix + name: value for name, value in arrays.items()}


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def zeros(*names: str) -> dict:
    return {name: torch.zeros(3) for name in names}


PROJECTOR = ("head.mlp.0.weight", "head.mlp.0.bias", "head.last_layer.weight_g", "head.last_layer.weight_v")


def ibot_checkpoint(state: dict) -> dict:
    """What main_ibot.py saves: both networks, and much that is no tensor. The student's weights are others."""
    student = {name: value + 1 for name, value in state.items()} | zeros("masked_embed")
    return {
        "student": prefixed(student, "module.backbone.") | prefixed(zeros(*PROJECTOR), "module."),
        "teacher": prefixed(state, "backbone.") | zeros(*PROJECTOR),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": np.float64(5e-4), "params": [0]}]},
        "epoch": 80,
        "args": argparse.Namespace(arch="vit_base", lr=5e-4),
        "ibot_loss": zeros("center", "center2"),
        "fp16_scaler": {"scale": 65536.0},
    }


def moco_checkpoint(state: dict) -> dict:
    """What MoCo v3's main_moco.py saves. The momentum encoder's weights are others."""
    head = zeros("head.0.weight", "head.1.running_mean")
    other = {name: value + 1 for name, value in state.items()} | head
    encoders = prefixed(state | head, "module.base_encoder.") | prefixed(other, "module.momentum_encoder.")
    return {
        "epoch": 300,
        "arch": "vit_base",
        "state_dict": encoders | zeros("module.predictor.0.weight"),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "scaler": {},
    }


def save(content, file):
    """Writes a file in the format of its name."""
    if file.suffix == ".npz":
        np.savez(file, **content)
    elif file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)
    return file


# (source, file name) -> content from the state dict of a network, and how many keys are ignored.
FILES = {
    ("sup21k", "ViT-B_16.npz"): (google_arrays, 4),
    ("orig21k_1k", "ViT-B_16-224.npz"): (google_arrays, 4),
    ("sup21k_1k", "vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors"): (
        lambda state: state | zeros("head.weight", "head.bias"),
        2,
    ),
    ("sup21k_1k", "vit_21k_1k_mepo_epoch_0.pth"): (lambda state: state, 0),
    ("ibot21k", "ibot21k.pth"): (ibot_checkpoint, 4),
    ("ibot21k", "checkpoint.pth"): (ibot_checkpoint, 4),
    ("ibot1k", "checkpoint_teacher.pth"): (lambda state: {"state_dict": state}, 0),
    ("ibot1k", "ibot_vitbase16_pretrain.pth"): (lambda state: {"state_dict": state | zeros(*PROJECTOR)}, 4),
    ("dino1k", "dino_vitbase16_pretrain.pth"): (lambda state: state, 0),
    ("mocov3_1k", "vit-b-300ep.pth.tar"): (moco_checkpoint, 2 + 32 + 1 + 2),
    ("mocov3_1k", "mocov3-vit-base-300ep.pth"): (lambda state: {"model": state}, 2),
}
EVERY_FILE = pytest.mark.parametrize("source, name", FILES, ids=[f"{source} {name}" for source, name in FILES])


def test_every_file_name_of_the_table_is_covered():
    assert set(FILES) == {(name, file) for name, source in SOURCES.items() for file in source.files}


@EVERY_FILE
def test_files_of_the_field_are_loaded_by_name(source, name, tmp_path, monkeypatch):
    """From the checkpoint folder, into a network as `build` makes it, but for its size."""
    origin, content = small_vit(seed=3), FILES[source, name][0]
    save(content(weights_of(origin)), tmp_path / name)
    normed = SOURCES[source].final_norm
    monkeypatch.setattr(backbones, "build", lambda *_: small_vit() if normed else without_norm(small_vit()))
    vit = backbones.build(source, (3, 32, 32))
    backbones.load_weights(vit, backbones.weights_file(source, None, tmp_path))
    expected = origin if normed else without_norm(origin)
    assert_same_weights(weights_of(vit), weights_of(expected))
    assert_same_features(vit, expected)


@EVERY_FILE
def test_report_of_every_file(source, name, tmp_path):
    content, ignored = FILES[source, name]
    vit = small_vit() if SOURCES[source].final_norm else without_norm(small_vit())
    report = backbones.load_weights(vit, save(content(weights_of(small_vit())), tmp_path / name))
    assert report.loaded == sorted(vit.state_dict())
    assert len(report.ignored) == ignored
    assert report.missing == []


@pytest.mark.parametrize("name", SOURCES)
def test_sources_are_timms_vit_base(name):
    """The 150 tensors that mepo.md lists; MoCo v3 is used without its last norm."""
    with torch.device("meta"):
        vit = backbones.build(name)
        resized = backbones.build(name, (3, 96, 96))
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    layers = ["patch_embed.proj", *(f"blocks.{block}.{part}" for block in range(12) for part in parts)]
    layers += ["norm"] * SOURCES[name].final_norm
    keys = {"cls_token", "pos_embed"} | {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert vit.state_dict().keys() == keys
    assert vit.pos_embed.shape == (1, 197, 768) and resized.pos_embed.shape == (1, 37, 768)
    assert vit.blocks[0].norm1.eps == 1e-6 and vit.blocks[0].attn.num_heads == 12
    assert isinstance(vit.norm, nn.LayerNorm) == (name != "mocov3_1k")


# Against timm's own loaders


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_google_file_is_loaded_as_timm_does(prefix, tmp_path):
    file = save(google_arrays(weights_of(small_vit(seed=3)), prefix), tmp_path / "ViT-B_16.npz")
    ours, theirs = small_vit(seed=1), small_vit(seed=2)
    report = backbones.load_weights(ours, file)
    theirs.load_pretrained(str(file))
    assert_same_weights(weights_of(ours), weights_of(theirs))
    assert_same_features(ours, theirs)
    assert str(report) == "30 tensors loaded, 4 ignored (head.*, pre_logits.*), none missing"


@pytest.mark.parametrize("name", ["vit_21k_1k_mepo_epoch_0.pth", "checkpoint_teacher.pth", "mocov3-vit-base-300ep.pth"])
def test_state_dicts_are_loaded_as_timm_does(name, tmp_path):
    content = next(content for (_, file), (content, _) in FILES.items() if file == name)
    file = save(content(weights_of(small_vit(seed=3))), tmp_path / name)
    ours, theirs = small_vit(seed=1), small_vit(seed=2)
    backbones.load_weights(ours, file)
    timm.models.load_checkpoint(theirs, str(file))
    assert_same_weights(weights_of(ours), weights_of(theirs))


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("settings", [{}, {"no_embed_class": True}], ids=["class position", "no class position"])
@pytest.mark.parametrize("suffix", ["pth", "npz"])
def test_positions_are_resized_as_timm_does(size, settings, suffix, tmp_path):
    state = weights_of(small_vit(seed=3, **settings))
    file = save(google_arrays(state) if suffix == "npz" else state, tmp_path / f"weights.{suffix}")
    ours, theirs = (small_vit(seed=1, img_size=size, **settings) for _ in range(2))
    report = backbones.load_weights(ours, file)
    theirs.load_state_dict(checkpoint_filter_fn(state, theirs))
    assert_same_weights(weights_of(ours), weights_of(theirs))
    images = IMAGES.repeat(1, 1, 2, 2)[..., :size, :size]
    assert_same_features(ours, theirs, images)
    assert report.notes == [f"pos_embed resized from 4x4 to {size // 8}x{size // 8} patches"]
    assert str(report).endswith(f"none missing; {report.notes[0]}")


def test_positions_for_images_that_are_not_square(tmp_path):
    state = weights_of(small_vit(seed=3))
    vit = small_vit(img_size=(16, 48))
    report = backbones.load_weights(vit, save(state, tmp_path / "weights.pth"))
    expected = resample_abs_pos_embed(state["pos_embed"], (2, 6))
    assert torch.equal(vit.pos_embed, expected)
    assert report.notes == ["pos_embed resized from 4x4 to 2x6 patches"]


@pytest.mark.parametrize("shape", [(1, 16, WIDTH), (1, 1, WIDTH), (1, 10, WIDTH - 1), (2, 10, WIDTH), (10, WIDTH), ()])
def test_positions_of_no_square_grid_are_refused(shape, tmp_path):
    state = weights_of(small_vit()) | {"pos_embed": torch.zeros(shape)}
    message = refused(save(state, tmp_path / "weights.pth"))
    assert f"pos_embed has shape {list(shape)}, the network needs [1, 17, {WIDTH}]" in message


# What a report says


def test_report_names_what_it_saw(tmp_path):
    state = ibot_checkpoint(weights_of(small_vit()))
    report = backbones.load_weights(small_vit(), save(state, tmp_path / "checkpoint.pth"))
    assert str(report) == (
        "30 tensors loaded, 4 ignored (head.*), none missing; taken from 'teacher'; "
        "without 'backbone.' before its names"
    )
    assert report.ignored == sorted(PROJECTOR)


def test_classifier_of_the_network_is_left_alone_and_reported_missing(tmp_path):
    vit = small_vit(num_classes=5)
    head = vit.head.weight.detach().clone()
    state = weights_of(small_vit(seed=3)) | {"head.weight": torch.zeros(5, WIDTH), "head.bias": torch.zeros(5)}
    report = backbones.load_weights(vit, save(state, tmp_path / "weights.pth"))
    assert report.missing == ["head.bias", "head.weight"] and torch.equal(vit.head.weight, head)
    assert str(report) == "30 tensors loaded, 2 ignored (head.*), 2 missing (head.*)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_those_of_the_network(dtype, tmp_path):
    state = {name: value.to(dtype) for name, value in weights_of(small_vit(seed=3)).items()}
    vit = small_vit()
    backbones.load_weights(vit, save(state, tmp_path / "weights.pth"))
    assert_same_weights(weights_of(vit), {name: value.float() for name, value in state.items()})


def test_final_norm_is_optional_for_a_network_without_one_only(tmp_path):
    state = weights_of(without_norm(small_vit(seed=3)))
    file = save(state, tmp_path / "weights.pth")
    assert backbones.load_weights(without_norm(small_vit()), file).ignored == []
    assert "missing ['norm.bias', 'norm.weight']" in refused(file)
    moved = save(state | {"fc_norm.weight": torch.ones(WIDTH), "fc_norm.bias": torch.zeros(WIDTH)}, file)
    assert backbones.load_weights(without_norm(small_vit()), moved).ignored == ["fc_norm.bias", "fc_norm.weight"]
    assert "unknown ['fc_norm.bias', 'fc_norm.weight']" in refused(moved)


# Containers and prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "_orig_mod.",
            "model.",
            "backbone.",
            "encoder_q.",
            "module.",
            "base_encoder.",
            "student.",
            "teacher.",
            "net.",
        ),
        *("module._orig_mod.", "_orig_mod.module.", "model.backbone.", "student.backbone.", "module.encoder_q.model."),
    ],
)
def test_prefixes_come_in_any_order(prefix, tmp_path):
    state, vit = weights_of(small_vit(seed=3)), small_vit()
    report = backbones.load_weights(vit, save(prefixed(state, prefix) | zeros("head.weight"), tmp_path / "w.pth"))
    assert_same_weights(weights_of(vit), state)
    assert report.notes == [f"without {prefix!r} before its names"] and report.ignored == ["head.weight"]


@pytest.mark.parametrize(
    "names", ["net", "model_state_dict", "student", "model_ema", "ema", "model state_dict", "weights net"]
)
def test_containers_are_opened(names, tmp_path):
    content = state = weights_of(small_vit(seed=3))
    for name in reversed(names.split()):
        content = {"epoch": 3, "optimizer": {"state": {}}, name: content}
    vit = small_vit()
    report = backbones.load_weights(vit, save(content, tmp_path / "w.pth"))
    assert_same_weights(weights_of(vit), state)
    assert report.notes == [f"taken from {name!r}" for name in names.split()]


def test_only_the_container_with_the_network_is_opened(tmp_path):
    content = {"model": {"centre": torch.zeros(3)}, "net": weights_of(small_vit(seed=3))}
    vit = small_vit()
    assert backbones.load_weights(vit, save(content, tmp_path / "w.pth")).notes == ["taken from 'net'"]
    assert_same_weights(weights_of(vit), content["net"])


@pytest.mark.parametrize(
    "pair, chosen",
    [(("encoder_q.", "encoder_k."), "encoder_q."), (("teacher.backbone.", "student.backbone."), "teacher.")],
)
def test_of_two_networks_the_documented_one_is_taken(pair, chosen, tmp_path):
    networks = {prefix: weights_of(small_vit(seed=seed)) for seed, prefix in enumerate(pair, 3)}
    content = {f"module.{prefix}{key}": v for prefix, state in networks.items() for key, v in state.items()}
    vit = small_vit()
    report = backbones.load_weights(vit, save(content | zeros("module.queue"), tmp_path / "w.pth"))
    assert_same_weights(weights_of(vit), networks[pair[0]])
    assert len(report.ignored) == 31 and report.notes == [f"without {f'module.{pair[0]}'!r} before its names"]
    assert pair[0].startswith(chosen)


@pytest.mark.parametrize("names", [("model", "model_ema"), ("student", "ema")])
def test_containers_of_a_network_each_are_named(names, tmp_path):
    content = {name: weights_of(small_vit()) for name in names}
    message = refused(save(content, tmp_path / "w.pth"))
    assert f"{names[0]!r} and {names[1]!r} hold a network each; keep the one that you mean" in message


def test_a_container_can_be_kept(tmp_path):
    names = ("state_dict", "state_dict_ema")
    content = {name: weights_of(small_vit(seed=seed)) for seed, name in enumerate(names, 3)}
    file = save(content, tmp_path / "it's $(one) of two.pth")
    vit = small_vit()
    backbones.load_weights(vit, converted(refused(file), file))
    assert_same_weights(weights_of(vit), content["state_dict"])


def test_prefixes_of_a_network_each_are_named_and_one_can_be_kept(tmp_path):
    networks = {prefix: weights_of(small_vit(seed=seed)) for seed, prefix in enumerate(("backbone.", "net."), 3)}
    state = {prefix + key: value for prefix, state in networks.items() for key, value in state.items()}
    file = save({"state_dict": state}, tmp_path / "w.pth")
    message = refused(file)
    assert "'backbone.' and 'net.', a network each" in message
    vit = small_vit()
    backbones.load_weights(vit, converted(message, file))
    assert_same_weights(weights_of(vit), networks["net."])


def test_what_is_not_understood_is_named(tmp_path):
    state = weights_of(small_vit())
    assert "unknown ['towers.blocks.0" in refused(save(prefixed(state, "towers."), tmp_path / "w.pth"))
    message = refused(save({"epoch": 3, "towers": state}, tmp_path / "w.pth"))
    assert "'epoch' is no tensor (of ['epoch', 'towers']; containers that are opened: teacher, student" in message


# Where the file is looked for


@pytest.mark.parametrize("name", SOURCES)
def test_missing_weights_say_where_to_get_and_to_put_them(name, tmp_path):
    with pytest.raises(UsageError) as caught:
        backbones.weights_file(name, None, tmp_path)
    message, source = str(caught.value), SOURCES[name]
    assert "\n" not in message and "--backbone_path" in message and "--checkpoint_dir" in message
    assert source.address in message and str(tmp_path / source.files[0]) in message and source.licence in message


def test_named_file_then_the_first_of_the_known_ones(tmp_path):
    named = tmp_path / "elsewhere.pth"
    with pytest.raises(UsageError, match="elsewhere.pth: no such file"):
        backbones.weights_file("dino1k", str(named), tmp_path)
    named.write_bytes(b"named")
    assert backbones.weights_file("dino1k", str(named), tmp_path) == named
    first, second = SOURCES["ibot1k"].files
    (tmp_path / second).write_bytes(b"second")
    assert backbones.weights_file("ibot1k", None, str(tmp_path)) == tmp_path / second
    (tmp_path / first).write_bytes(b"first")
    assert backbones.weights_file("ibot1k", None, tmp_path) == tmp_path / first
    print_of_first = backbones.fingerprint("ibot1k", None, tmp_path)
    assert print_of_first == backbones.fingerprint("vit_base_patch16_224", str(tmp_path / first))
    assert print_of_first != backbones.fingerprint("ibot1k", str(tmp_path / second), tmp_path)


# What is refused


def refused(file, vit=None) -> str:
    """The one line with which a weight file is refused; the network must be left as it was."""
    vit = vit or small_vit()
    before = weights_of(vit)
    with pytest.raises(UsageError) as caught:
        backbones.load_weights(vit, file)
    assert_same_weights(weights_of(vit), before)
    message = str(caught.value)
    assert str(file) in message and "\n" not in message
    return message


@EVERY_FILE
def test_a_missing_block_is_refused(source, name, tmp_path):
    content = FILES[source, name][0](weights_of(small_vit(depth=1)))
    message = refused(save(content, tmp_path / name))
    assert "missing ['blocks.1.attn.proj.bias'" in message


@EVERY_FILE
def test_one_block_too_many_is_refused(source, name, tmp_path):
    content = FILES[source, name][0](weights_of(small_vit(depth=3)))
    vit = small_vit() if SOURCES[source].final_norm else without_norm(small_vit())
    assert "unknown ['blocks.2.attn.proj.bias'" in refused(save(content, tmp_path / name), vit)


@EVERY_FILE
def test_another_width_is_refused(source, name, tmp_path):
    content = FILES[source, name][0](weights_of(small_vit()))
    message = refused(save(content, tmp_path / name), small_vit(embed_dim=2 * WIDTH))
    assert f"has shape [{WIDTH}], the network needs [{2 * WIDTH}]" in message


@EVERY_FILE
@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(source, name, share, tmp_path):
    file = save(FILES[source, name][0](weights_of(small_vit())), tmp_path / name)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cannot be read as tensors (" in refused(file)


@pytest.mark.parametrize("suffix", ["pth", "pt", "pth.tar", "bin", "npz", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>\n", b"\x80\x02.", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_something_else_is_refused(suffix, content, tmp_path):
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(content)
    refused(file)


@pytest.mark.parametrize(
    "name, reason",
    [("weights.pth", "damaged or of another format"), ("weights.npz", "no archive"), ("weights.safetensors", "header")],
)
def test_the_reason_is_given_in_words(name, reason, tmp_path):
    (tmp_path / name).write_bytes(b"error 404: there is no such file on this server\n")
    assert reason in refused(tmp_path / name)


@pytest.mark.parametrize("suffix", ["pth", "npz", "safetensors"])
def test_a_folder_is_refused(suffix, tmp_path):
    (tmp_path / f"weights.{suffix}").mkdir()
    assert "no such file" in refused(tmp_path / f"weights.{suffix}")


def tensor_header(**entry) -> bytes:
    header = json.dumps({"cls_token": {"dtype": "F32", "shape": [1, 1, WIDTH], "data_offsets": [0, 128]} | entry})
    return struct.pack("<Q", len(header)) + header.encode()


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 20) + b'{"cls_token": [[[[[[',
        struct.pack("<Q", 2) + b"{}",
        tensor_header(shape=[2**40, 2**40]) + bytes(128),
        tensor_header(data_offsets=[0, 2**60]) + bytes(128),
        tensor_header(dtype="X9") + bytes(128),
    ],
    ids=["huge header", "long header", "broken header", "no tensors", "huge tensor", "far offset", "unknown type"],
)
def test_a_broken_safetensors_header_is_refused(content, tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    refused(file)


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)})
    file = tmp_path / "weights.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cls.npy", header.getvalue() + bytes(64))
    assert "cannot be read as tensors (" in refused(file)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_an_incomplete_attention_is_refused(part, tmp_path):
    arrays = google_arrays(weights_of(small_vit()))
    del arrays[f"Transformer/encoderblock_1/MultiHeadDotProductAttention_1/{part}/kernel"]
    assert "missing ['blocks.1.attn.qkv.weight'], unknown [" in refused(save(arrays, tmp_path / "weights.npz"))


@pytest.mark.parametrize(
    "key, shape",
    [
        ("embedding/kernel", (8, WIDTH)),
        ("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", (WIDTH,)),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel", (WIDTH,)),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/kernel", (2 * WIDTH, HEADS, 16)),
    ],
)
def test_arrays_with_other_axes_are_refused(key, shape, tmp_path):
    arrays = google_arrays(weights_of(small_vit())) | {key: np.zeros(shape, np.float32)}
    assert "its arrays have not the axes of a ViT" in refused(save(arrays, tmp_path / "weights.npz"))


def test_unknown_arrays_are_named_as_in_the_file(tmp_path):
    arrays = google_arrays(weights_of(small_vit())) | {"Transformer/extra/kernel": np.zeros(3, np.float32)}
    assert "unknown ['Transformer/extra/kernel']" in refused(save(arrays, tmp_path / "weights.npz"))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(WIDTH, dtype=torch.int64),
        torch.zeros(WIDTH, dtype=torch.complex64),
        torch.zeros(WIDTH).to_sparse(),
        torch.zeros(WIDTH, device="meta"),
    ],
    ids=["integers", "complex", "sparse", "no values"],
)
def test_tensors_that_are_no_dense_floats_are_refused(value, tmp_path):
    state = weights_of(small_vit()) | {"norm.bias": value}
    message = refused(save(state, tmp_path / "weights.pth"))
    assert "norm.bias is no dense tensor of floating-point numbers" in message


def test_values_too_large_for_the_network_are_refused(tmp_path):
    state = weights_of(small_vit()) | {"norm.bias": torch.full((WIDTH,), 1e300, dtype=torch.float64)}
    assert "norm.bias holds values that are not finite" in refused(save(state, tmp_path / "weights.pth"))


def test_a_key_under_two_prefixes_is_refused(tmp_path):
    state = weights_of(small_vit()) | {"module.norm.bias": torch.zeros(WIDTH)}
    assert "holds 'norm.bias' twice" in refused(save(state, tmp_path / "weights.pth"))


def test_a_container_of_itself_is_refused(tmp_path):
    content = {}
    content["model"] = content
    assert "'model' is no tensor" in refused(save(content, tmp_path / "weights.pth"))


# Files that would have to run code


@pytest.mark.parametrize("place", ["teacher", "beside it"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickles_run_no_code(place, legacy, tmp_path):
    trace, content = tmp_path / "trace", ibot_checkpoint(weights_of(small_vit()))
    for call in (Gadget(open, str(trace), "w"), Gadget(os.system, f"touch {trace}"), Gadget(eval, "1")):
        (content["teacher"] if place == "teacher" else content)["extra"] = call
        file = tmp_path / "checkpoint.pth"
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        message = refused(file)
        assert re.search(r"it holds more than these \((_?io\.open|\w+\.system|eval)\); if you trust it", message)
        assert not trace.exists()


def test_gadget_in_the_state_of_an_object_that_is_let_through_runs_no_code(tmp_path):
    trace = tmp_path / "trace"
    content = ibot_checkpoint(weights_of(small_vit()))
    content["args"] = argparse.Namespace(arch=Gadget(open, str(trace), "w"))
    refused(save(content, tmp_path / "checkpoint.pth"))
    assert not trace.exists()


def test_arguments_and_numpy_scalars_are_never_made(tmp_path):
    allowed = set(torch.serialization.get_safe_globals())
    content = read_tensors(save(ibot_checkpoint(weights_of(small_vit())), tmp_path / "checkpoint.pth"))
    rate = content["optimizer"]["param_groups"][0]["lr"]
    assert type(content["args"]) is type(rate) and not isinstance(rate, (float, argparse.Namespace))
    assert vars(rate) == {}
    assert set(torch.serialization.get_safe_globals()) == allowed


def converted(message: str, file):
    """Runs the command that an error message ends with; gives the file it wrote."""
    command = message.partition(": python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, cwd=ROOT)
    (new,) = set(file.parent.iterdir()) - {file}
    return new


def test_a_pickle_of_more_than_tensors_can_be_converted(tmp_path):
    state = weights_of(small_vit(seed=3))
    content = {"teacher": prefixed(state, "backbone.") | {"notes": np.zeros(3)}, "epoch": 3}
    file = save(content, tmp_path / "it's a check point.pth")
    message = refused(file)
    assert "multiarray._reconstruct" in message and "weights_only=False" in message
    vit = small_vit()
    backbones.load_weights(vit, converted(message, file))
    assert_same_weights(weights_of(vit), state)


@pytest.mark.parametrize("place", ["alone", "beside its optimiser"])
def test_a_pickled_module_can_be_converted(place, tmp_path):
    vit = small_vit(seed=3)
    optimizer = torch.optim.SGD(vit.parameters(), 0.1)
    content = {"alone": vit}
    content["beside its optimiser"] = {"net": nn.DataParallel(vit), "optimizer": optimizer, "loss": [0.1]}
    file = save(content[place], tmp_path / 'a `b` "c".pth')
    message = refused(file)
    assert "its classes can be imported here" in message
    other = small_vit()
    backbones.load_weights(other, converted(message, file))
    assert_same_weights(weights_of(other), weights_of(vit))


def test_objects_in_an_npz_are_refused_and_can_be_converted(tmp_path):
    trace, file, state = tmp_path / "trace", tmp_path / "weights.npz", weights_of(small_vit(seed=3))
    save(google_arrays(state) | {"extra": np.array([Gadget(open, str(trace), "w")], dtype=object)}, file)
    assert "it holds more than these (Python objects); if you trust it" in refused(file)
    assert not trace.exists()
    save(google_arrays(state) | {"extra": np.array([{"a": 1}], dtype=object)}, file)
    vit = small_vit()
    backbones.load_weights(vit, converted(refused(file), file))
    assert_same_weights(weights_of(vit), state)


# Files for the authors' scripts


def test_exported_weights_are_a_flat_state_dict_in_float32(tmp_path):
    vit = small_vit(seed=3).to(torch.bfloat16)
    export_pth(vit.state_dict(), tmp_path / "new" / "vit_meta_5.pth")
    export_pth(vit.state_dict(), tmp_path / "again.pth")
    file = tmp_path / "new" / "vit_meta_5.pth"
    state = torch.load(file, weights_only=True)
    assert type(state) is dict and {value.dtype for value in state.values()} == {torch.float32}
    assert_same_weights(state, {name: value.float() for name, value in weights_of(vit).items()})
    assert file.read_bytes() == (tmp_path / "again.pth").read_bytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert str(backbones.load_weights(small_vit(), file)) == "30 tensors loaded, none ignored, none missing"


def test_exported_views_do_not_carry_their_storage(tmp_path):
    weight = nn.Parameter(torch.zeros(1000, 100))
    export_pth({"row": weight[3]}, tmp_path / "row.pth")
    assert (tmp_path / "row.pth").stat().st_size < 4000
    assert not read_tensors(tmp_path / "row.pth")["row"].requires_grad
