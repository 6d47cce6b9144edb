"""What prompt methods share: the pool of prompts chosen by key (L2P, arXiv:2112.08654), and tables cut up by block."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.vit import Prefix, Prompt, Prompts


def uniform(*shape: int) -> nn.Parameter:
    """A parameter uniform in [-1, 1], the initialisation of keys and prompts in the released code."""
    return nn.Parameter(torch.empty(*shape).uniform_(-1, 1))


class PromptPool(nn.Module):
    """M prompts of L tokens with one key each. key: [M, D]. prompts: [M, L, D].

    counter [M] counts how often each prompt was chosen, in training and in evaluation alike, as the release does.
    frequency [M] is what `update` makes of it; it starts at one.

    diversity: in training, keys that were used often are avoided (section 4.2 of the paper). batchwise: all images of a
    batch take the prompts that most of them chose.
    """

    def __init__(self, size: int, length: int, width: int, diversity: bool = False, batchwise: bool = False):
        super().__init__()
        self.diversity, self.batchwise = diversity, batchwise
        self.key = uniform(size, width)
        self.prompts = uniform(size, length, width)
        self.register_buffer("counter", torch.zeros(size))
        self.register_buffer("frequency", torch.ones(size))

    def select(self, query: Tensor, count: int = 1, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """The `count` keys nearest to each query [B, D] among keys start ... stop - 1, nearest first.

        Gives their distances 1 - cos(query, key) [B, count] and their rows in the pool [B, count]. The gradient of the
        distance reaches the keys only, since a query carries none.
        """
        # Element by element and in float32: autocast would round a matrix product to bf16 and choose other keys.
        distance = 1 - F.cosine_similarity(query.float()[:, None], self.key[start:stop], dim=-1)
        score = distance.detach()
        if self.training and self.diversity:
            score = score * F.normalize(self.frequency[start:stop], p=1, dim=0)
        position = score.topk(count, dim=1, largest=False).indices
        if self.batchwise:
            votes = _histogram(position, score.shape[1])
            position = votes.argsort(descending=True, stable=True)[:count].expand(len(query), -1)
        return distance.gather(1, position), position + start

    def count(self, index: Tensor) -> None:
        """Adds the chosen rows [B, ...] of a batch to the counter."""
        self.counter += _histogram(index, len(self.counter))

    def update(self) -> Tensor:
        """Moves the counter into the frequency, in training; gives what was counted so far [M], and counts anew."""
        if self.training:
            self.frequency += self.counter
        counted = self.frequency - 1 if self.training else self.counter.clone()
        self.counter.zero_()
        return counted


def _histogram(index: Tensor, size: int) -> Tensor:
    """How often each of 0 ... size - 1 occurs in index, [size]. Neither atomic additions nor a wait for the device."""
    return (index.reshape(-1, 1) == torch.arange(size, device=index.device)).sum(dim=0)


def by_block(
    kinds: Iterable[tuple[tuple[int, ...], int, Tensor, Tensor | None]], prefix: bool, position: Tensor | float = 0.0
) -> Prompts:
    """The prompts of every block, from tables in which an entry holds the tokens of all blocks of its kind.

    kinds: (blocks, tokens per block L, table [M, len(blocks) * L, D] or twice as many tokens for prefixes, rows of the
    table used by each image [B] or None for row 0). Tokens lie block by block; a prefix has its keys before its values.
    position: what is added to every token of a prompt, not of a prefix.
    """
    inserted: dict[int, list[Prompt | Prefix]] = {}
    for blocks, length, table, rows in kinds:
        pieces = table.split(length, dim=1)
        for place, block in enumerate(blocks):
            if prefix:
                prompt = Prefix(pieces[2 * place], pieces[2 * place + 1], rows)
            else:
                prompt = Prompt(pieces[place] + position, rows)
            inserted.setdefault(block, []).append(prompt)
    return inserted
