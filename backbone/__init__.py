"""Builds a feature extractor by name and loads its weights.

`build("vit_tiny_glyphs")` and `build("vit_tiny_icons")` are small networks shipped with the project. The names of
`backbone.sources` are the pretrained ViT-B/16 of the field; those of `backbone.small` (`mlp-...`, `resnet18-...`,
`resnet32-...`) begin untrained; any other name is a timm VisionTransformer. `a+b` is several of the ViTs side by side.
Weights come from local files (`--backbone_path`, one for each of them, or a known name in `--checkpoint_dir`) and are
never downloaded silently.

A network has `num_features`, its width D, and `features(network, x)` gives [B, D]. A method that inserts nothing into
its network needs no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbone import small
from backbone.readers import Report
from backbone.readers import load_weights as load_weights
from backbone.several import Several as Several
from backbone.small import Shape
from backbone.sources import ARCHITECTURE, SOURCES
from backbone.vit import cast_once, check_seam, embed, encode
from utils.errors import UsageError, reason
from utils.files.manifest import sha256

SHIPPED = Path(__file__).resolve().parent / "weights"
TRAINED_ON = {"vit_tiny_glyphs": "glyphs", "vit_tiny_icons": "icons"}  # networks that are shipped: dataset
RANDOM = "random"  # --backbone_path random: untrained weights, for pretraining


def is_vit(network: nn.Module) -> bool:
    """Whether it is a ViT, which comes pretrained and takes prompts."""
    return isinstance(network, VisionTransformer)


def vits(network: nn.Module) -> list[VisionTransformer]:
    """The ViTs that it is made of; none for a small network."""
    if isinstance(network, Several):
        return list(network.networks)
    return [network] if is_vit(network) else []


def is_small(network: nn.Module) -> bool:
    """Whether it is no ViT, nor made of some; such a network begins untrained."""
    return not vits(network)


def features(network: nn.Module, x: Tensor) -> Tensor:
    """Features [B, D] of inputs [B, 3, H, W], or [B, N] for a network of plain numbers; of a ViT the class token."""
    return encode(network, embed(network, x)) if is_vit(network) else network(x)


def need_vit(network: nn.Module | str) -> None:
    """Raises UsageError unless the network, or the one of this name, is a ViT."""
    if isinstance(network, str):
        fits, what = not small.is_small(network) and "+" not in network, network
    else:
        fits, what = is_vit(network), "a network of several" if vits(network) else type(network).__name__
    if not fits:
        raise UsageError(
            f"--backbone: this method works inside of a ViT, and {what} is none; "
            f"{', '.join([*TRAINED_ON, *SOURCES])} and timm's VisionTransformers fit"
        )


def parts(name: str, path: str | None) -> list[tuple[str, str | None]]:
    """Name and path of each network of `a+b`, or the one that there is. One file for several of them, as `--export pth`
    leaves it, belongs to them all. Raises UsageError if paths and networks are not as many."""
    names = name.split("+")
    if path is None or path == RANDOM:
        return [(one, path) for one in names]
    paths = path.split(",") if len(names) > 1 else [path]
    if len(paths) == 1:
        return [(name, path)]
    if len(paths) != len(names):
        raise UsageError(f"--backbone_path {path}: {len(paths)} files, and --backbone {name} is {len(names)} networks")
    return list(zip(names, paths))


def begins_untrained(name: str, path: str | None) -> bool:
    """Whether all of the network is drawn, not read from files: as `path` says, or a small one without a path."""
    return all(own == RANDOM or (own is None and small.is_small(one)) for one, own in parts(name, path))


def weights_files(name: str, path: str | None, checkpoint_dir: Path | str = "checkpoints") -> list[Path | None]:
    """For each of `parts` the file with its weights, None where they are drawn. Raises UsageError as `weights_file`."""
    found = parts(name, path)
    return [None if begins_untrained(*part) else weights_file(*part, checkpoint_dir) for part in found]


def weights_file(name: str, path: str | None, checkpoint_dir: Path | str = "checkpoints") -> Path:
    """The file with the weights of one network: `path`, or the one that belongs to the name.

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


def fill(network: nn.Module, files: Sequence[Path | None]) -> list[tuple[Path, Report]]:
    """Fills a network from its `weights_files`; gives what became of each. Raises UsageError as `load_weights`."""
    count = len(vits(network))
    networks = vits(network) if len(files) > 1 else [network]
    read = [(part, file) for part, file in zip(networks, files, strict=True) if file is not None]
    try:
        return [(file, load_weights(part, file)) for part, file in read]
    except UsageError as error:
        if len(files) == 1 < count:
            raise UsageError(f"{error}; the network is {count}, whose files are given with commas between") from error
        raise


def fingerprint(name: str, path: str | None, checkpoint_dir: Path | str = "checkpoints") -> str:
    """SHA-256 of the weight file, which is what a product computed from it depends on; of several, of theirs."""
    if begins_untrained(name, path):
        return RANDOM
    files = weights_files(name, path, checkpoint_dir)
    digests = [RANDOM if file is None else sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("+".join(digests).encode()).hexdigest()


def check(name: str, shape: Shape) -> None:
    """Raises UsageError for a network that takes no sample of this shape, for a small one that cannot be built, and for
    several that do not fit beside each other."""
    if "+" in name:
        input_size(name)
        for part in name.split("+"):
            check(part, shape)
    elif small.is_small(name):
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
    if "+" in name:
        return Several([build(part, shape) for part in name.split("+")])
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

    Raises UsageError for an unknown name, and for several networks of different sizes or with a small one.
    """
    if "+" in name:
        return _common_size(name)
    if small.is_small(name):
        return None
    if name in TRAINED_ON:
        return 32
    import timm

    try:
        return timm.get_pretrained_cfg(_architecture(name)).input_size[-1]
    except RuntimeError as error:  # a known network with an unknown tag
        raise UsageError(f"--backbone {name}: {reason(error)}") from None


def _common_size(name: str) -> int:
    sizes = {}
    for part in name.split("+"):
        if not part:
            raise UsageError(f"--backbone {name}: a network is missing beside a +")
        if (size := input_size(part)) is None:
            raise UsageError(f"--backbone {name}: networks side by side are pretrained ViTs, and {part} is none")
        sizes[part] = size
    if len({*sizes.values()}) > 1:
        listed = ", ".join(f"{part} of {size} px" for part, size in sizes.items())
        raise UsageError(f"--backbone {name}: networks side by side take images of one size; {listed}")
    return size


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
