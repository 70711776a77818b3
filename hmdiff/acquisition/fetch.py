"""``hmdiff data fetch``: download, check, unpack and put in place what the catalogue allows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hmdiff.acquisition.catalogue import CUT, DOWNLOADS, LICENSED, Archive, Entry, find, found
from hmdiff.acquisition.checksums import forget, verify
from hmdiff.acquisition.download import download, is_web_page
from hmdiff.acquisition.extract import unpack
from hmdiff.errors import UserError
from hmdiff.files import write_text

OURS = "README.md"  # tracked by git; an archive's own does not replace it
DATA = {".json", ".pkl", ".npy", ".txt", ".safetensors"}  # whose first bytes are looked at


def fetch(name: str, accept_licence: bool = False) -> None:
    """Complete ``data/licensed/NAME``.

    Archives are kept in ``data/downloads/NAME`` (one that a user puts there is taken as it is) and
    may be deleted afterwards. What must be placed by hand is named, and looked at once it is there.

    Raises:
        UserError: the licence is not accepted, something could not be had, is damaged, or must be
            placed by hand first.
    """
    entry = find(name)
    home, store = LICENSED / name, DOWNLOADS / name
    for folder in (home, store):
        _make(folder)
    with _alone(name, store):
        for leftover in home.parent.glob(f".{name}-*.partial"):
            shutil.rmtree(leftover)
        todo = [archive for archive in entry.archives if not _done(archive, home)]
        absent = [archive for archive in todo if not (store / archive.name).is_file()]
        if absent and entry.access == "licence" and not accept_licence:
            raise UserError(
                f"{name}: read its licence, {entry.licence} ({entry.terms}), and if you accept it "
                f"run `hmdiff data fetch {name} --accept-licence`"
            )
        if absent:
            print(f"{entry.title}: {entry.terms}; {entry.licence or entry.page}")
        for archive in todo:
            path = store / archive.name
            if archive in absent:
                forget(path)
                download(archive, path, entry.page)
            verify(archive, path)
            _install(archive, path, home)
            print(f"{home}: has the content of {path}, which may be deleted now")
    lost = entry.lacking(home)
    if lost:
        print(instructions(entry, home))
        raise UserError(
            f"{home}: lacks {lost[0]}"
            + (f" and {len(lost) - 1} more" if lost[1:] else "")
            + "; place by hand what is listed above, then run the same command to check it"
        )
    _check_content(name, entry, home)
    print(f"{home}: complete")


def instructions(entry: Entry, home: Path) -> str:
    """What to place by hand in ``home``, less what is there, and where it comes from."""
    lines = [
        f"{entry.title}: {entry.terms}; {entry.licence or entry.page}",
        f"Place in {home}:",
    ]
    for part in entry.by_hand:
        lost = [glob for glob in part.globs if not found(home, glob)]
        lines += [f"  {glob}" for glob in lost] + ([f"    from {part.source}"] if lost else [])
    return "\n".join(lines)


def _done(archive: Archive, home: Path) -> bool:
    """Whether all that the archive provides is in place."""
    cut = home / CUT
    if cut.is_file() and cut.read_text().strip() == archive.name:
        return False
    return all(found(home / archive.into, glob) for glob in archive.globs)


def _install(archive: Archive, path: Path, home: Path) -> None:
    """Unpack into a temporary folder, then move everything into ``home`` under the mark CUT."""
    folder = Path(tempfile.mkdtemp(prefix=f".{home.name}-", suffix=".partial", dir=home.parent))
    try:
        unpack(path, folder)
        top = _top(archive, folder)
        if top is None:
            raise UserError(
                f"{path}: holds no {' or no '.join(archive.provides)}; another file, or its layout "
                f"has changed: unpack it by hand as {home / OURS} says"
            )
        write_text(home / CUT, archive.name)
        target = home / archive.into
        target.mkdir(parents=True, exist_ok=True)
        _merge(top, target)
        (home / CUT).unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _top(archive: Archive, folder: Path) -> Path | None:
    """The folder in which all that the archive provides lies: ``folder`` or a wrapper inside."""
    inside = sorted(path for path in folder.glob("*") if path.is_dir())
    for top in (folder, *inside):
        if all(found(top, glob) for glob in archive.globs):
            return top
    return None


def _merge(source: Path, target: Path) -> None:
    """Move the content of ``source`` into ``target``; folders that both have are joined."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.name == OURS and place.exists():
            continue
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        elif place.exists() and (entry.is_dir() or place.is_dir()):
            raise UserError(f"{place}: in the way of the archive's own; move it and fetch again")
        else:
            os.replace(entry, place)


def _check_content(name: str, entry: Entry, home: Path) -> None:
    """Look at what was placed: a model as a whole, of data the first bytes of the annotations."""
    if entry.kind == "model":
        from hmdiff.bodies.licensed import find_licensed, read_licensed
        from hmdiff.kinds import MODELS

        paths = find_licensed(home, MODELS[name])
        if paths:
            read_licensed(paths, MODELS[name])
        return
    globs = [glob for text in entry.required for glob in text.split(" or ")]
    for path in (path for glob in globs if Path(glob).suffix in DATA for path in home.glob(glob)):
        with path.open("rb") as file:
            head = file.read(64)
        if not head or is_web_page(head):
            raise UserError(
                f"{path}: {'empty' if not head else 'a web page, not the file itself'}; download "
                "it again in a browser"
            )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: a file is in the way of this folder; move it") from None


@contextmanager
def _alone(name: str, store: Path) -> Iterator[None]:
    """No two fetches of one data set at once."""
    try:
        with FileLock(store / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{name}: another fetch of it is running; wait for it") from None
