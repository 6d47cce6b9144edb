"""Loads weight files of any origin into the ViT, and says what became of their keys.

What a file is shows in its content: a state dict with timm's names, bare or in a container of a training script, with
or without the prefixes that these add; or the arrays of Google's JAX code (.npz). Sources: timm 1.0,
`vision_transformer.py`; the loaders of FlyGCL (79a6b51).
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from utils.errors import UsageError
from utils.files.tensors import read_tensors

TEACHER = "teacher"  # beside a student it holds the weights to be used, as DINO and iBOT say
CONTAINERS = (
    *(TEACHER, "student", "state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights"),
    *("backbone", "encoder", "module", "params", "model_ema", "ema", "state_dict_ema", "ema_state_dict"),
)
DEEPEST = 4  # containers in each other; one may hold itself
# Of DataParallel, torch.compile and Lightning; of DINO, iBOT and FlyGCL; of MoCo v3 and v1, whose other encoders are
# no more than followers. In any order.
PREFIXES = (
    *("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", f"{TEACHER}.", "student."),
    *("base_encoder.", "encoder_q."),
)
# No part of the trunk: classifiers, projectors, and what only self-supervised pretraining needs.
ASIDE = (
    *("head.", "head_dist.", "fc.", "pre_logits."),
    *("predictor.", "momentum_encoder.", "encoder_k.", "queue", "student.", "decoder_", "mask_token", "masked_embed"),
)


@dataclass(frozen=True)
class Report:
    """What became of a weight file.

    loaded: keys of the network. ignored: keys of the file that are no part of the trunk. missing: keys of the network's
    own classifier, which no file fills. notes: what was changed on the way.
    """

    loaded: list[str]
    ignored: list[str]
    missing: list[str]
    notes: list[str]

    def __str__(self) -> str:
        counts = [
            f"{len(self.loaded)} tensors loaded",
            _count(self.ignored, "ignored"),
            _count(self.missing, "missing"),
        ]
        return "; ".join([", ".join(counts), *self.notes])


def _count(keys: list[str], verb: str) -> str:
    groups = sorted({re.sub(r"[./].*", ".*", key) for key in keys})
    return f"{len(keys)} {verb} ({', '.join(groups)})" if keys else f"none {verb}"


def load_weights(network: nn.Module, file: Path) -> Report:
    """Fills the whole trunk of the network from a file, a small network from one that has its own names and no others.

    A position table of another image size is resized (bicubic). The first convolution of a small network that learnt
    from grey images is shared out to three channels, so that it sees their mean. The last norm of the file is ignored
    by a network without one. Raises UsageError, and leaves the network as it was, if a key of the trunk is missing, has
    the wrong shape or values that are not finite, or if the file has keys that are neither of the trunk nor known to be
    beside it.
    """
    return (_load_vit if isinstance(network, VisionTransformer) else _load_small)(network, file)


def _load_vit(vit: VisionTransformer, file: Path) -> Report:
    state, notes = _read_state(file)
    own = vit.state_dict()
    norm = ("norm.", "fc_norm.")
    aside = ASIDE if any(key.startswith(norm) for key in own) else ASIDE + norm
    ignored = sorted(key for key in state if key.replace("/", ".").startswith(aside))
    trunk = {key: value for key, value in own.items() if not key.startswith(aside)}
    found = {key: value for key, value in state.items() if key not in ignored}
    _check_plain(file, found, trunk)
    if "pos_embed" in found and vit.pos_embed is not None and found["pos_embed"].shape != vit.pos_embed.shape:
        found["pos_embed"], note = _resize_positions(vit, found["pos_embed"])
        notes += note
    return _fill(vit, file, found, trunk, ignored, notes)


def _load_small(network: nn.Module, file: Path) -> Report:
    state = read_tensors(file)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{file}: holds no flat state dict, as --export pth leaves it")
    if any(str(key).startswith("backbone.") for key in state):
        raise UsageError(f"{file}: holds a whole method; --export pth of its run leaves the network alone")
    found, trunk = {str(key): Tensor.detach(value) for key, value in state.items()}, network.state_dict()
    _check_plain(file, found, trunk)
    notes = []
    for key in trunk.keys() & found.keys():
        grey, colour = found[key].shape, trunk[key].shape
        if len(grey) == 4 and grey[1] == 1 and colour[1] == 3 and grey == (colour[0], 1, *colour[2:]):
            found[key] = found[key].expand(colour) / 3
            notes.append(f"{key}, of grey images, shared out to three channels")
    return _fill(network, file, found, trunk, [], notes)


def _check_plain(file: Path, found: dict[str, Tensor], trunk: dict[str, Tensor]) -> None:
    """Raises UsageError unless the tensors of the trunk are numbers."""
    for key in sorted(trunk.keys() & found.keys()):
        counts = not trunk[key].is_floating_point() and found[key].dtype == trunk[key].dtype  # of a batch norm
        if not _is_plain(found[key]) and not counts:
            raise UsageError(f"{file}: {key} is no dense tensor of floating-point numbers ({found[key].dtype})")


def _fill(
    network: nn.Module,
    file: Path,
    found: dict[str, Tensor],
    trunk: dict[str, Tensor],
    ignored: list[str],
    notes: list[str],
) -> Report:
    """Fills the trunk with the tensors found, which must be all of it and nothing else."""
    for key in sorted(trunk.keys() & found.keys()):
        if found[key].shape != trunk[key].shape:
            shapes = f"{list(found[key].shape)}, the network needs {list(trunk[key].shape)}"
            raise UsageError(f"{file}: {key} has shape {shapes}")
    missing, unknown = sorted(trunk.keys() - found.keys()), sorted(found.keys() - trunk.keys())
    if missing or unknown:
        found_in = "".join(f"; {note}" for note in notes)
        raise UsageError(f"{file}: does not fit the network; missing {missing[:3]}, unknown {unknown[:3]}{found_in}")
    found = {key: value.to(trunk[key].dtype) for key, value in found.items()}
    for key in sorted(found):
        if not found[key].isfinite().all():
            raise UsageError(f"{file}: {key} holds values that are not finite")
    network.load_state_dict(found, strict=False)  # not strict about the classifier alone
    return Report(sorted(found), ignored, sorted(network.state_dict().keys() - trunk.keys()), notes)


def _read_state(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """State dict with timm's names, as far as the file's are known, and notes on where it was found."""
    state, opened = _opened(read_tensors(file), file)
    notes = [f"taken from {name!r}" for name in opened]
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise UsageError(f"{file}: holds no state dict")
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UsageError(
            f"{file}: holds no flat state dict; {others[0]!r:.60} is no tensor (of {str(list(state)[:5]):.300}; "
            f"containers that are opened: {', '.join(CONTAINERS)})"
        )
    state = {key: Tensor.detach(value) for key, value in state.items()}  # without what a file may have hung on them
    if file.suffix == ".npz":
        try:
            return _from_google(state), notes
        except (IndexError, RuntimeError) as error:
            raise UsageError(f"{file}: its arrays have not the axes of a ViT ({error})") from None
    own = _own_prefix(state, opened, file)
    return _renamed(state, own, file), [*notes, *([f"without {own!r} before its names"] if own else [])]


def _opened(state: object, file: Path) -> tuple[object, list[str]]:
    """What lies in the containers of a file, and their names from the outermost. Raises UsageError if several hold
    a network and none is the one that is known to be meant."""
    opened = []
    while isinstance(state, dict) and len(opened) < DEEPEST and not _trunks(state):
        held = [name for name in CONTAINERS if isinstance(state.get(name), dict)]
        whole = [name for name in held if _holds_trunk(state[name])]
        if len(whole) > 1 and whole[0] != TEACHER:
            raise UsageError(
                f"{file}: {' and '.join(map(repr, whole))} hold a network each; keep the one that you mean, here "
                f"{whole[0]}: {_keeping(file, [*opened, whole[0]])}"
            )
        if not held:
            break
        opened.append((whole or held)[0])
        state = state[opened[-1]]
    return state, opened


def _holds_trunk(state: object, depth: int = 0) -> bool:
    """Whether a container, or one in it, holds a ViT."""
    if not isinstance(state, dict) or depth == DEEPEST:
        return False
    return bool(_trunks(state)) or any(_holds_trunk(state.get(name), depth + 1) for name in CONTAINERS)


def _trunks(state: dict) -> list[str]:
    """What stands before the names of each ViT in a state dict: known prefixes, or nothing."""
    names = [key for key in state if isinstance(key, str) and key.endswith("pos_embed")]
    return sorted(name.removesuffix("pos_embed") for name in names if _without_prefixes(name) == "pos_embed")


def _own_prefix(state: dict[str, Tensor], opened: list[str], file: Path) -> str:
    """What stands before the names of the one ViT, or of the teacher beside its student; nothing if there is none."""
    trunks = _trunks(state)
    meant = [prefix for prefix in trunks if f".{TEACHER}." in f".{prefix}"]
    if len(trunks) > 1 and len(meant) == 1 and all(".student." in f".{trunk}" for trunk in set(trunks) - set(meant)):
        return meant[0]
    if len(trunks) > 1:
        raise UsageError(
            f"{file}: the names before pos_embed are {' and '.join(map(repr, trunks))}, a network each; keep the one "
            f"that you mean, here {trunks[-1]}: {_keeping(file, opened, trunks[-1])}"
        )
    return trunks[0] if trunks else ""


def _renamed(state: dict[str, Tensor], own: str, file: Path) -> dict[str, Tensor]:
    """State dict without the prefixes of training scripts. own: those of the network; others keep their student."""
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix(own)
        if name == key or not own:
            name = _without_prefixes(key, PREFIXES if TEACHER not in own else _BUT_STUDENT)
        if name in renamed:
            raise UsageError(f"{file}: holds {name!r} twice, under different prefixes")
        renamed[name] = value
    return renamed


_BUT_STUDENT = tuple(prefix for prefix in PREFIXES if prefix != "student.")


def _without_prefixes(name: str, prefixes: tuple[str, ...] = PREFIXES) -> str:
    while prefix := next((prefix for prefix in prefixes if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _keeping(file: Path, opened: list[str], prefix: str = "") -> str:
    """A command, for the folder of this code, that writes one network of a file into another file."""
    place = "".join(f"[{name!r}]" for name in opened)
    code = (
        "import sys; from pathlib import Path; from utils.files.tensors import read_tensors, write_pth; "
        f"i, o = map(Path, sys.argv[1:]); c = read_tensors(i){place}; "
        f"write_pth({{k: v for k, v in c.items() if k.startswith({prefix!r})}}, o)"
    )
    kept = file.with_name(f"{file.stem}-{prefix.strip('.') or opened[-1]}.pth")
    return f'python -c "{code}" {shlex.quote(str(file))} {shlex.quote(str(kept))}'


def _is_plain(value: Tensor) -> bool:
    dense = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
    return dense and value.is_floating_point()


def _resize_positions(vit: VisionTransformer, table: Tensor) -> tuple[Tensor, list[str]]:
    """Position table [1, N, D] for the network's grid and a note; as it is, if it belongs to no square grid."""
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    size = vit.patch_embed.grid_size
    side = math.isqrt(max(table.shape[1] - prefix, 0)) if table.ndim == 3 else 0
    if side == 0 or table.shape != (1, side * side + prefix, vit.embed_dim):
        return table, []
    resized = resample_abs_pos_embed(table, size, num_prefix_tokens=prefix)
    return resized, [f"pos_embed resized from {side}x{side} to {size[0]}x{size[1]} patches"]


# Google's names. Kernels have the axes [in, out], those of attention one axis more for the heads.
_SINGLE = {"cls": "cls_token", "Transformer/posembed_input/pos_embedding": "pos_embed"}
_LAYERS = {"embedding": "patch_embed.proj", "Transformer/encoder_norm": "norm"}
_BLOCK_LAYERS = {
    "LayerNorm_0": "norm1",
    "MultiHeadDotProductAttention_1/query": "attn.query",
    "MultiHeadDotProductAttention_1/key": "attn.key",
    "MultiHeadDotProductAttention_1/value": "attn.value",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}
_QKV = ("query", "key", "value")


def _from_google(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Arrays of Google's original ViT code as a state dict with timm's names; unknown names stay as they are."""
    state = {}
    for key, value in arrays.items():
        key = key.removeprefix("opt/target/")
        layer, _, kind = key.rpartition("/")
        block = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", layer)
        place = _LAYERS.get(layer)
        if block and block[2] in _BLOCK_LAYERS:
            place = f"blocks.{block[1]}.{_BLOCK_LAYERS[block[2]]}"
        if key in _SINGLE:
            state[_SINGLE[key]] = value
        elif place and kind == "kernel":
            state[f"{place}.weight"] = _weight(value, place)
        elif place and kind in ("scale", "bias"):
            state[f"{place}.{'weight' if kind == 'scale' else kind}"] = value.flatten()
        else:
            state[key] = value
    for key in [key for key in state if ".attn.query." in key]:
        parts = [key.replace("query", part) for part in _QKV]
        if all(part in state for part in parts):
            state[key.replace("query", "qkv")] = torch.cat([state.pop(part) for part in parts])
    return state


def _weight(kernel: Tensor, place: str) -> Tensor:
    """A kernel as torch has it: [out, in], or [out, in, height, width] for the patch embedding."""
    if place == "patch_embed.proj":
        return kernel.permute(3, 2, 0, 1)
    if place.endswith(_QKV):
        return kernel.flatten(1).T  # [D, heads, D / heads]
    return kernel.flatten(0, -2).T  # [in, out], or [heads, D / heads, D]
