"""Permuted digits: the digits at their own size, their pixels in another order in every domain, on board."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits

import main
from datasets.base import Places
from datasets.perm_digits import PermDigits, PermDigitsArgs
from datasets.seq_digits import SeqDigits
from tests.tiny import run_folder


def test_images_are_those_of_the_digits_as_they_are():
    dataset = PermDigits()
    images, labels = dataset.load(None, train=True)
    assert images.shape == (1437, 3, 8, 8) and images.dtype == np.uint8 and images.max() == 255
    assert (images == images[:, :1]).all()
    assert np.array_equal(labels, SeqDigits().load(None, train=True)[1])
    everything = {image.tobytes() for image in np.rint(load_digits().images * 255 / 16).astype(np.uint8)}
    assert {image[0].tobytes() for image in images} <= everything


def test_every_domain_has_an_order_of_its_own():
    dataset, other = PermDigits(), PermDigits(PermDigitsArgs(domain_seed=1))
    raw = torch.from_numpy(dataset.load(None, train=False)[0][:4])
    for domain in (0, 3):
        shifted = dataset.shift(raw, torch.full((4,), domain))
        order = dataset.permutations[domain]
        assert torch.equal(shifted, raw.flatten(2)[:, :, order].view_as(raw))
        assert torch.equal(order.sort().values, torch.arange(64)) and not torch.equal(order, torch.arange(64))
        assert not torch.equal(other.permutations[domain], order)


def test_its_content_decides_which_run_is_this_run(tmp_path):
    places = Places(tmp_path, tmp_path, 8)
    assert PermDigits().digest(places, True) != SeqDigits().digest(places, True)


def test_a_run_has_a_matrix_of_domains(tmp_path, capsys):
    words = ["--model", "finetune", "--dataset", "perm-digits", "--n_tasks", "3", "--optimizer", "sgd", "--lr", "0.1"]
    words += ["--batch_size", "10", "--online_iter", "1", "--device", "cpu", "--results", str(tmp_path / "runs")]
    assert main.main(words) == 0
    table = pd.read_csv(run_folder(tmp_path / "runs") / "per_task.csv")
    told = table[table["measure"] == "task"].pivot(index="after_task", columns="task", values="value").to_numpy()
    assert (np.diag(told) > 0.5).all() and np.isnan(told[0, 1:]).all()
    assert table.groupby(["after_task", "task"])["value"].nunique().max() == 1  # one head: the task says nothing
