"""Builds a feature extractor by name and loads its weights.

`make("vit_tiny_glyphs")` is the small network shipped with the project; any other name is a timm VisionTransformer,
whose weights come from a local file (`--backbone_path`) and are never downloaded silently.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from utils.errors import UsageError
from utils.tensors import read_tensors

SHIPPED = Path(__file__).resolve().parent / "weights"
RANDOM = "random"  # --backbone_path random: untrained weights, for pretraining


def make(name: str, path: str | None = None, image_size: int | None = None) -> VisionTransformer:
    """The network without a classifier, weights loaded.

    path: a weight file, "random" for untrained weights, or None for the shipped weights of `vit_tiny_glyphs`.
    Raises UsageError for an unknown name, missing or unfitting weights, or a network that cannot take prompts.
    """
    vit = _architecture(name, image_size)
    if path == RANDOM:
        return vit
    load_weights(vit, weights_file(name, path))
    return vit


def weights_file(name: str, path: str | None) -> Path:
    """The file whose weights `make` would load."""
    if path is not None:
        return Path(path)
    shipped = SHIPPED / f"{name}.safetensors"
    if not shipped.is_file():
        raise UsageError(f"--backbone {name}: no weights are shipped for it; name a file with --backbone_path")
    return shipped


def fingerprint(name: str, path: str | None) -> str:
    """SHA-256 of the weight file, which is what a product computed from it depends on."""
    if path == RANDOM:
        return RANDOM
    file = weights_file(name, path)
    if not file.is_file():
        raise UsageError(f"{file}: no such weight file")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _architecture(name: str, image_size: int | None) -> VisionTransformer:
    if name == "vit_tiny_glyphs":
        if image_size not in (None, 32):
            raise UsageError(f"--backbone {name}: takes images of 32 px, the dataset has {image_size} px")
        return VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=6, num_heads=4, num_classes=0)
    import timm

    from backbone.vit import check_seam

    if not timm.is_model(name):
        import difflib

        near = difflib.get_close_matches(name, ["vit_tiny_glyphs", *timm.list_models("vit_*")], n=1)
        raise UsageError(
            f"--backbone {name}: timm knows no such model" + (f"; did you mean '{near[0]}'?" if near else "")
        )
    try:
        vit = timm.create_model(
            name, pretrained=False, num_classes=0, **({"img_size": image_size} if image_size else {})
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"--backbone {name}: timm cannot build it for {image_size} px images ({error})") from None
    reason = check_seam(vit)
    if reason:
        raise UsageError(f"--backbone {name}: prompts cannot be inserted, {reason}")
    return vit


def load_weights(vit: VisionTransformer, file: Path) -> None:
    """Loads a state dict with timm names into the network; classifier keys are ignored, anything else must fit."""
    state = read_tensors(file)
    flat = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not flat:
        raise UsageError(f"{file}: holds no flat state dict of tensors")
    state = {key: value for key, value in _clean(state).items() if not key.startswith(("head.", "fc."))}
    own = vit.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if wrong:
        key = wrong[0]
        raise UsageError(f"{file}: {key} has shape {list(state[key].shape)}, the network needs {list(own[key].shape)}")
    if missing or unknown:
        raise UsageError(f"{file}: does not fit the network; missing {missing[:3]}, unknown {unknown[:3]}")
    bad = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise UsageError(f"{file}: {bad[0]} holds values that are not finite")
    vit.load_state_dict(state)


def _clean(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without the prefixes that DataParallel and the GCL repositories add."""
    return {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
