"""Archives are unpacked whole or not at all, and nothing lands outside of its place."""

from __future__ import annotations

import hashlib
import random
import shutil
import stat
import tarfile
import types
import zipfile
from pathlib import Path

import pytest

from tests.miniatures import CONTENT, TREE, add, names_in, packed, refused, tree
from utils.files import archives
from utils.files.archives import unpack

ENDINGS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_unpacks_all_or_the_folder_that_is_wanted(tmp_path, ending):
    archive = packed(tmp_path / f"data{ending}", TREE)
    unpack(archive, tmp_path / "all")
    assert tree(tmp_path / "all") == TREE
    unpack(archive, tmp_path / "new" / "part", "top/deep")
    assert tree(tmp_path / "new" / "part") == {"b.bin": CONTENT}
    with refused(archive, "missing"):
        unpack(archive, tmp_path / "none", "missing")
    assert names_in(tmp_path) == ["all", f"data{ending}", "new"]


def test_a_target_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    unpack(tmp_path / "no such.zip", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_that_is_missing_or_of_another_kind(tmp_path):
    with refused(tmp_path / "data.zip", "No such file"):
        unpack(tmp_path / "data.zip", tmp_path / "data")
    with refused(tmp_path / "data.rar", ".tar.bz2"):
        unpack(tmp_path / "data.rar", tmp_path / "data")


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / ".data.unpacking" / "old"
    left.mkdir(parents=True)
    (left / "file").write_text("half")
    unpack(packed(tmp_path / "data.zip", TREE), tmp_path / "data")
    assert tree(tmp_path / "data") == TREE
    assert names_in(tmp_path) == ["data", "data.zip"]


def unpack_refused(archive: Path, *parts: object) -> None:
    """Unpacks to a folder two levels down, is refused, and leaves nothing anywhere but the archive."""
    root = archive.parent
    with refused(archive, *parts):
        unpack(archive, root / "inner" / "folder" / "data")
    left = sorted(path for path in root.rglob("*") if not path.is_dir())
    assert left == [archive]
    assert names_in(root / "inner" / "folder") == []


OUTSIDE = ["../evil.txt", "top/../../evil.txt", "../../evil.txt", "{root}/evil.txt", "..\\evil.txt", "C:evil.txt"]


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_that_leads_outside_is_refused(tmp_path, ending, name):
    name = name.format(root=tmp_path)
    archive = packed(tmp_path / f"data{ending}", {"top/a.txt": b"alpha", name: b"evil"})
    unpack_refused(archive, repr(name), "outside")


LINKS = {
    "symlink out": (tarfile.SYMTYPE, "../.."),
    "symlink to the root": (tarfile.SYMTYPE, "/"),
    "symlink inside": (tarfile.SYMTYPE, "top"),
    "hard link out": (tarfile.LNKTYPE, "../../data.tar"),
    "hard link inside": (tarfile.LNKTYPE, "top/a.txt"),
    "device": (tarfile.CHRTYPE, ""),
    "block device": (tarfile.BLKTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("kind, link", LINKS.values(), ids=LINKS)
def test_a_tar_member_that_is_a_link_or_a_device_is_refused(tmp_path, kind, link):
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as file:
        add(file, "top/a.txt", b"alpha")
        add(file, "door", kind=kind, link=link)
        add(file, "door/evil.txt", b"evil")
    unpack_refused(archive, "'door'", "neither a file nor a folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_member_that_is_a_link_or_a_device_is_refused_before_anything_is_written(tmp_path, monkeypatch, kind):
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("top/a.txt", b"alpha")
        door = zipfile.ZipInfo("door")
        door.external_attr = (kind | 0o777) << 16
        file.writestr(door, "../..")
    monkeypatch.setattr(zipfile.ZipFile, "extract", lambda *_: pytest.fail("something was written"))
    unpack_refused(archive, "'door'", "neither a file nor a folder")


def test_python_without_the_tar_filter_is_refused(tmp_path, monkeypatch):
    archive = packed(tmp_path / "data.tar", TREE)
    monkeypatch.delattr(tarfile, "data_filter")
    unpack_refused(archive, "newer")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0, 0.02, 0.3, 0.6, 0.98])
def test_a_truncated_archive_is_refused(tmp_path, ending, kept):
    members = {f"{i}.bin": hashlib.sha512(bytes([i])).digest() * 40 for i in range(30)}
    archive = packed(tmp_path / f"data{ending}", members)
    content = archive.read_bytes()
    # of a .tar the last 10 kB are padding
    archive.write_bytes(content[: int(kept * (len(content) - 10_240 * (ending == ".tar")))])
    unpack_refused(archive, "truncated or damaged", "delete it and run again")


def test_a_tar_that_ends_between_two_members_is_refused(tmp_path):
    archive = packed(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)})
    archive.write_bytes(archive.read_bytes()[:1024])
    unpack_refused(archive, "truncated or damaged")


def test_a_tar_with_a_damaged_header_is_refused(tmp_path):
    archive = packed(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)})
    content = bytearray(archive.read_bytes())
    content[1024 + 100] ^= 1
    archive.write_bytes(content)
    unpack_refused(archive, "truncated or damaged")


def test_a_gz_that_lost_only_its_checksum_is_refused(tmp_path):
    archive = packed(tmp_path / "data.tar.gz", TREE)
    archive.write_bytes(archive.read_bytes()[:-8])
    unpack_refused(archive, "truncated or damaged")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tgz", ".tar.bz2"])
def test_changed_content_is_noticed_where_there_is_a_checksum(tmp_path, ending):
    archive = packed(tmp_path / f"data{ending}", {"noise.bin": random.Random(0).randbytes(5000)})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    unpack_refused(archive, "truncated or damaged")


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_bomb_is_refused(tmp_path, ending, parts):
    zeros = bytes(archives.ALWAYS_FINE // parts + 1)
    archive = packed(tmp_path / f"data{ending}", {f"{i}.bin": zeros for i in range(parts)})
    assert archive.stat().st_size < len(zeros) * parts / archives.MAX_GROWTH
    unpack_refused(archive, "more than 100 times its size")


@pytest.mark.parametrize("name", ["long" * 30_000, "läng" * 30_000])  # a header of GNU, or of POSIX
def test_a_header_is_not_taken_into_memory_whatever_its_size(tmp_path, name):
    archive = packed(tmp_path / "data.tar", {name: b""})
    unpack_refused(archive, f"a header of more than {archives.CHUNK} bytes")


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
def test_a_swarm_of_empty_files_is_a_bomb(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(archives, "ALWAYS_FINE", 10 * archives.BLOCK)
    monkeypatch.setattr(archives, "MAX_GROWTH", 1)
    unpack_refused(packed(tmp_path / f"data{ending}", {str(i): b"" for i in range(100)}), "times its size")


@pytest.mark.parametrize("ending", ENDINGS)
def test_too_little_space_is_noticed_before_writing(tmp_path, monkeypatch, ending):
    archive = packed(tmp_path / f"data{ending}", {"zeros.bin": bytes(20_000_000)})
    free = types.SimpleNamespace(free=15_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with refused(archive.name, "needs 0.02 GB", "are free", tmp_path):
        unpack(archive, tmp_path / "data")
    assert names_in(tmp_path) == [archive.name]
