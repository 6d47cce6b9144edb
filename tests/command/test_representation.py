"""`main.py representation`: the numbers, the maps, the pictures, and every bad input in one line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import backbone
from command.representation import labels_of
from tests.utils.report.test_comparison import assert_picture
from utils.representation import map_shape, statistics

NETWORK = "mlp-16-24"
DATA = ["--dataset", "seq-digits", "--device", "cpu", "--images", "200"]


def test_statistics_of_features():
    features = torch.tensor([[1.0, 0.0, -2.0, 0.5], [2.0, 0.0, 3.0, 0.0]])
    found = statistics(features)
    assert found.instance_sparsity == 0.5 and found.dead == 0.25
    assert found.lifetimes.tolist() == [1.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("units", "shape"),
    [(2304, (32, 72)), (1024, (16, 64)), (128, (8, 16)), (36, (4, 9)), (127, (8, 16)), (7, (1, 7)), (1, (1, 1))],
)
def test_maps_are_as_near_to_four_by_nine_as_they_divide(units, shape):
    assert map_shape(units) == shape


@pytest.fixture
def weights(tmp_path):
    """Weight files of two networks; of the second no unit is ever active, but for the last."""
    files = [tmp_path / name / "weights.safetensors" for name in ("a", "b")]
    state = backbone.build(NETWORK, (1, 32, 32)).state_dict()
    last = [name for name in state if name.endswith("bias")][-1]
    for file, bias in zip(files, (torch.zeros(24), torch.tensor([-100.0] * 23 + [100.0])), strict=True):
        file.parent.mkdir()
        save_file(state | {last: bias}, file)
    return files


def test_a_table_and_two_pictures(weights, tmp_path, said):
    code, lines, _ = said("representation", "--backbone", NETWORK, *DATA, *weights, "--out", tmp_path / "out")
    assert code == 0
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == ["weights", "units", "active per image (%)", "dead units (%)"]
    assert cells[3] == ["b/weights", "24", "4.2", "95.8"] and cells[2][:2] == ["a/weights", "24"]
    assert 10 < float(cells[2][2]) < 90
    assert "Over 200 training images of seq-digits." in lines
    for kind in ("maps", "lifetimes"):
        picture = tmp_path / "out" / f"{kind}-{NETWORK}-seq-digits.png"
        assert str(picture) in lines
        if kind == "maps":
            assert_picture(picture)


def test_options_of_the_dataset_are_taken(zoo, tmp_path, said):
    """Those that its own refusals name, too."""
    file = tmp_path / "w.safetensors"
    save_file(backbone.build("conv2-4", (3, 24, 24)).state_dict(), file)
    words = ["representation", file, "--backbone", "conv2-4", "--dataset", "seq-folder", "--data_dir", zoo]
    words += ["--cache_dir", tmp_path / "cache", "--out", tmp_path / "out", "--device", "cpu"]
    code, _, errors = said(*words)
    assert code == 2 and errors[-1].endswith("give it with --input_size")
    code, lines, _ = said(*words, "--input_size", 24)
    assert code == 0 and lines[2].startswith("| w ") and (tmp_path / "out" / "maps-conv2-4-seq-folder.png").exists()
    code, _, errors = said("representation", file, "--backbone", "conv2-4", *DATA, "--input_size", 24)
    assert code == 2 and errors == ["error: unknown option --input_size; see --help"]


def test_bad_input_is_one_line(weights, tmp_path, said):
    def refused(reason: str, *words: object) -> None:
        code, lines, errors = said("representation", "--out", tmp_path / "out", *words)
        assert (code, lines, len(errors)) == (2, [], 1) and reason in errors[0]

    other, damaged = tmp_path / "other.safetensors", tmp_path / "damaged.safetensors"
    save_file(backbone.build("mlp-16-25", (1, 32, 32)).state_dict(), other)
    damaged.write_bytes(weights[0].read_bytes()[:100])
    usual = ["--backbone", NETWORK, *DATA]
    refused("gone.safetensors: no such file", *usual, weights[0], tmp_path / "gone.safetensors")
    refused("other.safetensors: layers.1.bias has shape [25], the network needs [24]", *usual, weights[0], other)
    refused("damaged.safetensors", *usual, damaged)
    refused("--images 2: give a number of images, at least 3", *usual, weights[0], "--images", 2)
    refused("unknown dataset 'seq-digit'", "--backbone", NETWORK, "--dataset", "seq-digit", weights[0])
    assert not (tmp_path / "out").exists()


def test_files_are_called_by_what_tells_them_apart():
    assert labels_of(["runs/a.safetensors", "runs/b.safetensors"]) == ["a", "b"]
    assert labels_of(["x/oml/w.pt", "x/plain/w.pt"]) == ["oml/w", "plain/w"]
    assert labels_of(["w.pt", "w.pt"]) == ["1: w.pt", "2: w.pt"]
