"""Rotated MNIST: in every domain all images are turned by another angle; 20 domains of MNIST.

GEM (Lopez-Paz and Ranzato, NeurIPS 2017) and DER (Buzzega et al., NeurIPS 2020): angles drawn from 0 ... 180 degrees,
nearest pixel, black fill. `--n_tasks` is the number of domains, `--domain_seed` draws their angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from datasets.base import PublicArgs
from datasets.perm_mnist import PermMnist
from utils.args import option
from utils.data.augment import affine_matrices


@dataclass(kw_only=True)
class RotMnistArgs(PublicArgs):
    domain_seed: int = option(0, "draws the angles of the domains", "GEM", low=0)


class RotMnist(PermMnist):
    Args = RotMnistArgs
    padding = 0

    @cached_property
    def angles(self) -> Tensor:
        """Degrees [D]."""
        return 180 * torch.rand(self.max_domains, generator=Generator().manual_seed(self.args.domain_seed))

    def shift(self, images: Tensor, domains: Tensor) -> Tensor:
        count = len(images)
        still, whole = torch.zeros(count), torch.ones(count, 2)
        matrices = affine_matrices(self.angles[domains], still, whole, torch.zeros(count, 2))
        matrices = matrices.to(images.device, non_blocking=True)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        turned = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return turned.to(torch.uint8)
