"""Permuted MNIST: in every domain the pixels of all images change places in another way; 20 domains of MNIST.

Goodfellow et al., arXiv:1312.6211; permutations as in GEM (Lopez-Paz and Ranzato, NeurIPS 2017): one random
permutation of the 784 pixels per domain, also for the first. `--n_tasks` is the number of domains, `--domain_seed`
draws them. `--permutations henning`: as in posterior meta-replay (Henning, Cervera et al., NeurIPS 2021), where the
images have a black edge of two pixels and those of the first domain are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from datasets.base import PublicArgs
from datasets.seq_mnist import SeqMnist
from utils.args import option
from utils.data.augment import permute_pixels, pixel_orders

HENNING_SEED = 42


@dataclass(kw_only=True)
class DomainArgs(PublicArgs):
    domain_seed: int = option(0, "draws the transforms of the domains", "GEM", low=0)
    permutations: Literal["gem", "henning"] = option(
        "gem",
        "gem: torch's, of every domain; henning: numpy's RandomState(42 + domain_seed), of every domain but the first",
        "GEM; posterior meta-replay: henning",
        later=True,
    )
    padding: int | None = option(
        None,
        "pixels of the black edge that images get before they are permuted; default: 0, with henning 2",
        "GEM; posterior meta-replay: 2, for its MLP 100-100 0",
        low=0,
        high=100,
        later=True,
    )


class PermMnist(SeqMnist):
    Args = DomainArgs
    max_domains = 1000
    settings = {**SeqMnist.settings, "scenario": "domain-il", "n_tasks": 20}
    small_settings = {"inputs": "plain", "batch_size": 10, "online_iter": 1, "eval_period": -1}  # GEM, BCL

    def __init__(self, args: DomainArgs | None = None):
        super().__init__(args)
        self.native_size += 2 * self.padding

    @property
    def padding(self) -> int:
        if self.args.padding is None:
            return 2 if self.args.permutations == "henning" else 0
        return self.args.padding

    @cached_property
    def permutations(self) -> Tensor:
        """[D, P] of the P pixels with their edge."""
        pixels = self.native_size**2
        if self.args.permutations == "gem":
            return pixel_orders(self.max_domains, pixels, self.args.domain_seed)
        draw = np.random.RandomState(HENNING_SEED + self.args.domain_seed)
        orders = [np.arange(pixels), *(draw.permutation(pixels) for _ in range(self.max_domains - 1))]
        return torch.from_numpy(np.stack(orders))

    def shift(self, images: Tensor, domains: Tensor) -> Tensor:
        return permute_pixels(F.pad(images, (self.padding,) * 4), self.permutations[domains])

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """None: a neighbour of a permuted pixel has no meaning."""
        return images
