"""Builds a feature extractor by name and loads its weights.

`build("vit_tiny_glyphs")` is the small network shipped with the project. The names of `backbone.sources` are the
pretrained ViT-B/16 of the field; any other name is a timm VisionTransformer. Weights come from local files
(`--backbone_path`, or a known name in `--checkpoint_dir`) and are never downloaded silently.
"""

from __future__ import annotations

from pathlib import Path

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbone.readers import load_weights as load_weights
from backbone.sources import ARCHITECTURE, SOURCES
from utils.errors import UsageError, reason
from utils.files.manifest import sha256

SHIPPED = Path(__file__).resolve().parent / "weights"
RANDOM = "random"  # --backbone_path random: untrained weights, for pretraining


def weights_file(name: str, path: str | None, checkpoint_dir: Path | str = "checkpoints") -> Path:
    """The file with the weights of a network: `path`, or the one that belongs to the name.

    Raises UsageError if it is not there, or the name is unknown.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UsageError(f"--backbone_path {path}: no such file")
        return Path(path)
    if name in SOURCES:
        source = SOURCES[name]
        files = [Path(checkpoint_dir) / file for file in source.files]
        for file in files:
            if file.is_file():
                return file
        raise UsageError(
            f"--backbone {name}: no weights in {checkpoint_dir} (--checkpoint_dir); save {source.address} "
            f"({source.what}; {source.licence}) as {files[0]}, or name a file with --backbone_path"
        )
    shipped = SHIPPED / f"{name}.safetensors"
    if not shipped.is_file():
        _architecture(name)
        raise UsageError(f"--backbone {name}: no weights are shipped for it; name a file with --backbone_path")
    return shipped


def fingerprint(name: str, path: str | None, checkpoint_dir: Path | str = "checkpoints") -> str:
    """SHA-256 of the weight file, which is what a product computed from it depends on."""
    if path == RANDOM:
        return RANDOM
    return sha256(weights_file(name, path, checkpoint_dir))


def build(name: str, image_size: int | None = None) -> VisionTransformer:
    """The network without a classifier, untrained.

    Raises UsageError for an unknown name, or a network that cannot take prompts or images of this size.
    """
    if name == "vit_tiny_glyphs":
        if image_size not in (None, 32):
            raise UsageError(f"--backbone {name}: takes images of 32 px, the dataset has {image_size} px")
        return VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=6, num_heads=4, num_classes=0)
    import timm

    from backbone.vit import check_seam

    size = {"img_size": image_size} if image_size else {}
    architecture = _architecture(name)
    try:
        vit = timm.create_model(architecture, pretrained=False, num_classes=0, **size)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"--backbone {name}: timm cannot build it for {image_size} px images ({error})") from None
    if fault := check_seam(vit):
        raise UsageError(f"--backbone {name}: prompts cannot be inserted, {fault}")
    if name in SOURCES and not SOURCES[name].final_norm:
        vit.norm = nn.Identity()
    return vit


def features(network: nn.Module, x: Tensor) -> Tensor:
    """Inputs [B, ...] to features [B, D]: the class token of a ViT, the output of any other network."""
    from backbone.vit import embed, encode

    return encode(network, embed(network, x)) if isinstance(network, VisionTransformer) else network(x)


def input_size(name: str) -> int:
    """Side in pixels of the images that the network was made for. Raises UsageError for an unknown name."""
    if name == "vit_tiny_glyphs":
        return 32
    import timm

    try:
        return timm.get_pretrained_cfg(_architecture(name)).input_size[-1]
    except RuntimeError as error:  # a known network with an unknown tag
        raise UsageError(f"--backbone {name}: {reason(error)}") from None


def _architecture(name: str) -> str:
    """timm's name for the network."""
    import timm

    if name in SOURCES:
        return ARCHITECTURE
    if not timm.is_model(name):
        import difflib

        near = difflib.get_close_matches(name, ["vit_tiny_glyphs", *SOURCES, *timm.list_models("vit_*")], n=1)
        raise UsageError(
            f"--backbone {name}: timm knows no such model" + (f"; did you mean '{near[0]}'?" if near else "")
        )
    return name
