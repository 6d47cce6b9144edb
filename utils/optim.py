"""Optimisers that look ahead: a first step to perturbed weights, a second one from where the first began."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


class FAM:
    """Forgetting-aware minimisation: w <- base(w, g'), g' = grad L at w + rho * g / |g|, g = grad Lf at w.

    Lf is the loss on knowledge that should stay: the first step goes up on it, as if it had been forgotten. With Lf = L
    this is SAM. base: the optimiser of w; its state is all that outlives an update. adaptive: g is measured and applied
    relative to the size of each weight. Weights without a gradient take no part, not even in the norm.

    Source: Kang et al., arXiv:2503.00677, and `optim/fam.py` of kangzhiq/MISA (3308d67). Departure: every weight that
    was moved is put back, also one that has no gradient in the second pass.
    """

    def __init__(self, base: Optimizer, rho: float = 0.1, adaptive: bool = False):
        self.base, self.rho, self.adaptive = base, rho, adaptive
        self._kept: list[tuple[Tensor, Tensor]] = []  # moved weights, and what they were

    @torch.no_grad()
    def first_step(self) -> Tensor:
        """With the gradients of Lf: moves the weights and clears the gradients. Gives the norm |g|, a scalar."""
        moved = [w for group in self.base.param_groups for w in group["params"] if w.grad is not None]
        norm = torch.stack([(w.abs() * w.grad if self.adaptive else w.grad).norm() for w in moved]).norm()
        for w in moved:
            self._kept.append((w, w.clone()))
            step = w.grad * (self.rho / (norm + 1e-12))
            w.add_(w.square() * step if self.adaptive else step)
        self.base.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def second_step(self) -> None:
        """With the gradients of L at the moved weights: puts the weights back and makes one step of the base."""
        for w, before in self._kept:
            w.copy_(before)
        self._kept.clear()
        self.base.step()
