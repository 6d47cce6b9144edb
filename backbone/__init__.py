"""Builds a feature extractor by name and loads its weights.

`build("vit_tiny_glyphs")` and `build("vit_tiny_icons")` are small networks shipped with the project. The names of
`backbone.sources` are the pretrained ViT-B/16 of the field; those of `backbone.small`, `mlp-...`, `resnet18-...` and
`resnet32-...`, are networks that begin untrained; any other name is a timm VisionTransformer. Weights come from local
files (`--backbone_path`, or a known name in `--checkpoint_dir`) and are never downloaded silently.

A network has `num_features`, its width D, and `features(network, x)` gives [B, D]. A method that inserts nothing into
its network needs no more.
"""

from __future__ import annotations

from pathlib import Path

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbone import small
from backbone.readers import load_weights as load_weights
from backbone.small import Shape
from backbone.sources import ARCHITECTURE, SOURCES
from backbone.vit import cast_once, check_seam, embed, encode
from utils.errors import UsageError, reason
from utils.files.manifest import sha256

SHIPPED = Path(__file__).resolve().parent / "weights"
TRAINED_ON = {"vit_tiny_glyphs": "glyphs", "vit_tiny_icons": "icons"}  # networks that are shipped: dataset
RANDOM = "random"  # --backbone_path random: untrained weights, for pretraining


def is_vit(network: nn.Module) -> bool:
    """Whether it is a ViT, which comes pretrained and takes prompts; every other network is small and untrained."""
    return isinstance(network, VisionTransformer)


def features(network: nn.Module, x: Tensor) -> Tensor:
    """Features [B, D] of inputs [B, 3, H, W], or [B, N] for a network of plain numbers; of a ViT the class token."""
    return encode(network, embed(network, x)) if is_vit(network) else network(x)


def need_vit(network: nn.Module | str) -> None:
    """Raises UsageError unless the network, or the one of this name, is a ViT."""
    if small.is_small(network) if isinstance(network, str) else not is_vit(network):
        what = network if isinstance(network, str) else type(network).__name__
        raise UsageError(
            f"--backbone: this method works inside of a ViT, and {what} is none; "
            f"{', '.join([*TRAINED_ON, *SOURCES])} and timm's VisionTransformers fit"
        )


def begins_untrained(name: str, path: str | None) -> bool:
    """Whether the network is drawn, not read from a file: as `path` says, or a small one without a path."""
    return path == RANDOM or (path is None and small.is_small(name))


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
    if begins_untrained(name, path):
        return RANDOM
    return sha256(weights_file(name, path, checkpoint_dir))


def check(name: str, shape: Shape) -> None:
    """Raises UsageError for a network that takes no sample of this shape, and for a small one that cannot be built."""
    if small.is_small(name):
        small.check(name, shape)
    elif len(shape) != 3:
        raise UsageError(f"--backbone {name}: takes images, not {shape[0]} numbers, which mlp-128-128-128 takes")


def build(name: str, shape: Shape | None = None) -> nn.Module:
    """The network without a classifier, untrained.

    shape: of a sample, (channels, side, side) or (numbers,); None: what the network was made for. A ViT always takes
    three channels. Raises UsageError for an unknown name, or a network that cannot take prompts or such samples.
    """
    if small.is_small(name):
        small.check(name, shape)
        return small.build(name, shape)
    if shape is not None:
        check(name, shape)
    image_size = None if shape is None else shape[-1]
    if name in TRAINED_ON:
        if image_size not in (None, 32):
            raise UsageError(f"--backbone {name}: takes images of 32 px, the dataset has {image_size} px")
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=6, num_heads=4, num_classes=0)
        return cast_once(vit)
    import timm

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
    return cast_once(vit)


def input_size(name: str) -> int | None:
    """Side in pixels of the images that the network was made for; None for a small network, which takes any.

    Raises UsageError for an unknown name.
    """
    if small.is_small(name):
        return None
    if name in TRAINED_ON:
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

        near = difflib.get_close_matches(name, [*TRAINED_ON, *SOURCES, *timm.list_models("vit_*")], n=1)
        raise UsageError(
            f"--backbone {name}: timm knows no such model" + (f"; did you mean '{near[0]}'?" if near else "")
        )
    return name
