"""Permuted MNIST: in every domain the pixels of all images change places in another way; 20 domains of MNIST.

Goodfellow et al., arXiv:1312.6211; permutations as in GEM (Lopez-Paz and Ranzato, NeurIPS 2017): one random
permutation of the 784 pixels per domain, also for the first. `--n_tasks` is the number of domains, `--domain_seed`
draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Generator, Tensor

from datasets.base import PublicArgs
from datasets.seq_mnist import SeqMnist
from utils.args import option
from utils.data.augment import permute_pixels, pixel_orders


@dataclass(kw_only=True)
class DomainArgs(PublicArgs):
    domain_seed: int = option(0, "draws the transforms of the domains", "GEM", low=0)


class PermMnist(SeqMnist):
    Args = DomainArgs
    max_domains = 1000
    settings = {**SeqMnist.settings, "scenario": "domain-il", "n_tasks": 20}
    small_settings = {"inputs": "plain", "batch_size": 10, "online_iter": 1, "eval_period": -1}  # GEM, BCL

    @cached_property
    def permutations(self) -> Tensor:
        """[D, 784]."""
        return pixel_orders(self.max_domains, 784, self.args.domain_seed)

    def shift(self, images: Tensor, domains: Tensor) -> Tensor:
        return permute_pixels(images, self.permutations[domains])

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """None: a neighbour of a permuted pixel has no meaning."""
        return images
