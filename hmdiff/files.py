"""Atomic writes and content hashes: nothing half-written ever looks finished."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import lzma
import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmdiff.errors import UserError

# What zipfile and numpy raise of an .npz or .npy that was cut, altered or is something else.
# Numpy reads the head of an array as Python's own text.
ARRAY_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError, OSError,
    ValueError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError, SyntaxError,
    IndexError, KeyError,
)  # fmt: skip

_REST = 2**20


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it into place.

    The temporary name ends in ``.partial``, so that what a killed process leaves is never taken
    for an output. On an exception it is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``; on success it replaces ``path`` whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".partial", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where both lie on one file system that has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def remove_partial(path: str | Path) -> None:
    """Remove what killed writers of ``path`` have left; only for who is alone at it."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}-*.partial"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def require_room(folder: str | Path, size: int = 0) -> None:
    """Raise the system's own OSError where ``folder`` has no room for ``size`` bytes and 1 MiB.

    To be asked before HDF5 writes them: it cannot close a file on a disk that has filled up, and
    takes the whole process with it. The rest is for its own tables and for small arrays. Quotas
    count as well, since the room is taken for a moment.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size + _REST)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(error.errno, error.strerror, str(folder)) from None


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or broken file is a :class:`UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it") from None
    except (ValueError, RecursionError) as error:  # of no JSON, no text, or thousands of brackets
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run its stage") from None


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_file(package: str, name: str) -> Path | None:
    """Where the file ``name`` of an installed package lies, or would; None: it is not installed.

    The package is read as data: nothing of it is imported.
    """
    import importlib.metadata  # here, because the command line need not wait for it

    try:
        return Path(str(importlib.metadata.distribution(package).locate_file(name)))
    except importlib.metadata.PackageNotFoundError:
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
