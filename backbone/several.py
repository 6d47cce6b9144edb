"""Several pretrained ViTs side by side, as one network whose feature is all of theirs: `--backbone a+b`."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbone.vit import embed, encode


class Several(nn.Module):
    """networks: those of the name, in its order. num_features: the sum of their widths."""

    def __init__(self, networks: list[VisionTransformer]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.num_features = sum(vit.num_features for vit in networks)

    def each(self, x: Tensor) -> list[Tensor]:
        """Class tokens of images [B, 3, H, W] after the last norm of each network, [B, D] each."""
        return [encode(vit, embed(vit, x)) for vit in self.networks]

    def forward(self, x: Tensor) -> Tensor:
        """[B, num_features]."""
        return torch.cat(self.each(x), dim=1)
