"""MISA stage one, initial session adaptation: warms up DualPrompt's prompts so that learning with them forgets little.

Source: Kang et al., ICLR 2025, arXiv:2503.00677, section on initial session adaptation; kangzhiq/MISA (3308d67). Trains
on pretraining classes in sessions; FAM makes every step at the weights where held-out classes would be forgotten.
Keys, head and projectors are thrown away, the prompts go to `g_prompt.pt` and `e_prompt.pt`. Departures from the
released code:
1. Forgetting classes are in no session and have labels of their own. The release reads the first images of the folder
   instead, whose classes are in the sessions too.
2. Forgetting batches pass the training transform once, as all images do; in the release, a stronger one.
3. `g_proj` is off, as in the released script. It gives the switch of the E-projector twice, so both may be meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.dualprompt import DualPrompt, DualPromptArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, StreamInfo
from utils.errors import UsageError
from utils.files.tensors import write_pth
from utils.optim import FAM

SCRIPT = "MISA script"


@dataclass(kw_only=True)
class MisaIsaArgs(DualPromptArgs):
    lr: float = option(1e-4, "learning rate of Adam, constant", SCRIPT, low=0, high=100)
    rho: float = option(0.1, "length of FAM's first step", SCRIPT, low=0)
    adaptive: bool = option(False, "FAM's first step is relative to the size of each weight", SCRIPT)
    updates: int = option(3, "updates per session batch, each with a new forgetting batch", SCRIPT, low=1, high=1000)
    samples: int | None = option(None, "images per class; default: all", SCRIPT, low=1)
    num_sessions: int = option(10, "sessions with classes of their own", SCRIPT, low=1)
    session_share: float = option(0.9, "share of the classes that sessions learn", "MISA, ImageNet-1K", low=0, high=1)
    forget_classes: int = option(10, "classes at a time that are not to be forgotten", SCRIPT, low=1)
    len_g_prompt: int = option(10, "tokens of the G-prompt per block", SCRIPT, low=1)
    g_proj: bool = option(False, "residual projector on the G-prompt", SCRIPT)
    e_proj: bool = option(True, "residual projector on the E-prompts", SCRIPT)
    projector_factor: int = option(8, "how much narrower a projector is than the prompts", SCRIPT, low=1)
    save_to: str | None = option(
        None, "folder for g_prompt.pt and e_prompt.pt; none: only the run folder", decides=False
    )
    # No options of this stage: queries are matched over the whole pool, and all classes met compete.
    step_num: int = 1
    step_schedule: str = "samples"
    prompt_index: str = "global"
    train_mask: str = "seen"


class MisaIsa(DualPrompt):
    Args = MisaIsaArgs
    one_per_task = ()  # one step, whatever --n_tasks says
    scenarios = ("adaptation",)
    evaluated = False
    published = {
        "*": {"batch_size": 65, "online_iter": 1, "eval_period": -1, "n_epochs": 3},
        # In proportion to the shipped network, 48,000 image passes; the rate by command/choose_stages_glyphs.sh.
        "glyphs": {"samples": 10, "n_epochs": 1, "lr": 0.001},
        "icons": {"samples": 10, "n_epochs": 1, "lr": 0.005},  # command/choose_icons.sh
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MisaIsaArgs):
        super().__init__(backbone, info, args)
        width = backbone.num_features
        if args.projector_factor > width:
            raise UsageError(f"--projector_factor {args.projector_factor}: prompts are only {width} wide")
        self.g_proj = Projector(width, args.projector_factor) if args.g_proj else nn.Identity()
        self.e_proj = Projector(width, args.projector_factor) if args.e_proj else nn.Identity()
        self.session_batch: Batch | None = None  # S, while its forgetting batch has not come yet

    @classmethod
    def prepare(cls, run: RunArgs, args: MisaIsaArgs) -> list:
        """No other stage. Raises UsageError if the loop would repeat batches, which come in pairs."""
        if run.online_iter != 1:
            raise UsageError(f"--online_iter {run.online_iter}: misa_isa repeats its updates by --updates")
        return []

    @classmethod
    def product(cls, args: MisaIsaArgs) -> str:
        return "e_prompt.pt"

    @classmethod
    def stream_options(cls, args: MisaIsaArgs) -> dict[str, Any]:
        names = ("updates", "num_sessions", "session_share", "forget_classes", "samples")
        return {name: getattr(args, name) for name in names}

    def tables(self) -> tuple[Tensor, Tensor]:
        """The prompts p' behind their projectors."""
        return self.g_proj(self.g_prompt.prompts), self.e_proj(self.e_prompt.prompts)

    def observe(self, batch: Batch) -> Tensor | None:
        """Takes a session batch S and keeps it, then a forgetting batch F and makes one update with both.

        Classes of F count as met in both losses. Gives the loss of S at the weights that the first step led to.
        """
        if self.session_batch is None:
            self.session_batch = batch
            return None
        session, self.session_batch = replace(self.session_batch, seen=batch.seen), None
        fam = FAM(self.optimizer, self.args.rho, self.args.adaptive)
        self.optimizer.zero_grad(set_to_none=True)
        self._backward(batch)
        fam.first_step()
        loss = self._backward(session)
        fam.second_step()
        return loss

    def _backward(self, batch: Batch) -> Tensor:
        with self.autocast():
            loss = self.loss(batch)
        loss.backward()
        return loss.detach()

    def end_batch(self, batch: Batch) -> None:
        super().end_batch(batch)
        if self.session_batch is not batch:  # S is there still, if the update of the pair was left out
            self.session_batch = None

    def end_stream(self) -> None:
        if self.args.save_to:
            for name, table in zip(("g_prompt.pt", "e_prompt.pt"), self.tables()):
                write_pth(table.detach().float().cpu().clone(), Path(self.args.save_to) / name)

    def extra_state(self) -> dict[str, Any]:
        kept = self.session_batch
        return super().extra_state() | {"session_batch": None if kept is None else dict(vars(kept))}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        kept = state["session_batch"]
        self.session_batch = None if kept is None else Batch(**kept)


class Projector(nn.Module):
    """p' = p + fc2(relu(ln1(fc1(p)))) for every prompt token p, [..., D] to [..., D]."""

    def __init__(self, width: int, factor: int):
        super().__init__()
        self.fc1 = nn.Linear(width, width // factor)
        self.ln1 = nn.LayerNorm(width // factor)
        self.fc2 = nn.Linear(width // factor, width)

    def forward(self, prompts: Tensor) -> Tensor:
        return prompts + self.fc2(F.relu(self.ln1(self.fc1(prompts))))
