"""Nearest class mean: what it keeps, what it answers, and what it says of the features."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import pairwise_distances

from backbone import features
from tests.tiny import build


def trained(**run):
    """A run that has ended, and the features and columns of its training images."""
    run = build("ncm", eval_period=-1, **run)
    run.trainer.transform.train = run.trainer.transform.test  # as they are, so that features can be made again
    run.trainer.train()
    images = run.trainer.images
    with torch.no_grad():
        z = features(run.model.backbone, run.info.plain(images.raw(torch.arange(len(images)))))
    return run, z.double().numpy(), run.trainer.seen.slots(images.labels).numpy()


def test_the_nearest_mean_wins():
    run, z, columns = trained()
    means = np.stack([z[columns == column].mean(axis=0) for column in range(12)])
    probes = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        answers = run.model(probes)
        distances = pairwise_distances(features(run.model.backbone, probes).numpy(), means)
    assert (answers.argmax(dim=1).numpy() == distances.argmin(axis=1)).all()
    offset = answers.numpy() + distances**2 / 2  # half the squared length of the feature, the same for every class
    np.testing.assert_allclose(offset, offset[:, :1].repeat(12, axis=1), rtol=1e-4)


def test_the_order_of_the_stream_does_not_matter():
    one, other = (trained(seed=seed)[0].trainer.history.rows[-1]["accuracy"] for seed in (1, 2))
    assert one == other > 0.5


def test_measures_are_those_of_the_features():
    run, z, columns = trained()
    means = np.stack([z[columns == column].mean(axis=0) for column in range(12)])
    within = ((z - means[columns]) ** 2).sum()
    total = ((z - z.mean(axis=0)) ** 2).sum()
    cosines = [
        means[i] @ means[j] / np.linalg.norm(means[i]) / np.linalg.norm(means[j]) for i in range(12) for j in range(i)
    ]
    shares = np.linalg.eigvalsh(np.cov(means.T)).clip(1e-300) / np.trace(np.cov(means.T))
    expected = {
        "between": 1 - within / total,
        "cosine": np.mean(cosines),
        "rank": np.exp(-(shares * np.log(shares)).sum()),
    }
    found = run.model.measures()
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], [*expected.values()], rtol=1e-4)


def test_one_class_has_no_measures():
    run = build("ncm")
    assert run.model.measures() == {}
    run.model.sums.add(torch.randn(3, run.model.backbone.num_features), torch.zeros(3, dtype=torch.int64))
    assert run.model.measures() == {}


def test_a_class_without_images_never_wins():
    run = build("ncm", eval_mask="none")
    run.model.sums.add(1e3 * torch.ones(1, run.model.backbone.num_features), torch.tensor([4]))
    scores = run.model(torch.randn(8, 3, 32, 32))
    assert scores.isfinite().all() and (scores.argmax(dim=1) == 4).all()


def test_distances_are_in_double_precision_in_half_precision_too():
    run, z, _ = trained()
    z = torch.from_numpy(z).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = run.model(None, z)
    assert torch.equal(scores, run.model(None, z)) and scores.dtype == torch.float32
