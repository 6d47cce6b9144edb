"""What the comparison of cases takes from the case, because it is no option of the project, and what no case shows: as
released.
"""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import optim

from models.dualprompt import DualPrompt, DualPromptArgs
from models.er import Er, ErArgs
from models.flyprompt import FlyPrompt, FlyPromptArgs
from models.mepo import RIDGE
from models.mepo_meta import MepoMeta, MepoMetaArgs
from models.misa_isa import MisaIsa, MisaIsaArgs
from models.mvp import Mvp, MvpArgs
from models.ranpac import RanPac, RanPacArgs
from models.singleprompt import SinglePrompt, SinglePromptArgs
from models.slca import Slca, SlcaArgs
from utils.contracts import Batch, StreamInfo

ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
SGD = {"momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}
RELEASED = [
    (DualPrompt, DualPromptArgs(), optim.Adam, ADAM),
    (Er, ErArgs(), optim.Adam, ADAM),
    (Er, ErArgs(optimizer="sgd"), optim.SGD, SGD | {"nesterov": True, "weight_decay": 1e-4}),
    (MepoMeta, MepoMetaArgs(), optim.SGD, SGD),
    (MisaIsa, MisaIsaArgs(), optim.Adam, ADAM),
    (Mvp, MvpArgs(), optim.Adam, ADAM),
    (FlyPrompt, FlyPromptArgs(rp_dim=8), optim.Adam, ADAM),
    (RanPac, RanPacArgs(rp_dim=8), optim.Adam, ADAM),
    (SinglePrompt, SinglePromptArgs(), optim.Adam, ADAM),
    (Slca, SlcaArgs(), optim.SGD, SGD | {"momentum": 0, "weight_decay": 5e-4}),
]


def make(method, args, num_images: int = 8):
    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=5, num_heads=2, num_classes=0)
    info = StreamInfo(
        num_classes=4,
        num_tasks=5,
        num_images=num_images,
        num_updates=8,
        image_size=16,
        seed=0,
        augment=lambda raw: raw,
        plain=lambda raw: raw,
    )
    return method(vit.requires_grad_(False), info, args)


@pytest.mark.parametrize(("method", "args", "kind", "numbers"), RELEASED)
def test_optimizer(method, args, kind, numbers) -> None:
    optimizer = make(method, args).configure_optimizer()
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in numbers} == numbers


def test_ridge() -> None:
    assert RIDGE == 1e-4


def test_step_counter_keeps_what_is_left_over() -> None:
    """In every stored case a step is a whole number of batches; here 8 images arrive at a time and a step is 5."""
    model, steps = make(DualPrompt, DualPromptArgs(step_num=4), num_images=20), []
    for _ in range(3):
        model.end_batch(Batch(x=torch.empty(8), y=torch.zeros(8, dtype=torch.int64), raw=torch.empty(8), seen=1))
        steps.append(model.clock.step)
    assert steps == [1, 3, 3]
