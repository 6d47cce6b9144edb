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
from datasets.seq_emoji import SeqEmoji
from datasets.seq_icons import SeqIcons
from utils import plan as plans
from utils.contracts import Places


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


@pytest.mark.parametrize("name", backbone.TRAINED_ON)
def test_the_file_is_the_one_of_its_card_and_small(name):
    file = backbone.SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size <= 5_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() in file.with_suffix(".md").read_text()


def test_stages_are_made_on_what_a_shipped_network_was_trained_on(tmp_path):
    for dataset, pretrain in (("seq-digits", "glyphs"), ("seq-emoji", "icons"), ("seq-icons", "icons")):
        plan = plans.make({"model": "mepo", "dataset": dataset, "checkpoint_dir": str(tmp_path), "dry_run": True})
        stages = plan.method.prepare(plan.run, plan.method_args)
        assert {stage.dataset for stage in stages} == {pretrain}


def nearest(name: str, dataset, tmp_path: Path) -> float:
    """Accuracy on the test pictures of the nearest mean of a class, by every third of its pictures."""
    vit = backbone.build(name).eval()
    backbone.load_weights(vit, backbone.weights_file(name, None))
    parts = []
    for train in (True, False):
        images, labels = (part[:: 3 if train else 1] for part in dataset.load(Places(tmp_path, tmp_path, 32), train))
        batches = torch.from_numpy(np.array(images)).split(500)
        with torch.no_grad():
            parts.append((torch.cat([encode(vit, embed(vit, (x.float() / 255 - 0.5) / 0.5)) for x in batches]), labels))
    (train, train_labels), (test, test_labels) = parts
    means = torch.stack([train[train_labels == label].mean(dim=0) for label in range(dataset.num_classes)])
    accuracy = (torch.cdist(test, means).argmin(dim=1).numpy() == test_labels).mean()
    print(f"nearest class mean on {type(dataset).__name__}, {name}: {100 * accuracy:.1f} %")
    return accuracy


@pytest.mark.parametrize("dataset", [SeqIcons, SeqEmoji])
def test_icons_tell_more_of_icons_and_emoji_than_glyphs_do(dataset, tmp_path):
    """By ten points at least, of hands and styles that neither has seen."""
    icons, glyphs = (nearest(name, dataset(), tmp_path) for name in ("vit_tiny_icons", "vit_tiny_glyphs"))
    assert icons >= glyphs + 0.10


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
