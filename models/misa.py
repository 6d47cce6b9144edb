"""MISA, the stream: DualPrompt whose prompts were warmed up before, trained under the batch-wise logit mask.

Source: Kang et al., ICLR 2025, arXiv:2503.00677, sections 3.2 and 3.3; FlyGCL (79a6b51) and kangzhiq/MISA (3308d67).
Warm prompts are the product of stage one (`misa_isa`), made once per backbone on `--pretrain` and kept under
`--checkpoint_dir`, or come from a folder with `g_prompt.pt` and `e_prompt.pt`, the authors' for example. They train
like any others. With `--load_pt none` what remains of MISA is its mask and its prompt length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from backbone.products import PretrainArgs, Stage, make_stage
from models.dualprompt import DualPrompt, DualPromptArgs
from utils.args import RunArgs, option
from utils.contracts import Batch, Restored, Session, StreamInfo
from utils.errors import UsageError
from utils.files.tensors import read_tensors

NONE = "none"  # of --load_pt: random prompts
SHAPE = ("len_g_prompt", "len_e_prompt", "pos_g_prompt", "pos_e_prompt", "prompt_func")  # prompts fit only if equal


@dataclass(kw_only=True)
class MisaArgs(DualPromptArgs, PretrainArgs):
    len_g_prompt: int = option(10, "tokens of the G-prompt per block", "MISA, MePo and FlyGCL with warm prompts", low=1)
    train_mask: Literal["batch", "seen", "session"] = option(
        "batch", "classes that compete in the training loss; session: met since the task began", "MISA, FlyGCL"
    )
    load_pt: str | None = option(
        None,
        "folder with warm prompts g_prompt.pt and e_prompt.pt; 'none': random prompts; default: stage one",
        reads=("g_prompt.pt", "e_prompt.pt"),
    )


class Misa(DualPrompt):
    Args = MisaArgs

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MisaArgs):
        super().__init__(backbone, info, args)
        # Empty only where nothing was prepared, in a network built by hand.
        if args.load_pt not in (None, NONE) and not isinstance(info, Restored):
            folder = Path(args.load_pt)
            load_prompts(self.g_prompt.prompts, folder / "g_prompt.pt")
            load_prompts(self.e_prompt.prompts, folder / "e_prompt.pt")
        self.register_buffer("met", torch.zeros(info.num_classes, dtype=torch.bool))  # since the task began

    @classmethod
    def prepare(cls, run: RunArgs, args: MisaArgs) -> list[Stage]:
        """Stage one with prompts of the same shape, unless `load_pt` says where they come from; fills it in."""
        if args.load_pt is not None:
            return []
        shape = {name: getattr(args, name) for name in SHAPE}
        stage = make_stage("misa_isa", "load_pt", run, args, run.backbone_path, own=shape)
        args.load_pt = str(stage.output.parent)
        return [stage]

    @property
    def needs_task_boundaries(self) -> bool:
        return self.args.train_mask == "session" or super().needs_task_boundaries

    def begin_task(self, session: Session) -> None:
        self.met.fill_(False)

    def masked(self, logits: Tensor, batch: Batch) -> Tensor:
        """As for all prompt methods, or -inf for the classes not met since the task began."""
        if self.args.train_mask != "session":
            return super().masked(logits, batch)
        self.met.index_fill_(0, batch.y, True)
        return logits.float().masked_fill(~self.met, -torch.inf)


def load_prompts(prompts: nn.Parameter, file: Path) -> None:
    """Fills prompts [M, L, D] from a file; a file with fewer rows is repeated along the pool (FlyGCL).

    Raises UsageError if the file is missing, holds no tensor, or does not fit.
    """
    loaded = read_tensors(file)
    if isinstance(loaded, Tensor) and (
        loaded.layout != torch.strided or not loaded.dtype.is_floating_point or loaded.device.type != "cpu"
    ):
        raise UsageError(f"--load_pt: {file} holds no floating-point numbers ({loaded.layout}, {loaded.dtype})")
    if not isinstance(loaded, Tensor) or loaded.ndim != 3 or loaded.shape[1:] != prompts.shape[1:] or len(loaded) == 0:
        found = list(loaded.shape) if isinstance(loaded, Tensor) else type(loaded).__name__
        raise UsageError(f"--load_pt: {file} holds {found}, this network and these options need {list(prompts.shape)}")
    loaded = Tensor.detach(loaded)[: len(prompts)]
    if not loaded.isfinite().all():
        raise UsageError(f"--load_pt: {file} holds values that are not finite")
    copies = -(-len(prompts) // len(loaded))
    with torch.no_grad():
        prompts.copy_(loaded.repeat(copies, 1, 1)[: len(prompts)])
