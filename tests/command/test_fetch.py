"""python main.py fetch: what it asks the hub for, and one line when it cannot."""

from __future__ import annotations

import huggingface_hub
import pytest

import main


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def snapshot_download(repository, local_dir, allow_patterns):
        calls.append((repository, local_dir))
        (local_dir / "file.npy").touch()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_released_files_go_to_the_checkpoint_folder(asked, tmp_path, capsys):
    assert main.main(["fetch", "mepo", "--checkpoint_dir", str(tmp_path / "new")]) == 0
    folder = tmp_path / "new" / "mepo_released"
    assert asked == [("long2333/MePo", folder)]
    assert capsys.readouterr().out == f"{folder}\n"


def test_no_network_is_one_line(monkeypatch, tmp_path, capsys):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert main.main(["fetch", "mepo", "--checkpoint_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no route to host" in error and "long2333/MePo" in error


def test_unwritable_place_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main.main(["fetch", "mepo", "--checkpoint_dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
