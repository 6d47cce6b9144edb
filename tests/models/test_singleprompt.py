"""SinglePrompt: what its prompts reach, its cosine classifier, and the run it was published with."""

from __future__ import annotations

import pytest
import torch

from models.singleprompt import CosineHead
from tests.tiny import build
from utils import plan as plans
from utils.errors import UsageError


def test_first_blocks_only_and_no_more_than_there_are():
    assert sorted(build("singleprompt").model.prompts()) == [0, 1, 2, 3, 4]
    assert sorted(build("singleprompt", {"n_prompted_blocks": 2}).model.prompts()) == [0, 1]
    with pytest.raises(UsageError, match="--n_prompted_blocks 7: the backbone has 6"):
        build("singleprompt", {"n_prompted_blocks": 7})


def test_cosine_logits_know_directions_only():
    head, features = CosineHead(4, 3), torch.randn(5, 4)
    torch.testing.assert_close(head(3 * features), head(features))
    expected = torch.cosine_similarity(features[:, None], head.weight, dim=-1) / 0.1
    torch.testing.assert_close(head(features), expected)


def test_cosines_are_in_float32_in_half_precision_too():
    head, features = CosineHead(4, 3), torch.randn(5, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
    assert torch.equal(logits, head(features.float()))


def test_runs_as_published():
    run = plans.make({"model": "singleprompt", "dataset": "seq-digits"}).with_seed(1).run
    assert run.batch_size == 32 and run.eval_mask == "none"
    hosted = plans.make({"model": "mepo", "host": "singleprompt", "dataset": "seq-digits"}).with_seed(1).run
    assert hosted.batch_size == 32 and hosted.eval_mask == "none"


def test_every_feature_passes_the_place_of_the_alignment():
    model, passed = build("singleprompt").model, []
    model.fc_norm.register_forward_hook(lambda *_: passed.append(True))
    model(torch.randn(2, 3, 32, 32))
    assert len(passed) == 1
