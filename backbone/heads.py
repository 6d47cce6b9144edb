"""Classifiers on features: the linear layer of the prompt methods, the prediction network of OML, sums per class, ridge
regression in closed form.

Source of the last: McDonnell et al., RanPAC, NeurIPS 2023, arXiv:2307.02251; as in FlyGCL (AnAppleCore/FlyGCL,
79a6b51). It learns from sums over rows, so that their order and batches do not matter and nothing is forgotten.
Departures:
1. FlyGCL keeps the rows and folds them into the sums at times; here each batch is folded in as it comes, and R follows
   from the sums when it is asked for. The same up to rounding, and looking never changes anything.
2. In FlyGCL a single row is not folded in; here it counts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.small import BYTES, kaiming
from utils.device import free_memory, full_precision
from utils.errors import UsageError
from utils.finite import FiniteRows

RIDGES = tuple(10.0**k for k in range(-8, 9))  # candidates of the search, in order


def linear_head(in_features: int, num_classes: int) -> nn.Linear:
    """The prompt methods' classifier: truncated normal weights (std 0.02), zero bias, all C rows from the start."""
    head = nn.Linear(in_features, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def prediction_network(width: int, num_outputs: int, layers: int = 1, hidden: int = 0) -> nn.Sequential:
    """OML's prediction network: one linear layer, or two with ReLU between and `hidden` units; Kaiming normal weights,
    zero biases."""
    if layers == 1:
        network = nn.Sequential(nn.Linear(width, num_outputs))
    else:
        network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_outputs))
    kaiming(network)
    return network


def check_size(width: int, num_outputs: int, layers: int, hidden: int, moments: int) -> None:
    """Raises UsageError if the memory does not hold what training makes of such a prediction network: weights,
    gradients, moments of the optimizer, and a copy for a checkpoint, but of gradients."""
    count = (width + 1) * num_outputs if layers == 1 else (width + 1) * hidden + (hidden + 1) * num_outputs
    needed, free = count * BYTES * (1 + 2 * (1 + moments)), free_memory()
    if needed > free:
        sizes = f"{num_outputs:,} outputs" + (f" and {hidden:,} units (--pln_width)" if layers > 1 else "")
        raise UsageError(
            f"a head of {sizes} on {width:,} features has {count:,} weights, for which training takes "
            f"{needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free; make it smaller"
        )


class ClassSums(nn.Module):
    """Sums of features [D] per class, float64: `total` [C, D], `squares` [C] of their squared lengths, `count` [C]."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.register_buffer("total", torch.zeros(num_classes, width, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.float64))
        self.finite = FiniteRows()

    @torch.no_grad()
    def add(self, features: Tensor, columns: Tensor) -> None:
        """Counts features [B, D] of the classes `columns` [B]."""
        kept = self.finite(features)
        features, columns = features[kept].double(), columns[kept]
        self.total.index_add_(0, columns, features)
        self.squares.index_add_(0, columns, features.square().sum(dim=1))
        self.count.index_add_(0, columns, torch.ones_like(columns, dtype=torch.float64))

    def means(self) -> Tensor:
        """Mean feature of every class that occurred, [K, D] float64, by column."""
        met = self.count > 0
        return self.total[met] / self.count[met, None]


class RandomRidge(nn.Module):
    """Features z [B, D] to scores h(z) R [B, C], with R = (G + lambda I)^-1 Q and h(z) = relu(z W_rand) [B, M].

    G = sum of h h^T [M, M] and Q = sum of h y^T [M, C] over all rows so far, y one-hot; float32, also under autocast.
    size: M; 0: h(z) = z. ridge: lambda. search: each task chooses lambda by its own rows (`search_errors`), which are
    kept until `end_task`; before its second row the last one holds, at first `ridge`.
    `state_dict` holds W_rand and R as last solved; Q and G, which is large, are in `statistics`.
    """

    def __init__(self, width: int, size: int, num_classes: int, ridge: float, search: bool = False):
        super().__init__()
        self.num_classes, self.ridge, self.search = num_classes, ridge, search
        self.register_buffer("W_rand", torch.randn(width, size) if size else None)
        size = size or width
        self.register_buffer("R", torch.zeros(size, num_classes))
        self.register_buffer("Q", torch.zeros(size, num_classes), persistent=False)
        self.register_buffer("G", torch.zeros(size, size), persistent=False)
        self.finite = FiniteRows()
        self.rows: list[tuple[Tensor, Tensor]] = []  # features [B, D] and columns [B] of the running task
        self._solved = True  # whether R belongs to G and Q

    def expand(self, z: Tensor) -> Tensor:
        """h(z), [B, M]."""
        return z.float() if self.W_rand is None else F.relu(z.float() @ self.W_rand)

    @torch.no_grad()
    def add(self, z: Tensor, columns: Tensor) -> None:
        """Learns features [B, D] whose targets are `columns` [B]."""
        with self._full_precision():
            h = self.expand(z)
            kept = self.finite(h)
            h, z, columns = h[kept], z[kept], columns[kept]
            self.Q += h.T @ self._one_hot(columns)
            self.G += h.T @ h
        if self.search:
            self.rows.append((z.float(), columns))
        self._solved = False

    @torch.no_grad()
    def solve(self) -> Tensor:
        """R [M, C] for everything learnt so far. Raises FloatingPointError if it is not finite."""
        if not self._solved:
            with self._full_precision():
                if sum(len(z) for z, _ in self.rows) > 1:
                    self.ridge = RIDGES[int(self.search_errors().argmin())]  # the first, where several are least
                self.R.copy_(ridge_solution(self.G, self.Q, self.ridge))
            if not self.R.isfinite().all():
                raise FloatingPointError("the ridge regression has no finite solution; try a larger --rp_ridge")
            self._solved = True
        return self.R

    def search_errors(self) -> Tensor:
        """Mean squared error of each of RIDGES [17] on the last 20 % of the task's rows, fitted on the first 80 %."""
        z, columns = (torch.cat(parts) for parts in zip(*self.rows, strict=True))
        h, targets = self.expand(z).double(), self._one_hot(columns).double()
        fit = 4 * len(h) // 5
        return ridge_errors(h[:fit], targets[:fit], h[fit:], targets[fit:])

    def forward(self, z: Tensor) -> Tensor:
        with self._full_precision():
            return self.expand(z) @ self.solve()

    def end_task(self) -> None:
        """The rows to come belong to another task."""
        self.solve()
        self.rows = []

    def statistics(self) -> dict[str, Any]:
        """What a resumed run needs beyond `state_dict`."""
        return {"Q": self.Q, "G": self.G, "ridge": self.ridge, "rows": list(self.rows)}

    def load_statistics(self, state: dict[str, Any]) -> None:
        self.Q.copy_(state["Q"])
        self.G.copy_(state["G"])
        self.ridge = state["ridge"]
        self.rows = [(z.to(self.Q.device), columns.to(self.Q.device)) for z, columns in state["rows"]]
        self._solved = False

    def _one_hot(self, columns: Tensor) -> Tensor:
        return F.one_hot(columns, self.num_classes).float()

    def _full_precision(self) -> torch.autocast:
        return full_precision(self.Q)


def ridge_solution(G: Tensor, Q: Tensor, ridge: float) -> Tensor:
    """(G + ridge I)^-1 Q; not finite where the sum is singular."""
    damped = G.clone()
    damped.diagonal().add_(ridge)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed:  # rounding may cost the least eigenvalues their sign
        return torch.linalg.solve_ex(damped, Q).result
    return torch.cholesky_solve(Q, lower)


def ridge_errors(h: Tensor, targets: Tensor, other: Tensor, expected: Tensor) -> Tensor:
    """Mean squared error of each of RIDGES [17], fitted on h [N, M] with targets [N, C], on other [K, M] with expected
    [K, C]; infinite for one that is lost in the rounding of h^T h in float32. All of them in double precision.

    One eigendecomposition serves all: that of h^T h, or of h h^T where there are fewer rows than columns.
    """
    if len(h) < h.shape[1]:
        values, vectors = torch.linalg.eigh(h @ h.T)
        left, right = other @ h.T @ vectors, vectors.T @ targets
    else:
        values, vectors = torch.linalg.eigh(h.T @ h)
        left, right = other @ vectors, vectors.T @ (h.T @ targets)
    values, ridges = values.clamp(min=0), torch.tensor(RIDGES, dtype=values.dtype, device=values.device)
    errors = torch.stack([F.mse_loss(left @ (right / (values + r)[:, None]), expected) for r in ridges])
    lost = ridges < torch.finfo(torch.float32).eps * values[-1]
    return errors.masked_fill(lost, torch.inf)
