"""The weights that come with the project: they are the ones their card describes, and they are good enough."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import backbone
from backbone.vit import embed, encode
from datasets.seq_digits import SeqDigits

FILE = backbone.SHIPPED / "vit_tiny_glyphs.safetensors"


@pytest.fixture(scope="module")
def digits():
    """Class tokens [N, D] and labels [N] of the training and the test digits."""
    vit, dataset = backbone.build("vit_tiny_glyphs").eval(), SeqDigits()
    backbone.load_weights(vit, backbone.weights_file("vit_tiny_glyphs", None))
    parts = []
    for train in (True, False):
        images, labels = dataset.load(Path("unused"), train)
        inputs = (torch.from_numpy(np.array(images)).float() / 255 - 0.5) / 0.5
        with torch.no_grad():
            parts.append((encode(vit, embed(vit, inputs)).numpy(), labels))
    return parts


def test_the_file_is_the_one_of_its_card_and_small():
    assert FILE.stat().st_size <= 8_000_000
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() in FILE.with_suffix(".md").read_text()


def test_linear_probe_on_the_digits(digits):
    (train, train_labels), (test, test_labels) = digits
    scaler = StandardScaler().fit(train)
    probe = LogisticRegression(max_iter=3000).fit(scaler.transform(train), train_labels)
    accuracy = probe.score(scaler.transform(test), test_labels)
    print(f"linear probe on seq-digits: {100 * accuracy:.1f} %")
    assert accuracy >= 0.950


def test_nearest_class_mean_on_the_digits(digits):
    (train, train_labels), (test, test_labels) = digits
    means = np.stack([train[train_labels == label].mean(axis=0) for label in range(10)])
    nearest = np.linalg.norm(test[:, None] - means, axis=2).argmin(axis=1)
    accuracy = (nearest == test_labels).mean()
    print(f"nearest class mean on seq-digits: {100 * accuracy:.1f} %")
    assert accuracy >= 0.907
