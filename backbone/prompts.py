"""What prompt methods share: the pool of prompts chosen by key (L2P, arXiv:2112.08654, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniform(*shape: int) -> nn.Parameter:
    """A parameter uniform in [-1, 1], the initialisation of keys and prompts in the released code."""
    return nn.Parameter(torch.empty(*shape).uniform_(-1, 1))


class PromptPool(nn.Module):
    """M prompts of L tokens with one key each. key: [M, D]. prompts: [M, L, D].

    counter [M] counts how often each prompt was chosen, in training and in evaluation alike, as the release does.
    """

    def __init__(self, size: int, length: int, width: int):
        super().__init__()
        self.key = uniform(size, width)
        self.prompts = uniform(size, length, width)
        self.register_buffer("counter", torch.zeros(size))

    def nearest(self, query: Tensor, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """The key nearest to each query [B, D] among keys start ... stop - 1.

        Gives its distance 1 - cos(query, key) [B] and its position inside that slice [B]. The gradient of the distance
        reaches the keys only, since a query carries none.
        """
        # Element by element and in float32: autocast would round a matrix product to bf16 and choose other keys.
        distance = 1 - F.cosine_similarity(query.float()[:, None], self.key[start:stop], dim=-1)
        shortest, position = distance.min(dim=1)
        return shortest, position

    def count(self, index: Tensor) -> None:
        """Adds a batch of chosen rows [B] to the counter."""
        self.counter += (index[:, None] == torch.arange(len(self.counter), device=index.device)).sum(dim=0)
