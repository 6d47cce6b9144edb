"""DualPrompt: its pool and the slices of it."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import WIDTH, build


@pytest.mark.parametrize(("e_pool", "steps", "size"), [(10, 5, 10), (10, 20, 20), (4, 12, 12), (6, 6, 6)])
def test_the_pool_has_a_prompt_for_every_step(e_pool, steps, size):
    model = build("dualprompt", {"e_pool": e_pool, "step_num": steps, "len_e_prompt": 2}).model
    assert model.e_prompt.key.shape == (size, WIDTH) and model.e_prompt.prompts.shape == (size, 3 * 2, WIDTH)
    width = size // steps
    queries = torch.randn(64, WIDTH)
    for step in range(steps):  # training chooses in the slice of the step, evaluation in the whole pool
        model.clock.step = step
        index, _ = model.train().select(queries)
        assert set(index.tolist()) <= set(range(step * width, (step + 1) * width))
    index, _ = model.eval().select(queries)
    assert torch.equal(index, torch.cosine_similarity(queries[:, None], model.e_prompt.key, dim=-1).argmax(dim=1))


def test_after_the_last_slice_all_prompts_are_chosen_from():
    """A stream may have more tasks than the pool has slices (`step_schedule task`)."""
    model = build("dualprompt", {"e_pool": 9, "step_num": 3}).model.train()
    model.clock.step = 3
    assert model.select(torch.randn(256, WIDTH))[0].unique().numel() > 3
