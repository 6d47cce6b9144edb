"""MISA, the stream: DualPrompt whose prompts were warmed up before, trained under the batch-wise logit mask.

Source: Kang et al., ICLR 2025, arXiv:2503.00677, sections 3.2 and 3.3; FlyGCL (79a6b51) and kangzhiq/MISA (3308d67).
Warm prompts come from a folder with the authors' `g_prompt.pt` and `e_prompt.pt` (`--load_pt DIR`). Without it prompts
start at random, and what remains of MISA is its mask and its prompt length. The initial session adaptation that makes
warm prompts is a method of its own and not built yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.dualprompt import DualPrompt, DualPromptArgs
from utils.args import option
from utils.contracts import StreamInfo
from utils.errors import UsageError
from utils.tensors import read_tensors


@dataclass(kw_only=True)
class MisaArgs(DualPromptArgs):
    len_g_prompt: int = option(10, "tokens of the G-prompt per block", "MISA, MePo and FlyGCL with warm prompts", low=1)
    load_pt: str | None = option(None, "folder with warm prompts g_prompt.pt and e_prompt.pt; none: random prompts")


class Misa(DualPrompt):
    Args = MisaArgs

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MisaArgs):
        super().__init__(backbone, info, args)
        if args.load_pt:
            folder = Path(args.load_pt)
            load_prompts(self.g_prompt.prompts, folder / "g_prompt.pt")
            load_prompts(self.e_prompt.prompts, folder / "e_prompt.pt")


def load_prompts(prompts: nn.Parameter, file: Path) -> None:
    """Fills prompts [M, L, D] from a file; a file with fewer rows is repeated along the pool (FlyGCL).

    Raises UsageError if the file is missing, holds no tensor, or does not fit.
    """
    loaded = read_tensors(file)
    if not isinstance(loaded, Tensor) or loaded.ndim != 3 or loaded.shape[1:] != prompts.shape[1:] or len(loaded) == 0:
        found = list(loaded.shape) if isinstance(loaded, Tensor) else type(loaded).__name__
        raise UsageError(f"--load_pt: {file} holds {found}, this network and these options need {list(prompts.shape)}")
    if not loaded.isfinite().all():
        raise UsageError(f"--load_pt: {file} holds values that are not finite")
    copies = -(-len(prompts) // len(loaded))
    with torch.no_grad():
        prompts.copy_(loaded.detach().repeat(copies, 1, 1)[: len(prompts)])
