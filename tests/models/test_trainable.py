"""What trains of a ViT, of every method that works on its features: all, the last blocks, or nothing."""

from __future__ import annotations

import pytest
import torch

from models.base import FeatureMethod
from tests.tiny import NEEDED, build, weights_of
from utils.errors import UsageError
from utils.registry import METHODS

NAMES = [name for name in METHODS.files() if issubclass(METHODS.load(name), FeatureMethod)]
TRAINS = {
    "all": lambda name: True,
    "last": lambda name: name.startswith(("head.", "backbone.blocks.4.", "backbone.blocks.5.")),
    "head": lambda name: name.startswith("head."),
}


@pytest.mark.parametrize("trainable", TRAINS)
@pytest.mark.parametrize("name", NAMES)
def test_what_trains_moves_and_is_in_the_checkpoint_and_nothing_else(name, trainable):
    own = NEEDED.get(name, {}) | {"trainable": trainable, "lr": 0.01}
    own |= {"last_blocks": 2} if trainable == "last" else {}
    run = build(name, own, eval_period=-1, n_tasks=2)
    before = weights_of(run.model)
    run.trainer.train()
    after = weights_of(run.model)
    expected = {key for key, p in run.model.named_parameters() if TRAINS[trainable](key)}
    assert {key for key, _ in run.model.named_parameters() if not torch.equal(before[key], after[key])} == expected
    kept = run.trainer.state_dict()["model"].keys() & dict(run.model.named_parameters()).keys()
    assert kept == expected
    assert run.model.has_fixed_features == (trainable == "head")


def test_a_network_has_not_more_blocks_than_it_has():
    with pytest.raises(UsageError, match="--last_blocks 7: the network has 6 blocks"):
        build("er", {"trainable": "last", "last_blocks": 7})
