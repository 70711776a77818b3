"""Jobs that write files: each has a folder of its own, which is whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hmdiff.checkpoints.files import read_state, say, write_state
from hmdiff.files import atomic_directory, link_or_copy, sha256

Result = TypeVar("Result")

_FILES, _RECORD = "files", "record.pt"
_TYPE = "record of"  # the key under which a packed record has its type's name


@dataclass(frozen=True)
class Parts:
    """The finished jobs of one stage in ``folder``; any process may carry out any of them.

    Attributes:
        key: of :func:`hmdiff.checkpoints.identity.identity`.
        types: the dataclasses that the jobs' results are made of, beside arrays, numbers, words,
            and lists, tuples and dicts.
    """

    name: str
    folder: Path
    key: str
    types: tuple[type, ...]

    def make(self, number: int, work: Callable[[Path], Result]) -> Result:
        """``work(root)``, which writes files below ``root``; not done where it is done already."""
        record = self._sound(number, files=True)
        if record is not None:
            return _unpacked(record["result"], {kind.__name__: kind for kind in self.types})
        with atomic_directory(self._path(number)) as temporary:
            root = temporary / _FILES
            root.mkdir()
            result = work(root)
            hashes = {name: sha256(root / name) for name in _names(root)}
            state = {"key": self.key, "files": hashes, "result": _packed(result)}
            write_state(temporary / _RECORD, state)
        return result

    def look(self, count: int) -> None:
        """Drop what is of no use and say what there is of ``count`` jobs."""
        found = [number for number in range(count) if self._path(number).exists()]
        whole = [number for number in found if self._sound(number)]
        for number in set(found).difference(whole):
            shutil.rmtree(self._path(number))
        if len(whole) < len(found):
            say(
                f"{self.folder}: {len(found) - len(whole)} parts are damaged, or of other "
                f"settings, inputs or code than {self.name} has now; discarded"
            )
        if whole:
            say(f"{self.name}: goes on; {len(whole)} of {count} parts are there")

    def gather(self, count: int, root: Path) -> None:
        """Bring the files of all ``count`` jobs to ``root``. The parts stay: this may be killed."""
        for number in range(count):
            source = self._path(number) / _FILES
            for name in _names(source):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source / name, root / name)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _sound(self, number: int, files: bool = False) -> dict[str, Any] | None:
        """What a finished job left, or None; with ``files`` its files are looked at, too."""
        path = self._path(number)
        if not (path / _RECORD).is_file():
            return None
        record = read_state(path / _RECORD, {"key", "files", "result"})
        if record is None or record["key"] != self.key:
            return None
        root = path / _FILES
        if files and record["files"] != {name: sha256(root / name) for name in _names(root)}:
            return None
        return record


def _names(root: Path) -> Sequence[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def _packed(value: Any) -> Any:
    """``value`` as what a file of ours may hold."""
    if is_dataclass(value):
        parts = {field.name: _packed(getattr(value, field.name)) for field in fields(value)}
        return {_TYPE: type(value).__name__, **parts}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy(order="C"))
    if isinstance(value, dict):
        return {key: _packed(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_packed(part) for part in value)
    return value


def _unpacked(value: Any, types: dict[str, type]) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, dict):
        parts = {key: _unpacked(part, types) for key, part in value.items() if key != _TYPE}
        return types[value[_TYPE]](**parts) if _TYPE in value else parts
    if isinstance(value, list | tuple):
        return type(value)(_unpacked(part, types) for part in value)
    return value
