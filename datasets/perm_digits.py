"""Permuted digits: in every domain the pixels of all images change places in another way; no download.

The 1,797 handwritten digits of scikit-learn (see `seq-digits`) at their own 8x8 pixels, permuted as GEM permutes MNIST
(Lopez-Paz and Ranzato, NeurIPS 2017): one random permutation of the 64 pixels per domain, also for the first. Pixels
are network input in [0, 1], neither augmented nor normalised. `--n_tasks` is the number of domains, `--domain_seed`
draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Generator, Tensor

from datasets.base import DatasetArgs
from datasets.seq_digits import SeqDigits
from utils.args import option
from utils.data.augment import permute_pixels, pixel_orders


@dataclass(kw_only=True)
class PermDigitsArgs(DatasetArgs):
    domain_seed: int = option(0, "draws the permutations of the domains", "GEM", low=0)


class PermDigits(SeqDigits):
    Args = PermDigitsArgs
    image_size = None
    native_size = 8
    max_domains = 1000
    settings = {
        "backbone": "mlp-128-128-128",
        "scenario": "domain-il",
        "n_tasks": 10,
        "inputs": "plain",
        "eval_period": -1,
    }

    @cached_property
    def permutations(self) -> Tensor:
        """[D, 64]."""
        return pixel_orders(self.max_domains, self.native_size**2, self.args.domain_seed)

    def shown(self, images: np.ndarray) -> np.ndarray:
        """Pen counts 0 ... 16 [N, 8, 8] to grey levels uint8 [N, 3, 8, 8]."""
        return np.rint(images * (255 / 16)).astype(np.uint8)[:, None].repeat(3, axis=1)

    def shift(self, images: Tensor, domains: Tensor) -> Tensor:
        return permute_pixels(images, self.permutations[domains])

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """None: a neighbour of a permuted pixel has no meaning."""
        return images
