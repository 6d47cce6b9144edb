"""CODA-Prompt: prompts composed of components, weighted by how an attended query matches their keys (online form).

Source: Smith et al., CVPR 2023, arXiv:2211.13218; the online form of FlyGCL (AnAppleCore/FlyGCL, 79a6b51).
Departures from the paper, as in the released online code:
1. Prompt tuning (tokens appended at a block, with the class token's position), not prefix tuning.
2. No orthogonality loss (`ortho_mu 0`); new components are orthogonalised by Gram-Schmidt when their task begins.
3. Gram-Schmidt makes new parameters that the optimiser does not know: components, keys and attention vectors learn in
   the first task only, and afterwards the head alone. `rebuild_optimiser` gives every task a new Adam over everything.
4. Training masks the logits of classes absent from the batch (`train_mask batch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone.vit import Prompt, class_position, embed, encode
from models.base import ModelArgs, PromptMethod, check_blocks
from utils.args import option
from utils.contracts import Batch, Session, StreamInfo
from utils.errors import UsageError

FLYGCL = "FlyGCL and MePo, all datasets"


@dataclass(kw_only=True)
class CodaArgs(ModelArgs):
    lr: float = option(0.005, "learning rate of Adam, constant", FLYGCL, low=0, high=100)
    e_pool: int = option(10, "components (M), shared out equally among the tasks", FLYGCL, low=1, high=1000)
    len_e_prompt: int = option(20, "tokens of a component (L_p)", FLYGCL, low=1)
    pos_e_prompt: tuple[int, ...] = option((0, 1, 2, 3, 4), "blocks that take a prompt", FLYGCL, low=0)
    ortho_mu: float = option(0.0, "weight of the orthogonality loss (lambda)", "FlyGCL and MePo; paper: 0.1", low=0)
    rebuild_optimiser: bool = option(False, "new Adam at every task, so that prompts go on learning", "released: off")
    train_mask: Literal["batch", "seen"] = option("batch", "classes that compete in the training loss", FLYGCL)


class Coda(PromptMethod):
    Args = CodaArgs
    published = {
        "backbone vit_tiny_icons": {"len_e_prompt": 4},  # command/choose_icons.sh
        "seq-glyphs": {"lr": 0.001, "len_e_prompt": 4},  # command/choose_glyphs.sh
        "perm-mnist": {"e_pool": 20},  # one for each of the 20 tasks, as for the next
        "rot-mnist": {"e_pool": 20},
    }
    needs_task_boundaries = True
    predicts_from_state = True  # how many components there are

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: CodaArgs):
        super().__init__(backbone, info, args)
        check_blocks(backbone, pos_e_prompt=args.pos_e_prompt)
        self.per_task = args.e_pool // info.num_tasks
        if self.per_task == 0:
            raise UsageError(f"--e_pool {args.e_pool}: a stream of {info.num_tasks} tasks needs one component per task")
        self.task = 0  # t, ended tasks
        shapes = {"p": (args.e_pool, args.len_e_prompt, backbone.num_features)}
        shapes["k"] = shapes["a"] = (args.e_pool, backbone.num_features)
        for block in args.pos_e_prompt:  # components P, keys K, attention vectors A of each block
            for part, shape in shapes.items():
                self.register_parameter(f"e_{part}_{block}", nn.Parameter(torch.zeros(shape)))
        self.orthogonalise("pka")

    def components(self, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """P [f, L, D], K [f, D], A [f, D] of a block: those of ended tasks, detached, and of the current one."""
        start, stop = self._rows()
        tensors = (getattr(self, f"e_{part}_{block}") for part in "pka")
        return tuple(torch.cat((tensor[:start].detach(), tensor[start:stop])) for tensor in tensors)

    def forward(self, x: Tensor, fixed: Tensor | None = None) -> Tensor:
        return self.head(self.features(x, fixed))

    def loss(self, batch: Batch) -> Tensor:
        logits = self.masked(self.head(self.features(batch.x)), batch)
        loss = F.cross_entropy(logits, batch.y)
        return loss + self.orthogonality() if self.args.ortho_mu > 0 else loss

    def features(self, x: Tensor, query: Tensor | None = None) -> Tensor:
        """Class token under the composed prompts [B, D]."""
        with torch.no_grad():
            tokens = embed(self.backbone, x)
            if query is None:
                query = encode(self.backbone, tokens)
        prompts = {block: [Prompt(self.compose(query, block))] for block in self.args.pos_e_prompt}
        return self.fc_norm(encode(self.backbone, tokens, prompts))

    def compose(self, query: Tensor, block: int) -> Tensor:
        """Prompt of each query [B, D] in a block, [B, L, D], positions added."""
        P, K, A = self.components(block)
        attended = query.float()[:, None] * A  # q(x) * A_m, [B, f, D]
        weight = (F.normalize(attended, dim=2) * F.normalize(K, dim=1)).sum(dim=2)  # alpha, Eq. 5
        return torch.einsum("bk,kld->bld", weight, P) + class_position(self.backbone)  # Eq. 3

    def orthogonality(self) -> Tensor:
        """mu * sum over blocks of ||T T^t - I||^2 per entry, for K, A and P (Eq. 7)."""
        total = torch.zeros((), device=self.head.weight.device)
        for block in self.args.pos_e_prompt:
            for tensor in self.components(block):
                rows = tensor.flatten(1)
                total = total + (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean()
        return self.args.ortho_mu * total

    def end_task(self, session: Session) -> None:
        """Opens the components of the next task."""
        self.task += 1
        if self.task == self.info.num_tasks:
            return
        self.orthogonalise("kap")
        if self.args.rebuild_optimiser:
            self.optimizer.state.clear()
        else:
            self._freeze()

    @torch.no_grad()
    def orthogonalise(self, order: str) -> None:
        """Gram-Schmidt for the current task's rows of all tensors, block by block in the given order of parts."""
        start, stop = self._rows()
        for block in self.args.pos_e_prompt:
            for part in order:
                tensor = getattr(self, f"e_{part}_{block}")
                gram_schmidt(tensor.view(len(tensor), -1), start, stop)

    def _rows(self) -> tuple[int, int]:
        """First row of the current task's components and the row after its last; after the last task they stay."""
        task = min(self.task, self.info.num_tasks - 1)
        return task * self.per_task, (task + 1) * self.per_task

    def _freeze(self) -> None:
        """The optimiser passes over tensors without a gradient, as it does over the release's replaced ones."""
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.grad = None

    def extra_state(self) -> dict[str, Any]:
        return {"task": self.task}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        if self.task > 0 and not self.args.rebuild_optimiser and self.info.num_tasks > 1:
            self._freeze()


def gram_schmidt(rows: Tensor, start: int, stop: int) -> None:
    """Fills rows start ... stop - 1 of [M, n] with random unit vectors orthogonal to all rows before; later rows are 0.

    Classical Gram-Schmidt: every coefficient is that of the drawn vector. Earlier rows stay as they are, trained,
    neither unit nor orthogonal; a vanishing one has no direction and is passed over (the release would not return).
    """
    rows[start:] = 0
    for row in range(start, stop):
        drawn = torch.randn(rows.shape[1]).to(rows)  # on the CPU, so that every device sees the same draws
        earlier = rows[:row]
        squared = earlier.square().sum(dim=1)
        coefficient = torch.where(squared < 1e-8, 0, earlier @ drawn / squared)
        rows[row] = drawn - coefficient @ earlier
    rows[start:stop] = F.normalize(rows[start:stop], dim=1)
