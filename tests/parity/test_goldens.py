"""Every case below GOLDENS is compared with the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import (
    check_bcl,
    check_coda,
    check_dualprompt,
    check_er,
    check_flyprompt,
    check_l2p,
    check_lmsrr,
    check_mepo,
    check_metrics,
    check_misa,
    check_mvp,
    check_oml,
    check_posterior_replay,
    check_ranpac,
    check_singleprompt,
    check_slca,
    check_stream,
    goldens,
)

BUILT = {
    "stream": check_stream.check,
    "metrics": check_metrics.check,
    "dualprompt": check_dualprompt.check,
    "l2p": check_l2p.check,
    "coda": check_coda.check,
    "mvp": check_mvp.check,
    "singleprompt": check_singleprompt.check,
    "slca": check_slca.check,
    "flyprompt": check_flyprompt.check,
    "ranpac": check_ranpac.check,
    "misa": check_misa.check,
    "er": check_er.check,
    "bcl": check_bcl.check,
    "oml": check_oml.check,
    "posterior_replay": check_posterior_replay.check,
    "lmsrr": check_lmsrr.check,
    "mepo_align": check_mepo.check_align,
    "mepo_cov": check_mepo.check_cov,
    "mepo_meta": check_mepo.check_meta,
    "mepo_dualprompt": check_mepo.check_with_dualprompt,
}


def compare(folder: Path, name: str, scratch: Path) -> None:
    """Runs one case. scratch: an empty folder for files. Raises AssertionError for what is no case of a known
    system."""
    system = name.rpartition("/")[0]
    assert system in BUILT, f"{name}: '{system}' is no system this project knows; add it to BUILT"
    settings = goldens.read_settings(folder, name)
    assert settings.get("system") == system, f"{name}: its JSON says system '{settings.get('system')}'"
    case = goldens.Case(folder, name)
    BUILT[system](case, scratch)
    assert not case.left(), f"{name}: no check reads {', '.join(case.left())}"


def problem(folder: Path) -> str | None:
    """Why a run over this folder would prove nothing, or too little."""
    if not folder.is_dir():
        return f"GOLDENS={folder}: no such folder"
    names = goldens.find(folder)
    if not names:
        return f"GOLDENS={folder}: holds no case (<system>/<case>.json with <case>.npz)"
    lacking = BUILT.keys() - {name.rpartition("/")[0] for name in names}
    if folder == goldens.SHIPPED and lacking:
        return f"{folder}: no case is shipped for {sorted(lacking)}"
    return None


@pytest.mark.parametrize("name", goldens.find(goldens.root()))
def test_case(name: str, tmp_path: Path) -> None:
    compare(goldens.root(), name, tmp_path)


def test_the_folder_proves_something() -> None:
    assert not problem(goldens.root()), problem(goldens.root())


# The discovery itself, on made-up folders. ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One shipped case, to be spoilt."""
    (tmp_path / "goldens" / "er").mkdir(parents=True)
    for file in goldens.SHIPPED.glob("er/er_reservoir.*"):
        shutil.copyfile(file, tmp_path / "goldens" / "er" / file.name)
    return tmp_path / "goldens"


def test_a_whole_case_is_compared(folder: Path, tmp_path: Path) -> None:
    assert goldens.find(folder) == ["er/er_reservoir"]
    compare(folder, "er/er_reservoir", tmp_path)
    assert problem(folder) is None


def test_an_unknown_system_fails(folder: Path, tmp_path: Path) -> None:
    (folder / "er").rename(folder / "telepathy")
    assert goldens.find(folder) == ["telepathy/er_reservoir"]
    with pytest.raises(AssertionError, match="telepathy"):
        compare(folder, "telepathy/er_reservoir", tmp_path)


@pytest.mark.parametrize("lost", [".npz", ".json"])
def test_half_a_case_fails(folder: Path, tmp_path: Path, lost: str) -> None:
    (folder / "er" / f"er_reservoir{lost}").unlink()
    assert goldens.find(folder) == ["er/er_reservoir"]
    with pytest.raises(AssertionError, match=f"er_reservoir{lost} is missing"):
        compare(folder, "er/er_reservoir", tmp_path)


@pytest.mark.parametrize("file", ["er_reservoir.npz", "er_reservoir.json"])
def test_a_damaged_case_fails(folder: Path, tmp_path: Path, file: str) -> None:
    content = (folder / "er" / file).read_bytes()
    (folder / "er" / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(AssertionError, match="cannot be read"):
        compare(folder, "er/er_reservoir", tmp_path)


def test_a_case_at_the_wrong_depth_fails(folder: Path, tmp_path: Path) -> None:
    (folder / "er").rename(folder / "deep")
    (folder / "er").mkdir()
    (folder / "deep").rename(folder / "er" / "deep")
    assert goldens.find(folder) == ["er/deep/er_reservoir"]
    with pytest.raises(AssertionError, match="er/deep"):
        compare(folder, "er/deep/er_reservoir", tmp_path)


def test_a_folder_without_cases_is_a_problem(folder: Path) -> None:
    assert "no such folder" in problem(folder / "nowhere")
    (folder / "empty").mkdir()
    assert "holds no case" in problem(folder / "empty")
