"""The seam in timm's ViT against plain timm, and weight files that are not what they should be."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import LayerNorm
from timm.layers.diff_attention import DiffAttention

import backbone as backbones
from backbone.prompts import PromptPool
from backbone.vit import (
    AT_ONCE,
    Linear,
    Prefix,
    Projected,
    Prompt,
    cast_once,
    check_seam,
    class_position,
    embed,
    encode,
    run_blocks,
)
from tests.tiny import WIDTH, tiny_vit, weights_of
from utils.errors import UsageError

VARIANTS = {
    "plain": {},
    "no qkv bias": {"qkv_bias": False},
    "qk norm": {"qk_norm": True},
    "layer scale": {"init_values": 0.3},
    "norm before the blocks": {"pre_norm": True},
    "class token without position": {"no_embed_class": True},
    "average pooling": {"global_pool": "avg"},
}
EVERY_VARIANT = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def some_images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def random_table(rows: int, length: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(seed))


# Without prompts


@EVERY_VARIANT
@torch.no_grad()
def test_without_prompts_the_seam_is_timm(settings):
    vit, images = tiny_vit(**settings), some_images()
    expected = vit.forward_features(images)
    tokens = embed(vit, images)
    torch.testing.assert_close(vit.norm(run_blocks(vit, tokens)), expected, **CLOSE)
    torch.testing.assert_close(encode(vit, tokens), expected[:, 0], **CLOSE)


def test_every_timm_network_that_is_let_in_is_computed_as_timm_does():
    """Scaled down, so that all of them take two seconds; what varies is how their blocks are made."""
    accepted = 0
    for name in timm.list_models(module="vision_transformer"):
        try:
            vit = timm.create_model(name, img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=0)
        except ValueError:  # an MLP whose width does not fit the smaller network
            continue
        if check_seam(vit):
            continue
        accepted += 1
        with torch.no_grad():
            for weight in vit.parameters():
                torch.nn.init.normal_(weight, std=0.3)
            vit.eval()
            expected = vit.forward_features(some_images(1))
            torch.testing.assert_close(encode(vit, embed(vit, some_images(1))), expected[:, 0], msg=name, **CLOSE)
    assert accepted > 30


def test_gradients_through_the_seam_are_those_of_timm():
    vit, images = tiny_vit(), some_images()
    vit.forward_features(images)[:, 0].square().sum().backward()
    expected = {name: p.grad.clone() for name, p in vit.named_parameters()}
    vit.zero_grad()
    encode(vit, embed(vit, images)).square().sum().backward()
    for name, p in vit.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)


# With prompts


def appended(vit, images, prompts) -> torch.Tensor:
    """Prompt tuning in plain timm: tokens [B, L, D] appended before a block and dropped after it."""
    tokens = embed(vit, images)
    for layer, block in enumerate(vit.blocks):
        length = tokens.shape[1]
        tokens = block(torch.cat((tokens, *prompts.get(layer, ())), dim=1))[:, :length]
    return vit.norm(tokens)


def prefixed(vit, images, prefixes) -> torch.Tensor:
    """Prefix tuning written out: key and value inputs are longer than the query's. prefixes: layer -> (key, value)."""
    tokens = embed(vit, images)
    for layer, block in enumerate(vit.blocks):
        attn, x = block.attn, block.norm1(tokens)
        key_prefix, value_prefix = prefixes.get(layer, (x[:, :0], x[:, :0]))
        inputs = (x, torch.cat((key_prefix, x), dim=1), torch.cat((value_prefix, x), dim=1))
        bias = attn.qkv.bias.chunk(3) if attn.qkv.bias is not None else (None,) * 3
        q, k, v = (F.linear(i, w, b) for i, w, b in zip(inputs, attn.qkv.weight.chunk(3), bias, strict=True))
        q, k, v = (t.reshape(*t.shape[:2], attn.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        weights = (attn.q_norm(q) @ attn.k_norm(k).transpose(-2, -1) * attn.scale).softmax(dim=-1)
        tokens = tokens + block.ls1(attn.proj((weights @ v).transpose(1, 2).flatten(2)))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return vit.norm(tokens)


@EVERY_VARIANT
@torch.no_grad()
def test_prompt_is_tokens_appended_before_a_block_and_dropped_after(settings):
    vit, images = tiny_vit(**settings), some_images()
    general, expert, last = random_table(1, 2, 1), random_table(4, 3, 2), random_table(4, 1, 3)
    index = torch.tensor([3, 0, 3])
    inserted = {0: [Prompt(general)], 2: [Prompt(general), Prompt(expert, index)], 5: [Prompt(last, index)]}
    all_general = general.expand(3, -1, -1)
    expected = appended(vit, images, {0: [all_general], 2: [all_general, expert[index]], 5: [last[index]]})
    tokens = embed(vit, images)
    torch.testing.assert_close(encode(vit, tokens, inserted), expected[:, 0], **CLOSE)
    torch.testing.assert_close(vit.norm(run_blocks(vit, tokens, inserted)), expected, **CLOSE)
    assert not torch.allclose(encode(vit, tokens), expected[:, 0], atol=1e-2)  # the prompts do something


@EVERY_VARIANT
@torch.no_grad()
def test_prefix_is_rows_before_the_key_and_value_projections(settings):
    vit, images = tiny_vit(**settings), some_images()
    key, value, last = random_table(4, 3, 1), random_table(4, 3, 2), random_table(1, 2, 3)
    index = torch.tensor([1, 1, 2])
    inserted = {1: [Prefix(key, value, index)], 5: [Prefix(last, -last)]}
    every = last.expand(3, -1, -1)
    expected = prefixed(vit, images, {1: (key[index], value[index]), 5: (every, -every)})
    tokens = embed(vit, images)
    torch.testing.assert_close(encode(vit, tokens, inserted), expected[:, 0], **CLOSE)
    torch.testing.assert_close(vit.norm(run_blocks(vit, tokens, inserted)), expected, **CLOSE)
    assert not torch.allclose(encode(vit, tokens), expected[:, 0], atol=1e-2)


@EVERY_VARIANT
@torch.no_grad()
def test_projected_prompts_join_keys_and_values_unchanged(settings):
    """A prefix of the token t enters as W t; the same numbers given as they are must do the same."""
    vit, images = tiny_vit(**settings), some_images()
    key, value, index = random_table(4, 3, 1), random_table(4, 3, 2), torch.tensor([1, 3, 1])
    key_weight, value_weight = vit.blocks[1].attn.qkv.weight.chunk(3)[1:]
    bias = vit.blocks[1].attn.qkv.bias
    key_bias, value_bias = (None, None) if bias is None else bias.chunk(3)[1:]
    as_they_are = Projected(F.linear(key, key_weight, key_bias), F.linear(value, value_weight, value_bias), index)
    tokens = embed(vit, images)
    expected = prefixed(vit, images, {1: (key[index], value[index])})[:, 0]
    torch.testing.assert_close(encode(vit, tokens, {1: [as_they_are]}), expected, **CLOSE)


@EVERY_VARIANT
@torch.no_grad()
def test_adapter_works_beside_the_mlp(settings):
    vit, images = tiny_vit(**settings), some_images()
    adapters = {1: torch.nn.Linear(WIDTH, WIDTH), 5: torch.nn.Linear(WIDTH, WIDTH)}
    tokens = embed(vit, images)
    for layer, block in enumerate(vit.blocks):
        tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
        beside = adapters[layer](tokens) if layer in adapters else 0
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens))) + beside
    torch.testing.assert_close(encode(vit, embed(vit, images), adapters=adapters), vit.norm(tokens)[:, 0], **CLOSE)


@torch.no_grad()
def test_some_outputs_of_some_blocks():
    vit, images = tiny_vit(), some_images()
    tokens = embed(vit, images)
    expected = tokens
    for block in vit.blocks[:5]:
        expected = block(expected)
    torch.testing.assert_close(run_blocks(vit, tokens, keep=3, stop=-1), expected[:, :3], **CLOSE)
    torch.testing.assert_close(run_blocks(vit, tokens, keep=1, stop=5), expected[:, :1], **CLOSE)


def test_many_images_give_what_each_of_them_gives():
    """Without a gradient they pass in parts, whose prompts must be those of their images."""
    vit, count = tiny_vit(), 2 * AT_ONCE + 3
    tables = [random_table(4, 2, seed) for seed in (1, 2)]
    own, rows = random_table(count, 2, 3), torch.arange(count) % 4
    prompts = {
        0: [Prompt(tables[0], rows), Prompt(tables[1][:1])],
        1: [Prefix(*tables, rows), Projected(own, own)],
    }
    tokens = embed(vit, some_images(count))
    at_once = encode(vit, tokens, prompts)
    with torch.no_grad():
        torch.testing.assert_close(encode(vit, tokens, prompts), at_once, **CLOSE)


@torch.no_grad()
def test_no_part_of_many_images_is_small():
    vit, sizes = tiny_vit(), []
    vit.blocks[0].norm1.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    encode(vit, embed(vit, some_images(AT_ONCE + 1)))
    assert sizes == [AT_ONCE // 2 + 1, AT_ONCE // 2]


def test_frozen_weights_are_cast_once(monkeypatch):
    vit, images, seen = cast_once(tiny_vit()).requires_grad_(False), some_images(), []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda x, *weights: seen.append(weights[0]) or linear(x, *weights))

    def passed() -> tuple[torch.Tensor, list[int]]:
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            out = encode(vit, embed(vit, images), {0: [Prompt(random_table(1, 2, 1))]})
        assert {weight.dtype for weight in seen} == {torch.bfloat16}
        return out, [weight.data_ptr() for weight in seen]

    first, places = passed()
    again, same_places = passed()
    assert torch.equal(first, again) and places == same_places
    fresh = tiny_vit().requires_grad_(False)
    fresh.load_state_dict(vit.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(first, encode(fresh, embed(fresh, images), {0: [Prompt(random_table(1, 2, 1))]}))
    vit.blocks[0].mlp.fc1.weight.mul_(2)  # what was cast is not used for weights that have changed
    other, _ = passed()
    assert not torch.equal(other, first)
    for k in range(9):  # nor for other weights, wherever they lie
        vit.blocks[0].mlp.fc1.weight = None
        vit.blocks[0].mlp.fc1.weight = torch.nn.Parameter(torch.full((4 * WIDTH, WIDTH), float(k)), requires_grad=False)
        before, (other, _) = other, passed()
        assert not torch.equal(other, before)
    assert vit.state_dict().keys() == fresh.state_dict().keys()


def test_trained_weights_are_not_kept_cast():
    layer = cast_once(torch.nn.Sequential(torch.nn.Linear(3, 2)))[0]
    assert isinstance(layer, Linear)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None and not hasattr(layer, "_kept")


def test_position_of_the_class_token():
    vit = tiny_vit()
    assert torch.equal(class_position(vit), vit.pos_embed[:, :1])
    assert class_position(tiny_vit(no_embed_class=True)).abs().sum() == 0  # its table begins with a patch


def test_gradients_of_prompts_are_those_of_appended_tokens():
    vit, images, index = tiny_vit(), some_images(), torch.tensor([1, 0, 1])
    ours, theirs = (random_table(2, 3, 1).requires_grad_() for _ in range(2))
    encode(vit, embed(vit, images), {4: [Prompt(ours, index)]}).square().sum().backward()
    appended(vit, images, {4: [theirs[index]]})[:, 0].square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    assert ours.grad.abs().min() > 0


def test_nearest_key_is_found_inside_the_slice():
    pool = PromptPool(4, 1, 2)
    pool.key.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 3.0]])
    queries = torch.tensor([[5.0, 0.0], [0.1, 4.0]])
    distance, index = pool.select(queries)
    assert index.tolist() == [[0], [1]] and distance[0].item() == pytest.approx(0)
    distance, index = pool.select(queries, start=2, stop=4)
    assert index.tolist() == [[3], [3]]
    assert distance[0].item() == pytest.approx(1 - 0.5**0.5)
    distance, index = pool.select(queries, count=3)
    assert index.tolist() == [[0, 3, 1], [1, 3, 0]]
    assert (distance.diff(dim=1) > 0).all()


def test_pool_counts_its_choices():
    pool = PromptPool(3, 1, 2)
    pool.count(torch.tensor([2, 0, 2]))
    pool.count(torch.tensor([2]))
    assert pool.counter.tolist() == [1, 0, 3]


# Networks that cannot take prompts


def with_gate(vit):
    vit.blocks[3].attn.gate = torch.nn.Linear(WIDTH, WIDTH)
    return vit


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda: timm.create_model("resnet18", num_classes=0), "not a timm VisionTransformer"),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=0), "not a timm VisionTransformer"),
        (lambda: tiny_vit(class_token=False, global_pool="avg"), "class token"),
        (lambda: tiny_vit(reg_tokens=2), "further prefix tokens"),
        (lambda: tiny_vit(block_fn=timm.models.vision_transformer.ParallelScalingBlock), "blocks are Parallel"),
        (lambda: tiny_vit(block_fn=timm.models.vision_transformer.ResPostBlock), "blocks are ResPostBlock"),
        (lambda: tiny_vit(attn_layer=DiffAttention), "attention is DiffAttention"),
        (lambda: tiny_vit(scale_attn_norm=True), "normed"),
        (lambda: with_gate(tiny_vit()), "gated"),
    ],
    ids=["resnet", "swin", "no class token", "registers", "parallel", "post-norm", "differential", "normed", "gated"],
)
def test_seam_refuses_what_it_does_not_know(build, reason):
    assert reason in check_seam(build())


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_seam_lets_in_what_it_knows(settings):
    assert check_seam(tiny_vit(**settings)) is None


@pytest.mark.parametrize(
    "name, reason",
    [
        ("vit_tiny_glyph", "did you mean 'vit_tiny_glyphs'?"),
        ("ibot_21k", "did you mean 'ibot21k'?"),
        ("resnet18", "--backbone resnet18: "),
        ("vit_tiny_patch16_224", "no weights are shipped"),
        ("vit_base_patch16_siglip_224", "class token"),
    ],
)
def test_unusable_names_are_refused(name, reason):
    with pytest.raises(UsageError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        backbones.build(name, (3, 32, 32)), backbones.weights_file(name, None)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


# Weight files


def refused(file, vit=None) -> str:
    """The one line with which a weight file is refused; the network must be left as it was."""
    vit = vit or tiny_vit()
    before = weights_of(vit)
    with pytest.raises(UsageError) as caught:
        backbones.load_weights(vit, file)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    message = str(caught.value)
    assert str(file) in message and "\n" not in message
    return message


@pytest.fixture(params=["safetensors", "pth", "pt"])
def save(request, tmp_path):
    """Writes a state dict in one of the formats; gives the file."""

    def write(state):
        file = tmp_path / f"weights.{request.param}"
        save_file(state, file) if request.param == "safetensors" else torch.save(state, file)
        return file

    return write


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_weights_come_back_and_classifiers_are_passed_over(save, prefix):
    stored = weights_of(tiny_vit(seed=3)) | {"head.weight": torch.zeros(5, WIDTH), "fc.bias": torch.zeros(5)}
    vit = tiny_vit()
    backbones.load_weights(vit, save({prefix + name: value for name, value in stored.items()}))
    assert all(torch.equal(value, stored[name]) for name, value in vit.state_dict().items())


def test_wrong_shape_is_named(save):
    state = weights_of(tiny_vit()) | {"norm.bias": torch.zeros(WIDTH + 1)}
    assert f"norm.bias has shape [{WIDTH + 1}], the network needs [{WIDTH}]" in refused(save(state))


def test_missing_and_unknown_keys_are_named(save):
    state = weights_of(tiny_vit())
    del state["cls_token"]
    assert "missing ['cls_token']" in refused(save(state))
    assert "unknown ['extra']" in refused(save(weights_of(tiny_vit()) | {"extra": torch.zeros(1)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(save, value):
    state = weights_of(tiny_vit())
    state["blocks.2.mlp.fc1.weight"][3, 1] = value
    assert "blocks.2.mlp.fc1.weight holds values that are not finite" in refused(save(state))


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file_is_refused(save, share):
    file = save(weights_of(tiny_vit()))
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "cannot be read as" in refused(file)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_file_of_noise_is_refused(tmp_path, suffix):
    file = tmp_path / f"noise.{suffix}"
    file.write_bytes(torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).byte().numpy().tobytes())
    assert "cannot be read as" in refused(file)


class Gadget:
    """Runs code when unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_weight_file_is_not_run(tmp_path, legacy):
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    state = weights_of(tiny_vit()) | {"extra": Gadget(trace)}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    assert "holds more than these (" in refused(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the gadget is a real one
    assert trace.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"state_dict": {"norm.bias": torch.zeros(1)}}, torch.zeros(3), {1: torch.zeros(3)}, {}]
)
def test_other_contents_are_refused(tmp_path, content):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    refused(file)


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.pth")
    assert "no such file" in refused(tmp_path)


def test_fingerprint_follows_the_content(tmp_path):
    first, copy, other = (tmp_path / f"{name}.safetensors" for name in "abc")
    save_file(weights_of(tiny_vit(0)), first)
    copy.write_bytes(first.read_bytes())
    save_file(weights_of(tiny_vit(1)), other)
    prints = [backbones.fingerprint("vit_tiny_glyphs", str(file)) for file in (first, copy, other)]
    assert prints[0] == prints[1] != prints[2]
    assert backbones.fingerprint("vit_tiny_glyphs", backbones.RANDOM) == backbones.RANDOM
    with pytest.raises(UsageError, match="no such file"):
        backbones.fingerprint("vit_tiny_glyphs", str(tmp_path / "absent"))


def test_another_normalisation_layer_is_no_matter():
    vit, images = tiny_vit(norm_layer=partial(LayerNorm, eps=1e-3)), some_images()
    torch.testing.assert_close(encode(vit, embed(vit, images)), vit.forward_features(images)[:, 0], **CLOSE)


@pytest.mark.parametrize("name, size", [("vit_tiny_glyphs", 32), ("ibot21k", 224), ("vit_base_patch16_384", 384)])
def test_size_of_the_images_that_a_network_was_made_for(name, size):
    assert backbones.input_size(name) == size
    with torch.device("meta"):
        vit = backbones.build(name)
    assert vit.patch_embed.img_size == (size, size)


def test_images_of_another_size_are_refused():
    with pytest.raises(UsageError, match="28 px"):
        backbones.build("vit_tiny_glyphs", (3, 28, 28))
