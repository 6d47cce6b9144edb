"""MISA's warm prompts: the authors' released files, and files that do not fit."""

from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from models.misa import Misa, MisaArgs
from tests.tiny import ROOT
from utils.contracts import StreamInfo
from utils.errors import UsageError
from utils.files.tensors import read_tensors

RELEASED = ROOT.parent / "shared" / "checkpoints" / "misa"


def same(raw: torch.Tensor) -> torch.Tensor:
    return raw


def misa(width: int, folder: Path, **options) -> Misa:
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=width, depth=5, num_heads=4, num_classes=0)
    info = StreamInfo(10, num_tasks=5, num_images=100, num_updates=10, image_size=32, seed=1, augment=same, plain=same)
    return Misa(vit.requires_grad_(False), info, MisaArgs(load_pt=str(folder), **options))


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the authors' prompt files are not there")
@pytest.mark.parametrize("step_num", [5, 20])
def test_the_released_prompts_load_and_train(step_num):
    model = misa(768, RELEASED, step_num=step_num)
    e_prompt = read_tensors(RELEASED / "e_prompt.pt")
    g_prompt = read_tensors(RELEASED / "g_prompt.pt")
    assert torch.equal(model.g_prompt.prompts, g_prompt)
    assert torch.equal(model.e_prompt.prompts, e_prompt.repeat(2, 1, 1)[: max(10, step_num)])
    assert model.e_prompt.prompts.requires_grad and model.e_prompt.prompts.is_leaf


def prompts(folder: Path, **changed) -> Path:
    files = {"g_prompt": torch.zeros(1, 20, 32), "e_prompt": torch.zeros(10, 60, 32)} | changed
    for name, tensor in files.items():
        if tensor is not None:
            torch.save(tensor, folder / f"{name}.pt")
    return folder


@pytest.mark.parametrize(
    "changed, complaint",
    [
        ({"e_prompt": None}, "no such file"),
        ({"g_prompt": torch.zeros(1, 10, 32)}, r"\[1, 10, 32\].*\[1, 20, 32\]"),
        ({"e_prompt": torch.zeros(10, 60, 64)}, r"\[10, 60, 64\]"),
        ({"e_prompt": torch.full((10, 60, 32), torch.nan)}, "not finite"),
        ({"e_prompt": {"prompts": torch.zeros(10, 60, 32)}}, "dict"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, changed, complaint):
    with pytest.raises(UsageError, match=complaint):
        misa(32, prompts(tmp_path, **changed))


def test_truncated_files_are_refused(tmp_path):
    file = prompts(tmp_path) / "e_prompt.pt"
    whole = file.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="cannot be read"):
            misa(32, tmp_path)
