"""L2P: where its prompts stand, and when the frequencies of its keys move."""

from __future__ import annotations

import pytest
import torch

from backbone.vit import embed
from tests.tiny import build, tiny_vit
from utils.errors import UsageError


@torch.no_grad()
def test_feature_is_the_mean_over_the_prompts_behind_the_class_token():
    model = build("l2p", {"e_pool": 6, "selection_size": 2, "len_e_prompt": 3}).model.eval()
    x, vit = torch.randn(4, 3, 32, 32), tiny_vit()
    query = vit.forward_features(x)[:, 0]
    nearest = torch.cosine_similarity(query[:, None], model.prompt.key, dim=-1).argsort(dim=1, descending=True)[:, :2]
    prompts = model.prompt.prompts[nearest].flatten(1, 2) + vit.pos_embed[:, :1]
    tokens = embed(vit, x)
    tokens = torch.cat((tokens[:, :1], prompts, tokens[:, 1:]), dim=1)
    expected = vit.norm(vit.blocks(tokens))[:, 1:7].mean(dim=1)
    torch.testing.assert_close(model(x), model.head(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("when, moves", [("never", False), ("task", True)])
def test_frequencies_move_at_task_ends_if_they_are_told_to(when, moves):
    run = build("l2p", {"frequency_update": when}, n_tasks=3, eval_period=-1)
    assert run.model.needs_task_boundaries == moves
    run.trainer.train()
    assert (run.model.prompt.frequency > 1).any() == moves


def test_more_prompts_than_the_pool_has_are_refused():
    with pytest.raises(UsageError, match="--selection_size 7: the pool has only 6"):
        build("l2p", {"e_pool": 6, "selection_size": 7})
