"""The small networks that classic continual learning trains from scratch: MLPs, OML's convolutions, two ResNets.

`mlp-100-100` names the widths of the hidden layers; the last of them is the feature. `conv4-64` is the first four of
OML's six 3x3 convolutions (Javed and White, NeurIPS 2019), of 64 channels, without padding, strides 2, 1, 2, 1, 2, 2;
the whole last map is the feature: `conv6-256` on 84 px is theirs. `resnet18-20` names the base
width W: a 3x3 stem, four stages of W, 2 W, 4 W and 8 W channels, and the average over the last map, 8 W numbers. It is
GEM's network (Lopez-Paz and Ranzato, NeurIPS 2017) for 20 and Mammoth's for 64, with their names of weights;
`resnet18-20-pool` has BCL's max pool after the stem. `resnet32-16` is He's ResNet-32 for CIFAR as posterior
meta-replay has it (chrhenning/posterior_replay_cl e60ed78): a 3x3 stem of W channels, three groups of five blocks of W,
2 W and 4 W, shortcuts without weights, convolutions with biases, and the average over the last map. Weights begin as
torch has them, those of an MLP Glorot uniform, of `conv4-64` Kaiming normal, both with zero biases.

Shapes: B samples, C channels that the network was built for, D features. Images come with three channels, of which a
network of one takes the first.
"""

from __future__ import annotations

import itertools
import math
import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.args import SMALL_NETWORKS
from utils.device import free_memory
from utils.errors import UsageError

Shape = tuple[int, ...]  # of a sample: (channels, side, side) or (numbers,)
WIDTH = r"[1-9]\d{0,8}"
BYTES = 4  # of a weight
DEPTH = 5  # blocks in a group of a ResNet-32
STRIDES = (2, 1, 2, 1, 2, 2)  # of OML's convolutions


class Mlp(nn.Module):
    """Layers of the given widths with ReLU, the last one included. Takes images [B, 3, S, S] or numbers [B, N]."""

    def __init__(self, shape: Shape, widths: list[int]):
        super().__init__()
        self.channels = shape[0] if len(shape) == 3 else None
        self.num_features = widths[-1]
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise([math.prod(shape), *widths]))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def flat(self, x: Tensor) -> Tensor:
        """What the first layer takes of samples, [B, N]."""
        return (x if self.channels is None else x[:, : self.channels]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D]."""
        x = self.flat(x)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class Conv(nn.Module):
    """The first `depth` of OML's convolutions, each with ReLU: images [B, 3, S, S] to features [B, width * side^2] of
    the last map."""

    def __init__(self, shape: Shape, depth: int, width: int):
        super().__init__()
        self.channels, self.num_features = shape[0], width * last_side(shape[-1], depth) ** 2
        widths = [self.channels] + [width] * depth
        self.layers = nn.ModuleList(
            nn.Conv2d(*sizes, 3, stride) for sizes, stride in zip(pairwise(widths), STRIDES, strict=False)
        )
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D]."""
        x = x[:, : self.channels]
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.flatten(1)


class ResNet18(nn.Module):
    """Images [B, 3, S, S] to features [B, 8 * width]. pool: whether a 3x3 max pool of stride 2 follows the stem."""

    def __init__(self, channels: int, width: int, pool: bool = False):
        super().__init__()
        self.channels, self.num_features = channels, 8 * width
        self.conv1 = _conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D]; the average over the whole last map, which is GEM's 4x4 average for images of 32 px."""
        x = self.pool(F.relu(self.bn1(self.conv1(x[:, : self.channels]))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = _conv3x3(before, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet32(nn.Module):
    """Images [B, 3, S, S] to features [B, 4 * width]."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.channels, self.num_features = channels, 4 * width
        self.conv1 = _conv3x3(channels, width, bias=True)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width]
        self.blocks = nn.Sequential(
            *(
                PaddedBlock(before if k == 0 else after, after, 2 if k == 0 and group > 0 else 1)
                for group, (before, after) in enumerate(pairwise(widths))
                for k in range(DEPTH)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, D]."""
        return self.blocks(F.relu(self.bn1(self.conv1(x[:, : self.channels])))).mean((2, 3))


class PaddedBlock(nn.Module):
    """Two 3x3 convolutions with biases and a shortcut that leaves out pixels and pads channels with zeros where the
    shape changes."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = _conv3x3(before, width, stride, bias=True)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, bias=True)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        left = self.added // 2
        return F.relu(out + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, left, self.added - left)))


def _conv3x3(before: int, width: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, stride, padding=1, bias=bias)


def last_side(side: int, depth: int) -> int:
    """Of the map after `depth` of OML's convolutions of images of this side; below 1 where they do not fit."""
    for stride in STRIDES[:depth]:
        side = (side - 3) // stride + 1
    return side


def kaiming(network: nn.Module) -> None:
    """Draws the weights of linear layers and convolutions Kaiming normal and sets biases to zero, as OML does."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def with_slots(x: Tensor, slots: Tensor, count: int) -> Tensor:
    """Numbers [N, F] whose first `count` entries say a slot [N]: one there, zero elsewhere."""
    return torch.cat([F.one_hot(slots, count).to(x.dtype), x[:, count:]], dim=1)


def is_small(name: str) -> bool:
    """Whether a name is meant for one of these networks, right or wrong."""
    return SMALL_NETWORKS.match(name) is not None


def check(name: str, shape: Shape | None) -> None:
    """Raises UsageError for a name that is no network, or a network that takes no sample of this shape, or that has
    more weights than the memory holds. Builds nothing."""
    kind, widths, _ = _parsed(name)
    if shape is None:
        raise UsageError(f"--backbone {name}: has no input size of its own, the shape of the samples must be given")
    if kind != "mlp" and len(shape) != 3:
        raise UsageError(f"--backbone {name}: takes images, not {shape[0]} numbers, which mlp-128-128-128 takes")
    if kind == "conv" and last_side(shape[-1], widths[0]) < 1:
        least = next(side for side in itertools.count(1) if last_side(side, widths[0]) >= 1)
        raise UsageError(f"--backbone {name}: takes images of {least} px or more, these have {shape[-1]} px")
    if kind == "mlp":
        count = _count_mlp(shape, widths)
    elif kind == "conv":
        count = _count_conv(shape[0], *widths)
    else:
        count = (_count_resnet18 if kind == "resnet18" else _count_resnet32)(shape[0], widths[0])
    if count * BYTES > (free := free_memory()):
        raise UsageError(
            f"--backbone {name}: its {count:,} weights need {count * BYTES / 2**30:,.1f} GiB, and "
            f"{free / 2**30:,.1f} GiB of memory are free"
        )


def build(name: str, shape: Shape) -> nn.Module:
    """The network of a name that `check` lets pass, untrained."""
    kind, widths, pool = _parsed(name)
    if kind == "mlp":
        return Mlp(shape, widths)
    if kind == "conv":
        return Conv(shape, *widths)
    return ResNet18(shape[0], widths[0], pool) if kind == "resnet18" else ResNet32(shape[0], widths[0])


def _parsed(name: str) -> tuple[str, list[int], bool]:
    """What a name says: the kind, its numbers (widths; of convolutions their count and width), and whether it pools."""
    if re.fullmatch(f"mlp(-{WIDTH})+", name):
        return "mlp", [int(width) for width in name.split("-")[1:]], False
    if found := re.fullmatch(f"conv([1-{len(STRIDES)}])-({WIDTH})", name):
        return "conv", [int(found[1]), int(found[2])], False
    if found := re.fullmatch(f"resnet18-({WIDTH})(-pool)?", name):
        return "resnet18", [int(found[1])], found[2] is not None
    if found := re.fullmatch(f"resnet32-({WIDTH})", name):
        return "resnet32", [int(found[1])], False
    if name.startswith("mlp"):
        meant = "an MLP is named by the widths of its hidden layers, as mlp-128-128-128"
    elif name.startswith("conv"):
        meant = f"1 to {len(STRIDES)} convolutions are named by their number and width, as conv4-64"
    elif name.startswith("resnet32"):
        meant = "a ResNet-32 is named by its base width, as resnet32-16"
    else:
        meant = "a ResNet-18 is named by its base width, as resnet18-20, or resnet18-20-pool with a max pool"
    raise UsageError(f"--backbone {name}: no such network; {meant}; widths are numbers from 1 to 999999999")


def _count_mlp(shape: Shape, widths: list[int]) -> int:
    return sum((before + 1) * after for before, after in pairwise([math.prod(shape), *widths]))


def _count_conv(channels: int, depth: int, width: int) -> int:
    return sum((9 * before + 1) * width for before in [channels] + [width] * (depth - 1))


def _count_resnet18(channels: int, width: int) -> int:
    count = 9 * channels * width + 2 * width  # stem; every batch norm has two weights per channel
    before = width
    for after in (width, 2 * width, 4 * width, 8 * width):
        count += 9 * before * after + 27 * after * after + 8 * after
        count += before * after + 2 * after if before != after else 0  # shortcut
        before = after
    return count


def _count_resnet32(channels: int, width: int) -> int:
    count = 9 * channels * width + 3 * width  # stem; a convolution and its batch norm have three weights per channel
    for before, after in ((width, width), (width, 2 * width), (2 * width, 4 * width)):
        count += 9 * before * after + 9 * (2 * DEPTH - 1) * after * after + 3 * 2 * DEPTH * after
    return count
