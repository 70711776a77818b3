"""The files of one stage's unfinished work: whole and its own, or not taken."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch

from hmdiff.files import atomic_file

KEPT = 2  # the newest; the older one is for the case that the newer is damaged
_DIGEST = 32  # bytes of SHA-256 behind a file's own


class Files:
    """Numbered files in a folder.

    Args:
        name: the stage, for messages.
        folder: None holds nothing.
        key: gives :func:`hmdiff.checkpoints.identity.identity`; called when a file is read or
            written, which a short run never does.
    """

    def __init__(self, name: str, folder: Path | None, key: Callable[[], str]) -> None:
        self.name = name
        self.folder = folder
        self._make_key = key
        self._key: str | None = None

    @property
    def key(self) -> str:
        if self._key is None:
            self._key = self._make_key()
        return self._key

    def found(self) -> list[Path]:
        """All of them, the oldest first by their numbers: clocks may be wrong."""
        return sorted(self.folder.glob("*.pt")) if self.folder else []

    def taken(self, path: Path) -> dict[str, Any] | None:
        """A file's state; None, and a line, where it is damaged or of something else."""
        state = read_state(path, {"key", "step"})
        if state is None:
            say(f"{path}: is damaged; {self.name} takes the one before, or starts anew")
        elif state["key"] != self.key:
            say(
                f"{path}: of other settings, inputs or code than {self.name} has now; "
                "discarded, it starts anew"
            )
            state = None
        return state

    def write(self, step: int, state: Mapping[str, Any]) -> bool:
        """Write one file; False, and a line, where the disk does not let."""
        path = self.folder / f"{step:012d}.pt"
        try:
            write_state(path, {"key": self.key, "step": step, **state})
            _sync(self.folder)
        except (OSError, RuntimeError) as error:
            # torch makes a RuntimeError of what the disk has said.
            cause = error if isinstance(error, OSError) else error.__context__ or error
            reason = str(cause).strip().splitlines()[0]
            say(f"warning: {path}: was not written ({reason}); {self.name} goes on without")
            return False
        return True

    def rotate(self) -> None:
        """Drop all but the newest."""
        for old in self.found()[:-KEPT]:
            old.unlink()


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write numbers, words, tensors, and lists and dicts of them, with their digest."""
    with atomic_file(path) as temporary:
        with open(temporary, "wb") as file:
            torch.save(dict(state), file)
        with open(temporary, "rb+") as file:
            file.write(hashlib.file_digest(file, "sha256").digest())


def read_state(path: Path, names: Set[str]) -> dict[str, Any] | None:
    """A state on the CPU, or None where the bytes are not those that were written.

    None as well of what has its digest but is no state with these ``names``: another release of
    torch, or somebody, has written it. Nothing in it is run.
    """
    content = path.read_bytes()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    # Torch fails on a damaged file in whatever way the damage leads to.
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception:
        return None
    return state if isinstance(state, dict) and names <= state.keys() else None


def say(line: str) -> None:
    print(f"hmdiff: {line}", file=sys.stderr)


def _sync(folder: Path) -> None:
    """Let the folder's entries reach the disk, a rename among them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
