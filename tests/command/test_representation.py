"""`main.py representation`: shares by hand, pictures, and every bad input in one line."""

from __future__ import annotations

import pytest
import torch

import backbone
import main
from tests.utils.report.test_comparison import table_rows
from utils.files.tensors import write_tensors
from utils.representation import map_shape, statistics


@pytest.fixture
def files(tmp_path):
    """Weights of two MLPs of four units on digits: always active, never, for some images; and all as they are drawn."""
    made = []
    for name in ("made", "drawn"):
        torch.manual_seed(0)
        network = backbone.build("mlp-4", (1, 32, 32))
        if name == "made":
            with torch.no_grad():
                network.layers[0].weight[:2] = 0
                network.layers[0].bias[:2] = torch.tensor([1.0, -1.0])
        made.append(tmp_path / name / "rln.safetensors")
        write_tensors(made[-1], network.state_dict())
    return made


def represented(*words) -> int:
    return main.main(["representation", "--backbone", "mlp-4", "--dataset", "seq-digits", *map(str, words)])


def test_shares_and_pictures(files, tmp_path, capsys):
    assert represented(*files, "--out", tmp_path / "out", "--images", "50", "--device", "cpu") == 0
    out = capsys.readouterr().out
    rows = table_rows(out)
    assert rows["made/rln"][0] == "4" and float(rows["made/rln"][2]) >= 25 > float(rows["drawn/rln"][2])
    assert "Over 50 training images of seq-digits." in out
    for kind in ("maps", "lifetimes"):
        path = tmp_path / "out" / f"{kind}-mlp-4-seq-digits.png"
        assert str(path) in out
        assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000


def test_statistics_by_hand():
    found = statistics(torch.tensor([[1.0, 0.0, -1.0, 2.0], [3.0, 0.0, 0.5, 0.0]]))
    assert found.lifetimes.tolist() == [1, 0, 0.5, 0.5]
    assert (found.instance_sparsity, found.dead) == (0.5, 0.25)


@pytest.mark.parametrize(("units", "shape"), [(2304, (32, 72)), (1024, (16, 64)), (128, (8, 16)), (7, (1, 7))])
def test_maps_are_whole_and_near_to_four_by_nine(units, shape):
    assert map_shape(units) == shape


def test_bad_input_is_one_line(files, tmp_path, capsys):
    (tmp_path / "torn.safetensors").write_bytes(files[0].read_bytes()[:60])
    for words, reason in (
        ([tmp_path / "gone.safetensors"], "gone.safetensors: no such file"),
        ([tmp_path / "torn.safetensors"], "torn.safetensors"),
        ([files[0], "--backbone", "mlp-5"], "rln.safetensors"),
        ([files[0], "--images", "2"], "--images 2"),
        ([files[0], "--dataset", "seq-nothing"], "seq-nothing"),
    ):
        assert represented(*words, "--out", tmp_path / "out", "--device", "cpu") == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and reason in err, err
    assert not (tmp_path / "out").exists()
