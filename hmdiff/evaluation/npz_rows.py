"""Rows of large arrays in an .npz, read when they are asked for, so that memory stays bounded."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from hmdiff.errors import UserError
from hmdiff.files import ARRAY_DAMAGE

_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name; ends in two lengths
_NUMBERS = "fiu"  # dtype kinds


def system_failed(error: Exception) -> bool:
    """Whether the disk or a right is at fault, and not what the file says."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


@contextmanager
def _damage_as(line: Callable[[Exception], str]) -> Iterator[None]:
    """A UserError of ``line``, given the cause, where the file is damaged."""
    try:
        yield
    except ARRAY_DAMAGE as error:
        if system_failed(error):
            raise
        raise UserError(line(error)) from None


class NpzRows:
    """An .npz file whose arrays are read by rows.

    A member that ``np.savez`` stored is read where it lies. One that ``np.savez_compressed`` wrote
    is unpacked to an unnamed temporary file first (in $TMPDIR, as large as the array).

    Raises:
        UserError: the file is missing, cut, or no .npz.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: list[IO[bytes]] = []
        if not path.exists():
            raise UserError(f"{path}: no such file; name an .npz of vertices in metres")
        with (
            _damage_as(lambda _: f"{path}: is cut or no .npz; write it again with np.savez"),
            zipfile.ZipFile(path) as archive,
        ):
            self._members = {info.filename: info for info in archive.infolist()}

    def __enter__(self) -> NpzRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._members

    def array(self, name: str) -> np.ndarray:
        """The whole of a small array.

        Raises:
            UserError: there is none, or it is damaged or a pickled object.
        """
        if name not in self:
            raise self._missing(name)
        with (
            _damage_as(lambda cause: f"{self.path}: {name}: {cause}; save plain numbers or text"),
            np.load(self.path, allow_pickle=False) as content,
        ):
            return content[name]

    def rows(self, name: str, shape: tuple[int, ...]) -> Rows:
        """The numeric array ``name``, whose rows must have ``shape``.

        Raises:
            UserError: there is none, or its shape or type is another.
        """
        if name not in self:
            raise self._missing(name)
        info = self._members[f"{name}.npy"]
        with _damage_as(
            lambda cause: f"{self.path}: {name}: {cause}; write it again with np.savez"
        ):
            file, start = self._stored(info) if _is_stored(info) else self._unpacked(info)
            self._files.append(file)
            file.seek(start)
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            found, fortran, dtype = read(file)
        if dtype.kind not in _NUMBERS or len(found) < 2 or found[1:] != shape:
            wanted = ", ".join(["n", *map(str, shape)])
            raise UserError(
                f"{self.path}: {name}: {dtype} of shape {found}, not numbers of shape ({wanted}); "
                "save them as such"
            )
        if fortran:
            raise UserError(
                f"{self.path}: {name}: in Fortran order; save np.ascontiguousarray of it"
            )
        numbers = math.prod(found) * dtype.itemsize
        size = os.fstat(file.fileno()).st_size
        if file.tell() - start + numbers != info.file_size or file.tell() + numbers > size:
            raise UserError(f"{self.path}: {name}: is cut; write it again with np.savez")
        return Rows(file, file.tell(), found, dtype)

    def _stored(self, info: zipfile.ZipInfo) -> tuple[IO[bytes], int]:
        file = open(self.path, "rb")  # noqa: SIM115, closed with self
        file.seek(info.header_offset + _LOCAL_HEADER - 4)
        lengths = file.read(4)
        name, extra = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        return file, info.header_offset + _LOCAL_HEADER + name + extra

    def _unpacked(self, info: zipfile.ZipInfo) -> tuple[IO[bytes], int]:
        file = tempfile.TemporaryFile()  # noqa: SIM115, closed with self
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
                shutil.copyfileobj(member, file, 2**22)
        except ARRAY_DAMAGE:
            file.close()
            raise
        file.flush()
        return file, 0

    def _missing(self, name: str) -> UserError:
        known = ", ".join(member.removesuffix(".npy") for member in self._members) or "nothing"
        return UserError(f"{self.path}: {name}: missing; the file holds {known}")


class Rows:
    """Rows of one array on disk: ``rows[indices]`` reads them, in any order.

    Attributes:
        shape: of the whole array.
    """

    def __init__(
        self, file: IO[bytes], start: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.shape = shape
        self._descriptor, self._start, self._dtype = file.fileno(), start, dtype
        self._size = int(np.prod(shape[1:])) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Rows ``indices`` (k,) as (k, ...), of the stored type. Threads may read side by side."""
        found = np.empty((len(indices), *self.shape[1:]), self._dtype)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        done = 0
        for run in np.split(np.asarray(indices), breaks):
            data = os.pread(
                self._descriptor, len(run) * self._size, self._start + int(run[0]) * self._size
            )
            found[done : done + len(run)] = np.frombuffer(data, self._dtype).reshape(
                len(run), *self.shape[1:]
            )
            done += len(run)
        return found


def _is_stored(info: zipfile.ZipInfo) -> bool:
    return info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 0x1
