"""Checksums of the archives in data/downloads, computed once and remembered beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmdiff.acquisition.catalogue import Archive
from hmdiff.errors import UserError
from hmdiff.files import read_json, sha256, write_json


def verify(archive: Archive, path: Path, again: bool = False) -> None:
    """Compare ``path`` with the catalogue's checksum, else with the one of the first fetch.

    The outcome is kept in ``PATH.json`` with the file's size and time, so that an unchanged file
    is not read twice.

    Args:
        again: read the file even so.

    Raises:
        UserError: the checksum is another one.
    """
    facts = _read(path)
    if again or not _fresh(facts, path):
        status = path.stat()
        actual = sha256(path)
        expected = archive.sha256 or facts.get("expected") or actual
        facts = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": actual,
            "expected": expected,
            "expected_from": "catalogue" if archive.sha256 else "first fetch",
        }
        write_json(_note(path), facts)
    if facts["sha256"] != facts["expected"]:
        raise UserError(
            f"{path}: wrong checksum (sha256 {facts['sha256'][:12]}..., not "
            f"{facts['expected'][:12]}... of the {facts['expected_from']}); delete it and fetch it "
            "again"
        )


def known_wrong(path: Path) -> bool:
    """Whether the last look at this very file found a wrong checksum; reads no content."""
    facts = _read(path)
    return _fresh(facts, path) and facts["sha256"] != facts["expected"]


def forget(path: Path) -> None:
    """Drop what is known of ``path``: another file will take its place."""
    _note(path).unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(_note(path))
    except (OSError, UserError):
        return {}
    keys = {"size", "mtime_ns", "sha256", "expected", "expected_from"}
    return facts if isinstance(facts, dict) and keys <= facts.keys() else {}


def _fresh(facts: dict[str, Any], path: Path) -> bool:
    if not facts or not path.is_file():
        return False
    status = path.stat()
    return (facts["size"], facts["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
