"""Networks whose weights another network makes: the main network as a function of flat weights, and the hypernetwork.

Source: Henning, Cervera et al., Posterior Meta-Replay, NeurIPS 2021, arXiv:2103.01133, section 3 (task-conditioned
hypernetworks), and the release (chrhenning/posterior_replay_cl e60ed78); chunks: von Oswald et al., ICLR 2020. The
initialisation `gauss_init` is its `gauss_hyperfan_init` with Xavier fan-in.

Shapes: P weights of the main network, S sets of them, B samples, K outputs, E and C widths of the embeddings of tasks
and chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from utils.device import full_precision
from utils.errors import UsageError

ACTIVATIONS = {"relu": F.relu, "sigmoid": torch.sigmoid}
MEAN_VARIANCE, RHO_VARIANCE = 0.003, 0.083  # of outputs under `gauss_init`
CHUNK_VARIANCE = 1e-5  # least one of a chunk embedding there
HEAD = ("head.weight", "head.bias")
MOST_WEIGHTS = 10**8  # between two layers of a hypernetwork, 400 MB


@dataclass(frozen=True)
class Part:
    """A tensor of the main network. kind: what it is to its layer; scale and shift are those of a batch norm."""

    name: str
    shape: torch.Size
    kind: str  # weight, bias, scale, shift


class MainNetwork:
    """A small network and a linear head on it as a function f(x, w). It takes the weights out of the network, which
    then has none of its own; running statistics of batch norm stay in it.

    parts: the tensors in their order in w: layer by layer, weight before bias, the head last. size: P.
    """

    def __init__(self, network: nn.Module, num_outputs: int):
        self.network, self.num_outputs = network, num_outputs
        self.parts: list[Part] = []
        for prefix, module in network.named_modules():
            is_norm = isinstance(module, nn.BatchNorm2d)
            for name, weight in module.named_parameters(recurse=False):
                kind = {"weight": "scale", "bias": "shift"}[name] if is_norm else name
                self.parts.append(Part(f"{prefix}.{name}", weight.shape, kind))
                module.register_parameter(name, None)
        head = torch.Size((num_outputs, network.num_features)), torch.Size((num_outputs,))
        self.parts += [Part(name, shape, name.split(".")[1]) for name, shape in zip(HEAD, head)]
        self.sizes = [part.shape.numel() for part in self.parts]
        self.size = sum(self.sizes)
        self.has_state = any(True for _ in network.buffers())

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """Weights [..., P] as tensors [..., *shape] by name."""
        pieces = flat.split(self.sizes, dim=-1)
        return {part.name: piece.unflatten(-1, part.shape) for part, piece in zip(self.parts, pieces)}

    def __call__(self, flat: Tensor, x: Tensor, buffers: Mapping[str, Tensor] | None = None) -> Tensor:
        """Outputs [S, B, K] of samples [B, ...] under weights [S, P]. buffers: instead of the network's own.

        A network with running statistics meets the S sets one after the other, any other all at once.
        """

        def outputs(weights: dict[str, Tensor]) -> Tensor:
            *own, weight, bias = weights.items()
            return F.linear(functional_call(self.network, dict(own) | dict(buffers or {}), (x,)), weight[1], bias[1])

        if self.has_state:
            return torch.stack([outputs(self.tensors(single)) for single in flat])
        return vmap(outputs)(self.tensors(flat))

    def first_input(self, x: Tensor) -> Tensor:
        """What the first layer of an MLP takes of samples [B, ...]: [B, N]."""
        return self.network.flat(x)

    def owned(self, rows: range, device: torch.device | None = None) -> Tensor:
        """Which weights a model with these rows of the head uses, bool [P]: all but the other rows."""
        row = torch.zeros(self.num_outputs, dtype=torch.bool, device=device)
        row[rows.start : rows.stop] = True
        body = torch.ones(self.size - sum(self.sizes[-2:]), dtype=torch.bool, device=device)
        return torch.cat((body, row[:, None].expand(self.parts[-2].shape).flatten(), row))

    def initial(self) -> Tensor:
        """Weights [P] of an own network: Xavier uniform, biases 0, batch norms the identity."""
        pieces = [torch.zeros(part.shape) for part in self.parts]
        for part, piece in zip(self.parts, pieces):
            if part.kind == "weight":
                nn.init.xavier_uniform_(piece)
            elif part.kind == "scale":
                piece.fill_(1)
        return torch.cat([piece.flatten() for piece in pieces])


@dataclass(frozen=True)
class Chunks:
    """size: outputs per chunk. emb_size: C. per_task: each task has chunk embeddings of its own. std: of these."""

    size: int
    emb_size: int
    per_task: bool = False
    std: float = 1.0


class Hypernetwork(nn.Module):
    """Task t to n numbers: an MLP with a linear output layer on the embedding e_t [E].

    With chunks the MLP has `chunks.size` outputs and runs once per chunk k on [c_k ; e_t]; what the last chunk has over
    is dropped. Layers are Xavier uniform with zero biases, embeddings normal.
    """

    def __init__(
        self,
        num_outputs: int,
        num_tasks: int,
        widths: list[int],
        emb_size: int,
        activation: str = "relu",
        chunks: Chunks | None = None,
        std: float = 1.0,
    ):
        super().__init__()
        self.num_outputs, self.chunks, self.activation = num_outputs, chunks, ACTIVATIONS[activation]
        self.embeddings = nn.ParameterList(std * torch.randn(emb_size) for _ in range(num_tasks))
        self.chunk_embeddings = nn.ParameterList()
        first, last = emb_size, num_outputs
        if chunks is not None:
            first, last = chunks.emb_size + emb_size, chunks.size
            count = math.ceil(num_outputs / chunks.size)
            for _ in range(num_tasks if chunks.per_task else 1):
                self.chunk_embeddings.append(chunks.std * torch.randn(count, chunks.emb_size))
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise([first, *widths, last]))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, task: int) -> Tensor:
        """[n], in float32 also under autocast, so that targets of the same weights are the same."""
        embedding = self.embeddings[task]
        with full_precision(embedding):
            x = embedding[None]
            if self.chunks is not None:
                chunk = self.chunk_embeddings[task if self.chunks.per_task else 0]
                x = torch.cat((chunk, x.expand(len(chunk), -1)), dim=1)
            for layer in self.layers[:-1]:
                x = self.activation(layer(x))
            return self.layers[-1](x).flatten()[: self.num_outputs]

    @torch.no_grad()
    def begin_as(self, task: int, earlier: int) -> None:
        """The embeddings of a task take the values of another one's."""
        self.embeddings[task].copy_(self.embeddings[earlier])
        if self.chunks is not None and self.chunks.per_task:
            self.chunk_embeddings[task].copy_(self.chunk_embeddings[earlier])


@torch.no_grad()
def gauss_init(hyper: Hypernetwork, main: MainNetwork, emb_variance: float, keep_means: bool) -> None:
    """Sets the layers so that of the outputs [2 P], means before rhos, the means begin with variance 0.003 and the rhos
    with 0.083, as those of a Gaussian network that owns its parameters.

    emb_variance: of the task embeddings. keep_means: the means begin as the weights of a plain network do (hyperfan
    in); not with chunks, where the variance of the embedding of each chunk makes that of its outputs.
    """
    layers, output = list(hyper.layers), hyper.layers[-1]
    for layer in layers:
        uniform(layer.weight, 1 / layer.in_features)
        nn.init.zeros_(layer.bias)
    if hyper.chunks is not None:
        wanted = torch.full((len(hyper.chunk_embeddings[0]) * hyper.chunks.size,), RHO_VARIANCE, device="cpu")
        wanted[: main.size] = MEAN_VARIANCE
        width, size = hyper.chunks.emb_size, len(hyper.embeddings[0])
        variance = ((size + width) * wanted.view(-1, hyper.chunks.size).mean(1) - size * emb_variance) / width
        for chunk in hyper.chunk_embeddings:
            for row, own in zip(chunk, variance.tolist()):
                uniform(row, max(CHUNK_VARIANCE, own))
        return
    nn.init.zeros_(output.weight)
    uniform(output.bias[: main.size], MEAN_VARIANCE)
    uniform(output.bias[main.size :], RHO_VARIANCE)
    if keep_means:
        spread = output.in_features * emb_variance
        nn.init.zeros_(output.bias[: main.size])
        weights, biases = (part[: main.size].split(main.sizes) for part in (output.weight, output.bias))
        # A layer's bias follows its weight.
        for part, after, weight, bias in zip(main.parts, [*main.parts[1:], main.parts[-1]], weights, biases):
            if part.kind == "weight":
                layers_share = 2 if after.kind == "bias" else 1
                uniform(weight, 1 / (layers_share * part.shape[1:].numel() * spread))
            elif part.kind == "bias":
                uniform(weight, 1 / (2 * spread))
            elif part.kind == "scale":
                nn.init.ones_(bias)


def uniform(tensor: Tensor, variance: float) -> None:
    """Draws a tensor from the uniform distribution with mean 0 and this variance, in place."""
    bound = math.sqrt(3 * variance)
    tensor.uniform_(-bound, bound)


class OwnWeights(nn.Module):
    """In the place of a hypernetwork: n numbers for each task, or the same for all, that nobody makes.

    initial: of each task, or of all [n].
    """

    def __init__(self, initial: list[Tensor]):
        super().__init__()
        self.flat = nn.ParameterList(initial)

    def forward(self, task: int) -> Tensor:
        """[n]."""
        return self.flat[task if len(self.flat) > 1 else 0]


def parse_widths(option: str, text: str) -> list[int]:
    """The widths of hidden layers in a value as "10,10"; none in an empty one. Raises UsageError."""
    widths = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) <= 10**6 for part in widths):
        raise UsageError(
            f"--{option} {text}: widths of hidden layers are numbers from 1 to 1000000 with commas between, as 10,10; "
            "an empty value stands for no hidden layer"
        )
    numbers = [int(part) for part in widths]
    if (most := max((a * b for a, b in pairwise(numbers)), default=0)) > MOST_WEIGHTS:
        raise UsageError(
            f"--{option} {text}: two layers have {most:,} weights between them, more than {MOST_WEIGHTS:,}"
        )
    return numbers
