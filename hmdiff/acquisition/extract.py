"""Safe unpacking: regular files below one folder, no more than was reckoned with, nothing else."""

from __future__ import annotations

import errno
import gzip
import lzma
import shutil
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
        tarfile.open(fileobj=stream, mode="r|") as file,
    ):
        for member in file:
            total, count = total + member.size, count + 1
            _check_amount(archive, total, count, limit)
            if not (member.isreg() or member.isdir()):
                raise _refused(archive, member.name, "is a link or a device")
            if member.issparse():  # says nothing of what it takes in the archive
                raise _refused(archive, member.name, "has holes")
            place = _place(archive, folder, member.name)
            source = file.extractfile(member)
            if place is not None and source is not None:
                _copy(source, place)
            bar.update(member.size)
        while stream.read(CHUNK):  # to the checksum at the end
            pass


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
        raise UserError(
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
        zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError,
        NotImplementedError, ValueError, NotADirectoryError, IsADirectoryError, FileExistsError,
        lzma.LZMAError,
    )  # fmt: skip
    try:
        yield
    except (*damage, OSError) as error:
        # A place that is not in the file, a name that no disk takes, or a stream that is none.
        told = (None, errno.EINVAL, errno.ENAMETOOLONG)
        if not isinstance(error, damage) and error.errno not in told:
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"{archive}: cut or damaged ({reason}); delete it and fetch it again"
        ) from None
