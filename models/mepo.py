"""MePo stage 3: any prompt method on the meta-refined backbone, its features aligned to the meta covariance.

Source: Sun et al., MePo, arXiv:2602.07940; released code (SunGL001/MePo, 55912a4; FlyGCL, 79a6b51). The host (`--host`)
knows nothing of MePo: the alignment takes the place between its feature and its classifier (`fc_norm`). Products of
stages 1 and 2 are made once per backbone and kept under `--checkpoint_dir`, unless `--meta_path` and `--cor_path` name
others.
What the published numbers were made with, and is the default here:
1. `align_form released`: A = L^-1 Lt, although rows x need A = L^-T Lt^T (`exact`) to reach the target covariance.
2. `align_stats batch`: mean and covariance of the current batch, also at test time, so that a prediction depends on
   what else is in the batch. `running` takes a moving average of the training batches, for training and test alike.
3. `cor_coef 0.7` with DualPrompt and MISA, as in FlyGCL. MePo's own scripts for MISA say 0: the refined backbone alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backbone as backbones
from backbone.products import PretrainArgs, Stage, make_stage
from models.base import ContinualModel, PromptMethod, Wrapper, WrapperArgs
from utils.args import RunArgs, option
from utils.contracts import Restored, StreamInfo
from utils.device import full_precision
from utils.errors import UsageError, reason

RIDGE = 1e-4  # epsilon added to the diagonal of both covariances
NONE = "none"  # of --meta_path and --cor_path: leave that half of MePo out


@dataclass(kw_only=True)
class MepoArgs(WrapperArgs, PretrainArgs):
    host: str = option("misa", "prompt method that learns the stream", "MePo scripts", method=True)
    meta_path: str | None = option(
        None, "refined backbone (.safetensors, .pth); 'none': keep the original; default: stage 1", reads=()
    )
    cor_path: str | None = option(
        None, "meta covariance (.npy); 'none': no alignment; default: stage 2 on that backbone", reads=()
    )
    cor_coef: float = option(
        0.7,
        "share c of the aligned features; 0: no alignment",
        "FlyGCL, DualPrompt and MISA; MePo's own MISA scripts: 0",
        low=0,
        high=1,
    )
    align_form: Literal["released", "exact"] = option("released", "linear map of the alignment", "released code")
    align_stats: Literal["batch", "running"] = option("batch", "statistics it starts from", "released code")
    align_when: Literal["always", "training"] = option(
        "always", "whether test features are aligned too", "released code; its MVP: training"
    )
    momentum: float = option(
        0.1,
        "weight of a new batch in the running statistics",
        "ours",
        low=0,
        high=1,
        where={"align_stats": ("running",)},
    )


class Mepo(Wrapper):
    Args = MepoArgs
    published = {
        "host l2p": {"cor_coef": 0.5},  # MePo scripts
        "host mvp": {"cor_coef": 0.5, "align_when": "training"},  # MePo scripts and released MVP
        "host coda": {"cor_coef": 0.5},  # no released alignment; nor for the next two
        "host flyprompt": {"cor_coef": 0.5},
        "host singleprompt": {"cor_coef": 0.5},
        # The classifier sees shorter features than the host's, so its rate is another: command/choose_icons.sh, then
        # command/choose_glyphs.sh.
        "backbone vit_tiny_icons": {"lr": 0.015},
        "host coda on backbone vit_tiny_icons": {"lr": 0.005},
        "host mvp on backbone vit_tiny_icons": {"lr": 0.005},
        "seq-glyphs": {"lr": 0.005},
        "host singleprompt on seq-glyphs": {"lr": 0.02},
    }

    def __init__(self, backbone: nn.Module, info: StreamInfo, args: MepoArgs):
        backbones.need_vit(backbone)
        restored = isinstance(info, Restored)
        if args.meta_path != NONE and not restored:
            backbones.load_weights(backbone, Path(args.meta_path))
        super().__init__(backbone, info, args)
        if args.cor_coef > 0 and args.cor_path != NONE:
            width = backbone.num_features
            target = torch.eye(width) if restored else load_covariance(Path(args.cor_path), width)
            self.host.fc_norm = Alignment(target, args)

    @classmethod
    def cannot_wrap(cls, host: type[ContinualModel]) -> str | None:
        if issubclass(host, PromptMethod):
            return None
        return "MePo wraps prompt methods; this one has no place for the alignment"

    @classmethod
    def prepare(cls, run: RunArgs, args: MepoArgs) -> list[Stage]:
        """Fills in the paths left open; the stages whose products they name, then the host's own."""
        stages, meta = [], None
        if args.meta_path is None:
            meta = make_stage("mepo_meta", "meta_path", run, args, run.backbone_path)
            stages.append(meta)
            args.meta_path = str(meta.output)
        elif args.meta_path != NONE and not Path(args.meta_path).is_file():
            raise UsageError(f"--meta_path {args.meta_path}: no such file")
        if args.cor_path is None and args.cor_coef > 0:
            refined = run.backbone_path if args.meta_path == NONE else args.meta_path
            stages.append(make_stage("mepo_cov", "cor_path", run, args, refined, after=meta))
            args.cor_path = str(stages[-1].output)
        elif args.cor_path is None:
            args.cor_path = NONE
        return stages + super().prepare(run, args)  # last: a run of the host alone may be making them just now

    @property
    def by_batch(self) -> str | None:
        args, aligned = self.args, isinstance(self.host.fc_norm, Alignment)
        if aligned and args.align_stats == "batch" and args.align_when == "always":
            return "MePo aligns the features of a batch with each other (--align_stats batch)"
        return super().by_batch

    def why_not_finite(self) -> str | None:
        count = int(getattr(self.host.fc_norm, "failed", 0))
        if not count:
            return super().why_not_finite()
        return (
            f"the alignment of a batch of {count} images: the covariance of their features has no Cholesky factor even "
            "in double precision; larger batches, --align_stats running or --cor_path none may help"
        )


class Alignment(nn.Module):
    """Features [B, D] to features aligned with the meta covariance Sigma [D, D], `target`."""

    def __init__(self, target: Tensor, args: MepoArgs):
        super().__init__()
        self.args = args
        width = len(target)
        self.register_buffer("target_factor", factor(target))  # Lt, computed once
        # Images of the last batch whose finite features had a covariance without a factor; 0: there was none.
        self.register_buffer("failed", torch.zeros((), dtype=torch.int64), persistent=False)
        if args.align_stats == "running":
            self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
            self.register_buffer("covariance", torch.zeros(width, width, dtype=torch.float64))
            self.register_buffer("batches", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        if not self.training and self.args.align_when == "training":
            return features
        args, features = self.args, features.float()
        with full_precision(features):  # a Cholesky factor in bf16 would be noise
            known = self._statistics(features)
            aligned = align(features, self.target_factor, args.cor_coef, args.align_form, known)
        with torch.no_grad():
            lost = features.isfinite().all() & ~aligned.isfinite().all()
            self.failed.copy_(torch.where(lost, len(features), self.failed))
        return aligned

    @torch.no_grad()
    def _statistics(self, features: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and covariance to align from; None: those of the batch."""
        if self.args.align_stats == "batch":
            return None
        if self.training and len(features) > 1:
            # The first batch counts in full, so that the average does not start at zero.
            weight = torch.where(self.batches == 0, 1.0, self.args.momentum).double()
            mean, covariance = statistics(features)
            self.mean.lerp_(mean[0], weight)
            self.covariance.lerp_(covariance, weight)
            self.batches += 1
        return self.mean.clone(), self.covariance.clone()


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [1, D] and covariance [D, D] (divisor B - 1) of features [B, D], in double precision."""
    features = features.double()
    mean = features.mean(dim=0, keepdim=True)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def factor(covariance: Tensor) -> Tensor:
    """Lower Cholesky factor of covariance + RIDGE * I, [D, D]; NaN where there is none.

    Found in double precision, since RIDGE may be lost in the rounding of large variances.
    """
    ridge = RIDGE * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    # Unlike `cholesky`, does not wait for the device.
    lower, failed = torch.linalg.cholesky_ex(covariance.double() + ridge)
    return lower.masked_fill(failed != 0, torch.nan).to(covariance.dtype)


def align(
    features: Tensor,
    target_factor: Tensor,
    coef: float,
    form: str = "released",
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Features X [B, D] moved towards a covariance whose factor is Lt [D, D] (`factor`): (1 - c) X + c F.

    F is (X - mean) A with rows scaled to unit norm; A = L^-1 Lt in the released form, L^-T Lt^T in the exact one, L the
    factor of the covariance of X; all of it in double precision, the result in that of X. Gradients flow through mean,
    covariance and factor. known: mean and covariance to use instead of the batch's. A single image without them is only
    normalised, as in FlyGCL.
    """
    if known is None and len(features) == 1:
        mapped = features
    else:
        mean, covariance = statistics(features) if known is None else known
        centred, own, target_factor = features - mean, factor(covariance), target_factor.double()
        # Solves for the B rows instead of forming the [D, D] map.
        if form == "released":
            mapped = torch.linalg.solve_triangular(own, centred, upper=False, left=False) @ target_factor
        else:
            mapped = torch.linalg.solve_triangular(own.T, centred, upper=True, left=False) @ target_factor.T
    return (1 - coef) * features + coef * F.normalize(mapped, dim=1, eps=1e-6).to(features.dtype)


def load_covariance(file: Path, width: int) -> Tensor:
    """A covariance [D, D] from a .npy file, float32. Raises UsageError unless it is one, of the backbone's width."""
    if not file.is_file():
        raise UsageError(f"--cor_path {file}: no such file")
    try:
        matrix = np.load(file, allow_pickle=False)
    except Exception as error:  # the reader raises many types; whichever it is, the file is unusable
        raise UsageError(f"--cor_path {file}: cannot be read as .npy ({reason(error)})") from None
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind != "f" or matrix.shape != (width, width):
        found = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else "an archive"
        raise UsageError(f"--cor_path {file}: holds {found}; the backbone needs float [{width}, {width}]")
    with np.errstate(over="ignore"):
        covariance = torch.from_numpy(matrix.astype(np.float32))
    if not covariance.isfinite().all():
        raise UsageError(f"--cor_path {file}: holds values that are not finite")
    scale = np.abs(matrix).max()
    if not np.allclose(matrix, matrix.T, atol=1e-5 * scale):
        raise UsageError(f"--cor_path {file}: is not symmetric, so it is no covariance")
    if factor(covariance).isnan().any():
        raise UsageError(f"--cor_path {file}: is not positive semi-definite, so it is no covariance")
    return covariance
