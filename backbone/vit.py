"""The one ViT of the project: timm's VisionTransformer, and the seam where methods insert prompts.

A method computes `tokens = embed(vit, images)` and `encode(vit, tokens, prompts)`. Without prompts the pair equals
timm's `forward_features`. Three ways to insert prompts exist in the literature, and all reach a block only as
additional keys and values of its attention:

* `Prompt`, prompt tuning (tokens appended before a block and dropped after it): the outputs of prompt tokens are
  dropped, so only their keys and values matter. They pass the block's first norm, like every token.
* `Prefix`, prefix tuning: key prompts and value prompts enter the key and the value projection separately, without
  the norm.
* `Projected`: keys and values as they are, without norm and projection.

Prompts that stay in the sequence (L2P) are joined to `tokens` by the method itself. An adapter works beside the MLP of
its block.

Shapes: B images, N tokens (class token first), D width, L prompt length, M rows of a prompt table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True)
class Prompt:
    """Tokens appended at a block and dropped after it.

    table: [M, L, D] distinct prompts. index: [B] row used by each image, or None: the one row there is serves all, or
    each image has its own.
    Tables are projected once per distinct prompt, not once per image.
    """

    table: Tensor
    index: Tensor | None = None

    def project(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        """Keys and values [M, L, D] of the table in this block."""
        tokens = block.norm1(self.table)
        return _linear(block, tokens, "k"), _linear(block, tokens, "v")


@dataclass(frozen=True)
class Prefix:
    """Key prompts and value prompts [M, L, D] of a block; index as in `Prompt`."""

    key_table: Tensor
    value_table: Tensor
    index: Tensor | None = None

    def project(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        return _linear(block, self.key_table, "k"), _linear(block, self.value_table, "v")


@dataclass(frozen=True)
class Projected:
    """Keys and values [M, L, D] that join those of a block unchanged; index as in `Prompt`."""

    key_table: Tensor
    value_table: Tensor
    index: Tensor | None = None

    def project(self, block: nn.Module) -> tuple[Tensor, Tensor]:
        return self.key_table, self.value_table


Prompts = Mapping[int, list[Prompt | Prefix | Projected]]
NO_PROMPTS: Prompts = {}
Adapters = Mapping[int, Callable[[Tensor], Tensor]]
NO_ADAPTERS: Adapters = {}

# Images that pass a CPU at a time where no gradient is wanted, at most, so that what lies between two layers stays in
# its cache. Parts are of even sizes: few images are slow, and have other last bits.
AT_ONCE = 64


class Linear(nn.Linear):
    """A layer whose weights, as long as they are frozen, are cast once to the precision of autocast, not in every pass.
    What is cast is no part of its state, and is made again where the weights are others, have changed, or have moved:
    of what is written through `.data` torch does not tell."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *_weights(self, x.device.type))


def cast_once(vit: VisionTransformer) -> VisionTransformer:
    """The network itself, whose layers are now such ones."""
    for module in vit.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return vit


def _weights(layer: nn.Linear, device: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, at the precision of autocast if they are frozen."""
    weight, bias = layer.weight, layer.bias
    if weight.requires_grad or device == "meta" or not torch.is_autocast_enabled(device):
        return weight, bias
    dtype = torch.get_autocast_dtype(device)
    state = (dtype, *((p.data_ptr(), p._version) for p in (weight, bias) if p is not None))
    kept = getattr(layer, "_kept", None)
    if kept is None or kept.weight is not weight or kept.bias is not bias or kept.state != state:
        cast = (None if p is None else p.detach().to(dtype) for p in (weight, bias))
        layer._kept = kept = _Cast(weight, bias, state, *cast)
    return kept.low_weight, kept.low_bias


@dataclass(frozen=True)
class _Cast:
    """A layer's weights, held so that no later ones get their address, what was true of them, and what they became."""

    weight: Tensor
    bias: Tensor | None
    state: tuple
    low_weight: Tensor
    low_bias: Tensor | None


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] to tokens [B, N, D]: patches, class token first, position embedding added."""
    return vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))


def class_position(vit: VisionTransformer) -> Tensor:
    """Position embedding of the class token [1, 1, D]; zero where the network gives it none."""
    return torch.zeros_like(vit.cls_token) if vit.no_embed_class else vit.pos_embed[:, :1]


def encode(
    vit: VisionTransformer, tokens: Tensor, prompts: Prompts = NO_PROMPTS, adapters: Adapters = NO_ADAPTERS
) -> Tensor:
    """Class token [B, D] after all blocks and the last norm."""
    return vit.norm(run_blocks(vit, tokens, prompts, adapters, keep=1))[:, 0]


def run_blocks(
    vit: VisionTransformer,
    tokens: Tensor,
    prompts: Prompts = NO_PROMPTS,
    adapters: Adapters = NO_ADAPTERS,
    keep: int | None = None,
    stop: int | None = None,
) -> Tensor:
    """Tokens [B, N, D] after blocks 0 ... stop - 1 (default: all), without the last norm.

    Block i also attends to `prompts[i]`, and `adapters[i]` is added to its output. keep: only the first `keep` tokens
    are wanted, [B, keep, D]; the last of these blocks computes nothing else.
    """
    if len(tokens) > AT_ONCE and tokens.device.type == "cpu" and not torch.is_grad_enabled():
        size = math.ceil(len(tokens) / math.ceil(len(tokens) / AT_ONCE))
        starts = range(0, len(tokens), size)
        parts = ((tokens[i : i + size], _of(prompts, slice(i, i + size))) for i in starts)
        return torch.cat([run_blocks(vit, *part, adapters, keep, stop) for part in parts])
    blocks = vit.blocks[:stop]
    for layer, block in enumerate(blocks):
        wanted = keep if layer == len(blocks) - 1 else None
        tokens = _block(block, tokens, prompts.get(layer, ()), adapters.get(layer), wanted)
    return tokens[:, :keep]


def each_block(blocks: Iterable[nn.Module], tokens: Tensor) -> list[Tensor]:
    """Tokens [B, N, D] after each of these blocks, which follow on each other."""
    outputs = []
    for block in blocks:
        outputs.append(tokens := _block(block, tokens, (), None, None))
    return outputs


def _of(prompts: Prompts, images: slice) -> Prompts:
    """The prompts of some images of the batch."""

    def of(prompt: Prompt | Prefix | Projected) -> Prompt | Prefix | Projected:
        if prompt.index is not None:
            return replace(prompt, index=prompt.index[images])
        tables = {name: table for name, table in vars(prompt).items() if table is not None and len(table) > 1}
        return replace(prompt, **{name: table[images] for name, table in tables.items()})

    return {layer: [of(prompt) for prompt in inserted] for layer, inserted in prompts.items()}


def _block(block: nn.Module, tokens: Tensor, prompts, adapter, keep: int | None) -> Tensor:
    """One transformer block; outputs for the first `keep` tokens alone, or for all."""
    attended = _attention(block, block.norm1(tokens), prompts, keep)
    tokens = tokens[:, :keep] + block.drop_path1(block.ls1(attended))
    out = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return out if adapter is None else out + adapter(tokens)


def _attention(block: nn.Module, normed: Tensor, prompts, keep: int | None) -> Tensor:
    """Multi-head attention of the first `keep` normed tokens (or all) over all of them [B, N, D] and the prompts."""
    attn = block.attn
    if keep is None:
        query, key, value = attn.qkv(normed).chunk(3, dim=-1)
    else:
        query = _linear(block, normed[:, :keep], "q")
        key, value = _linear(block, normed, "kv").chunk(2, dim=-1)
    query, key, value = (_heads(attn, t) for t in (query, key, value))
    for prompt in prompts:
        more = (_heads(attn, _rows(table, prompt.index, len(key))) for table in prompt.project(block))
        key, value = (torch.cat((t, new.to(t.dtype)), dim=2) for t, new in zip((key, value), more))
    out = _attend(attn, attn.q_norm(query), attn.k_norm(key), value)
    return attn.proj_drop(attn.proj(out.transpose(1, 2).flatten(2)))


def _attend(attn: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries [B, heads, N, d] over keys and values [B, heads, L, d], by whichever way is faster.

    The fused kernel is, but for bf16 on a CPU, whose backward pass takes 3 to 7 times as long as products and softmax.
    """
    dropout = attn.attn_drop.p if attn.training else 0.0
    if value.device.type == "cpu" and value.dtype == torch.bfloat16:
        scores = (query.contiguous() * attn.scale) @ key.transpose(-2, -1)
        return F.dropout(scores.softmax(dim=-1), dropout) @ value
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=attn.scale)


def _rows(table: Tensor, index: Tensor | None, batch: int) -> Tensor:
    """[M, L, D] to [B, L, D]."""
    return table.expand(batch, -1, -1) if index is None else table.index_select(0, index)


def _heads(attn: nn.Module, tokens: Tensor) -> Tensor:
    """[B, N, D] to [B, heads, N, D / heads]."""
    return tokens.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)


_ROWS = {"q": (0, 1), "k": (1, 2), "v": (2, 3), "kv": (1, 3)}


def _linear(block: nn.Module, tokens: Tensor, part: str) -> Tensor:
    """The query, key or value rows of the block's joint projection, applied to tokens [..., D]."""
    qkv = block.attn.qkv
    start, stop = (qkv.in_features * i for i in _ROWS[part])
    weight, bias = _weights(qkv, tokens.device.type)
    return F.linear(tokens, weight[start:stop], None if bias is None else bias[start:stop])


def check_seam(vit: nn.Module) -> str | None:
    """Why this timm model cannot take prompts, or None. The seam knows pre-norm blocks with a joint projection."""
    if not isinstance(vit, VisionTransformer):
        return f"{type(vit).__name__} is not a timm VisionTransformer"
    if vit.cls_token is None or vit.num_prefix_tokens != 1:
        return "it has no class token, or further prefix tokens"
    for block in vit.blocks:
        attn = getattr(block, "attn", None)
        if not all(
            hasattr(block, name) for name in ("norm1", "ls1", "drop_path1", "norm2", "ls2", "drop_path2", "mlp")
        ):
            return f"its blocks are {type(block).__name__}"
        if type(attn) is not Attention:
            return f"its attention is {type(attn).__name__}"
        if not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity) or getattr(attn, "gate", None) is not None:
            return "its attention is normed or gated before the last projection"
    return None
