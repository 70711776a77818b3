"""Safe unpacking: regular files below one folder, no more than was reckoned with, nothing else."""

from __future__ import annotations

import errno
import gzip
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from hmdiff.errors import UserError

RATIO, FLOOR = 20, 1 << 26  # unpacked bytes: up to 20 times the archive's, or 64 MiB
MEMBERS = 2_000_000
CHUNK = 1 << 20
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# Of a tar's members: those whose content goes to a file, or that are refused before it is read.
HEADLESS = b"\x001234567"
# What a system says of names that are too long, or of a file below a file; None: gzip or bzip2.
NAMING = (
    None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
)  # fmt: skip
JUNK = "__MACOSX"  # added by macOS; nothing of the data


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar.gz file into ``folder``, an empty folder that the caller throws away
    when this raises.

    Raises:
        UserError: the archive is cut or damaged, or holds an absolute path, a ``..``, a link, a
            device, an encrypted file, or more than an honest archive of its size.
    """
    limit = max(FLOOR, RATIO * archive.stat().st_size)
    with _one_line(archive):
        if archive.suffix == ".zip":
            _unzip(archive, folder, limit)
        else:
            _untar(archive, folder, limit)


def _unzip(archive: Path, folder: Path, limit: int) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        total = sum(member.file_size for member in members)
        _check_amount(archive, total, len(members), limit)
        free = shutil.disk_usage(folder).free
        if total > free:
            raise UserError(
                f"{folder.parent}: {total / 1e9:.1f} GB unpacked and {free / 1e9:.1f} GB free; "
                "make room"
            )
        with _bar(archive, total) as bar:
            for member in members:
                kind = member.external_attr >> 28  # S_IFMT of the mode that Unix stores; or 0
                if kind not in (0, 0o4, 0o10):
                    raise _refused(archive, member.filename, "is a link or a device")
                if member.compress_type not in COMPRESSIONS:
                    raise _refused(archive, member.filename, "is compressed in an unusual way")
                if member.flag_bits & 1:
                    raise _refused(archive, member.filename, "is encrypted")
                place = _place(archive, folder, member.filename)
                if place is not None and not member.is_dir():
                    with file.open(member) as source:
                        _copy(source, place)
                bar.update(member.file_size)


def _untar(archive: Path, folder: Path, limit: int) -> None:
    total = count = 0
    with (
        _bar(archive, None) as bar,
        gzip.open(archive) as stream,
        tarfile.open(fileobj=_Counted(stream, archive, limit), mode="r|", tarinfo=_Header) as file,
    ):
        for member in file:
            total, count = total + member.size, count + 1
            _check_amount(archive, total, count, limit)
            if not (member.isreg() or member.isdir()):
                raise _refused(archive, member.name, "is a link or a device")
            place = _place(archive, folder, member.name)
            source = file.extractfile(member)
            if place is not None and source is not None:
                _copy(source, place)
            bar.update(member.size)
        while stream.read(CHUNK):  # to the checksum at the end
            pass


class _Header(tarfile.TarInfo):
    """A member's header; long names and extended headers are read to memory, hence small ones."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type not in HEADLESS and header.size > CHUNK):
            raise tarfile.TarError(f"a header of {header.size} bytes")
        return header


class _Counted:
    """A stream that ends the unpacking after twice ``limit`` bytes (headers are bytes too)."""

    def __init__(self, stream: IO[bytes], archive: Path, limit: int) -> None:
        self._stream, self._archive, self._limit, self._left = stream, archive, limit, 2 * limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much(self._archive, self._limit)
        return data


def _place(archive: Path, folder: Path, name: str) -> Path | None:
    """Where the member ``name`` goes; None: nowhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise _refused(archive, name, "leads out of the folder")
    return None if not path.parts or path.parts[0] == JUNK else folder / path


def _copy(source: IO[bytes], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)


def _check_amount(archive: Path, total: int, count: int, limit: int) -> None:
    if total > limit or count > MEMBERS:
        raise _too_much(archive, limit)


def _too_much(archive: Path, limit: int) -> UserError:
    return UserError(
        f"{archive}: unpacks to more than {limit / 1e9:.1f} GB or {MEMBERS} files, which no "
        "honest archive of its size does; look at it by hand"
    )


def _refused(archive: Path, name: str, why: str) -> UserError:
    return UserError(f"{archive}: {name!r} {why}; nothing was unpacked, look at it by hand")


def _bar(archive: Path, total: int | None) -> tqdm:
    return tqdm(desc=archive.name, total=total, unit="B", unit_scale=True, disable=None)


@contextmanager
def _one_line(archive: Path) -> Iterator[None]:
    """Whatever damage does to the libraries, as one line."""
    damage = (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, RuntimeError,
        ValueError, OverflowError, IndexError, MemoryError, OSError,
    )  # fmt: skip
    try:
        yield
    except damage as error:
        if isinstance(error, OSError) and error.errno not in NAMING:
            raise  # the disk's
        reason = " ".join(str(error).split())
        raise UserError(
            f"{archive}: cut or damaged ({reason}); delete it and fetch it again"
        ) from None
