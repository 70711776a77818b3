"""What decides whether an earlier run's unfinished work is this run's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hmdiff.files import sha256


def identity(settings: Mapping[str, Any], inputs: Sequence[Path], code: Sequence[Path]) -> str:
    """SHA-256 of all that decides what a stage gives; torch's version is part of it.

    Args:
        settings: what JSON can hold.
        inputs: files and folders that are read; their content counts, not where they lie.
        code: modules; a training that went on with others would be of neither.
    """
    files = [
        path
        for given in inputs
        for path in (sorted(given.rglob("*")) if given.is_dir() else [given])
        if path.is_file()
    ]
    facts = {
        "settings": dict(settings),
        "torch": torch.__version__,
        "files": [[path.name, sha256(path)] for path in files],
        "code": [sha256(path) for path in code],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def listing(folder: Path) -> str:
    """SHA-256 of the names, sizes and times of all files below ``folder``.

    For folders of so many images that reading them takes as long as the stage itself.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            name = path.relative_to(folder).as_posix()
            digest.update(json.dumps([name, facts.st_size, facts.st_mtime_ns]).encode())
    return digest.hexdigest()
