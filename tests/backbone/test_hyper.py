"""Networks as functions of flat weights, the hypernetwork that makes these, and how it begins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector

from backbone import small
from backbone.hyper import Chunks, Hypernetwork, MainNetwork, OwnWeights, gauss_init, parse_widths
from utils.errors import UsageError


def plain(name: str, shape: tuple[int, ...], outputs: int = 5):
    """A network with a head, and its weights one after the other, head last."""
    torch.manual_seed(0)
    network = small.build(name, shape).eval()
    head = nn.Linear(network.num_features, outputs)
    return network, head, parameters_to_vector([*network.parameters(), *head.parameters()]).detach()


@pytest.mark.parametrize("name, shape", [("mlp-7-6", (4,)), ("mlp-7", (1, 8, 8)), ("resnet18-2-pool", (3, 16, 16))])
def test_a_filled_network_is_the_network_with_these_weights(name, shape):
    network, head, flat = plain(name, shape)
    x = torch.randn(3, *(shape if len(shape) == 1 else (3, *shape[1:])))
    with torch.no_grad():
        expected = head(network(x))
    main = MainNetwork(network, 5)
    assert main.size == len(flat) and not list(network.parameters())
    torch.testing.assert_close(main(torch.stack((flat, 0 * flat, flat)), x)[[0, 2]], expected.expand(2, 3, 5))
    assert not main(0 * flat[None], x).any()


def test_order_of_tensors_and_rows_of_the_head():
    network, head, flat = plain("mlp-3", (2,))
    main = MainNetwork(network, 5)
    assert [(part.name, tuple(part.shape)) for part in main.parts] == [
        ("layers.0.weight", (3, 2)),
        ("layers.0.bias", (3,)),
        ("head.weight", (5, 3)),
        ("head.bias", (5,)),
    ]
    owned = main.tensors(main.owned(range(1, 3)))
    assert owned["layers.0.weight"].all() and owned["layers.0.bias"].all()
    assert owned["head.bias"].tolist() == [False, True, True, False, False]
    assert torch.equal(owned["head.weight"].all(dim=1), owned["head.bias"])
    assert torch.equal(owned["head.weight"].any(dim=1), owned["head.bias"])


def test_buffers_may_be_others_than_the_networks_own():
    network, _, flat = plain("resnet18-2", (3, 8, 8))
    main, x = MainNetwork(network, 5), torch.randn(3, 3, 8, 8)
    shifted = {name: buffer + 1 for name, buffer in network.named_buffers()}
    before = main(flat[None], x)
    assert not torch.allclose(main(flat[None], x, shifted), before)
    assert torch.equal(main(flat[None], x), before)


@pytest.mark.parametrize("per_task", [False, True])
def test_chunks_come_one_after_the_other_and_the_surplus_is_dropped(per_task):
    hyper = Hypernetwork(10, 2, [6], emb_size=3, activation="sigmoid", chunks=Chunks(4, 2, per_task))
    first, last = hyper.layers
    for task in (0, 1):
        outputs = []
        for k in range(3):
            given = torch.cat((hyper.chunk_embeddings[task if per_task else 0][k], hyper.embeddings[task]))
            outputs.append(last(torch.sigmoid(first(given))))
        torch.testing.assert_close(hyper(task), torch.cat(outputs)[:10])
    assert len(hyper.chunk_embeddings) == (2 if per_task else 1)


def test_a_hypernetwork_without_hidden_layers_is_linear():
    hyper = Hypernetwork(5, 1, [], emb_size=3)
    torch.testing.assert_close(hyper(0), F.linear(hyper.embeddings[0], hyper.layers[0].weight, hyper.layers[0].bias))


def test_a_task_may_begin_as_another_one():
    hyper = Hypernetwork(5, 3, [4], emb_size=3, chunks=Chunks(2, 2, per_task=True))
    hyper.begin_as(2, 0)
    assert torch.equal(hyper(2), hyper(0)) and not torch.equal(hyper(1), hyper(0))
    with torch.no_grad():
        hyper.embeddings[2].add_(1)  # a copy: the other one stays
    assert not torch.equal(hyper(2), hyper(0))


def test_own_weights():
    one, other = torch.zeros(3), torch.ones(3)
    assert torch.equal(OwnWeights([one, other])(1), other)
    assert torch.equal(OwnWeights([one])(1), one)


def outputs(hyper: Hypernetwork) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([hyper(task) for task in range(len(hyper.embeddings))])


@pytest.mark.parametrize("chunks", [None, Chunks(700, 64, per_task=True)])
def test_variances_of_a_gaussian_start(chunks):
    torch.manual_seed(0)
    main = MainNetwork(small.build("mlp-40", (50,)), 10)
    hyper = Hypernetwork(2 * main.size, 200, [], 4, chunks=chunks, std=0.01)
    gauss_init(hyper, main, 0.01**2, keep_means=False)
    mean, rho = outputs(hyper).chunk(2, dim=1)
    # The chunk with the last means and the first rhos has the variance between.
    assert 0.0027 < mean[:, :2100].var() < 0.0033 and 0.075 < rho[:, 700:].var() < 0.091


def test_a_gaussian_start_of_chunks_can_be_sketched():
    with torch.device("meta"):
        main = MainNetwork(small.build("mlp-40", (50,)), 10)
        chunks = Chunks(700, 64, per_task=True)
        gauss_init(Hypernetwork(2 * main.size, 200, [], 4, chunks=chunks), main, 1.0, keep_means=False)


def test_kept_means_begin_as_weights_of_a_plain_network():
    torch.manual_seed(0)
    main = MainNetwork(small.build("resnet18-2", (3, 8, 8)), 10)
    hyper = Hypernetwork(2 * main.size, 200, [64], 16, std=0.5)
    gauss_init(hyper, main, 0.25, keep_means=True)
    mean, rho = outputs(hyper).chunk(2, dim=1)
    assert 0.08 < rho.var() < 0.086
    gain = outputs_of_hidden(hyper).square().mean() / 0.25  # what ReLU takes away
    made, kinds = main.tensors(mean), {part.name: part.kind for part in main.parts}
    for name, fan_in in {"conv1.weight": 27, "layer4.1.conv2.weight": 144}.items():
        assert made[name].var() / gain == pytest.approx(1 / fan_in, rel=0.3)  # no bias
    assert made["head.weight"].var() / gain == pytest.approx(1 / 32, rel=0.3)
    assert made["head.bias"].square().mean() / gain == pytest.approx(1 / 2, rel=0.9)
    assert all((made[name] == 1).all() for name, kind in kinds.items() if kind == "scale")
    assert all((made[name] == 0).all() for name, kind in kinds.items() if kind == "shift")


def outputs_of_hidden(hyper: Hypernetwork) -> torch.Tensor:
    with torch.no_grad():
        return F.relu(hyper.layers[0](torch.stack(list(hyper.embeddings))))


def test_widths():
    assert parse_widths("hmlp_arch", "10, 20") == [10, 20] and parse_widths("hmlp_arch", "") == []
    for wrong in ("0", "10,,10", "-3", "x", "1.5", "99999999"):
        with pytest.raises(UsageError, match=f"--hmlp_arch {wrong}: widths"):
            parse_widths("hmlp_arch", wrong)
