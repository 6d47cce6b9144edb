"""Digests of files, and the list of a folder's files with theirs, by which anybody sees whether one was changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from utils.errors import UsageError
from utils.files.atomic import written_whole
from utils.files.text import open_file, parse_json, read_text

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """`manifest.json` with the SHA-256 of every other file of a folder, hidden ones left out."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", MANIFEST)))
    with written_whole(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps({path.name: sha256(path) for path in files}, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of a folder's manifest; empty if there is none. Raises UsageError if it is damaged."""
    try:
        return {str(name): str(digest) for name, digest in parse_json(read_text(folder / MANIFEST)).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / MANIFEST}: is damaged ({error}); remove it") from None


def changed_files(folder: Path, digests: dict[str, str]) -> list[str]:
    """Names in `digests` whose file is not there, cannot be read, or is not what it was."""
    return [name for name in digests if not _is(folder / Path(name).name, digests[name])]


def _is(file: Path, digest: str) -> bool:
    try:
        return file.is_file() and sha256(file) == digest
    except OSError:  # not readable
        return False


def sha256(path: Path) -> str:
    """Digest of a file of any size. Raises OSError as `open_file` does."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
