"""Download of one file: resumed after a cut, bounded, and checked before it has its name."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, RequestException, Timeout
from tqdm import tqdm

from hmdiff.acquisition.catalogue import Archive
from hmdiff.errors import UserError
from hmdiff.files import read_json, write_json

TRIES = 8  # requests a call; the next call goes on where this one stopped
PAUSE = 0.5  # seconds before the second try, doubled before each further one
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
CHUNK = 1 << 16  # bytes; a cut loses what has come of one
BUSY = {429, 500, 502, 503, 504}
SLACK = 1.5  # a file may be this much larger than a size that is only approximate
MAGIC = {".zip": b"PK", ".gz": b"\x1f\x8b"}


class _TryAgainError(Exception):
    """The server is busy, or answered for another state of the file than the one begun."""


def download(archive: Archive, target: Path, page: str) -> None:
    """Download ``archive`` to the file ``target``, which appears only once it is complete.

    What a cut or a kill leaves is ``target`` with ``.partial`` behind its name. The next try asks
    for the rest of it, on condition that the file on the server is the same still (If-Range with
    its ETag or date); otherwise it starts anew.

    Args:
        page: where a person finds the file, for the error messages.

    Raises:
        UserError: the server cannot be reached, has no such file, answers with a web page or with
            a file of another size or type, or the disk is too small.
    """
    partial = target.with_name(f"{target.name}.partial")
    note = target.with_name(f"{target.name}.partial.json")
    reason: Exception | None = None
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1))
        try:
            _transfer(archive, partial, note, page)
            break
        except (ChunkedEncodingError, ConnectionError, Timeout, _TryAgainError) as error:
            reason = error
        except RequestException as error:
            raise UserError(f"{archive.url}: {error}; {_elsewhere(target, page)}") from None
    else:
        raise UserError(
            f"{archive.url}: cut or busy {TRIES} times ({_short(reason)}); run the same command "
            "again, it goes on where it stopped"
        )
    _check_start(partial.open("rb").read(16), archive, page)
    os.replace(partial, target)
    note.unlink(missing_ok=True)


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins like this is HTML (or XML) in place of data."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"


def _transfer(archive: Archive, partial: Path, note: Path, page: str) -> None:
    """One request: bring ``partial`` nearer to the whole file, or raise."""
    have, begun = _begun(archive, partial, note)
    if have and have == begun["total"]:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "hmdiff"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": begun["validator"]}
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code in BUSY:
            raise _TryAgainError(f"HTTP {response.status_code}")
        if response.status_code == 416 or (response.status_code == 206 and not have):
            partial.unlink(missing_ok=True)
            raise _TryAgainError(f"HTTP {response.status_code}")
        if response.status_code not in (200, 206):
            raise UserError(
                f"{archive.url}: HTTP {response.status_code} {response.reason}; "
                f"{_elsewhere(partial.with_suffix(''), page)}"
            )
        if "html" in response.headers.get("Content-Type", ""):
            raise _not_data(archive, page)
        have, total = _place_of(response, have)
        if have is None:
            partial.unlink()
            raise _TryAgainError("another part of the file than the one asked for")
        _check_size(archive, total)
        _check_space(partial.parent, (total or archive.size or 0) - have)
        if not have:
            partial.unlink(missing_ok=True)  # before its facts change
            write_json(note, _facts(archive, response, total))
        _write(response, archive, partial, have, total, page)


def _begun(archive: Archive, partial: Path, note: Path) -> tuple[int, dict[str, Any]]:
    """Bytes that are here already and can be gone on from, and the facts noted with them."""
    try:
        facts = read_json(note)
        if facts["url"] == archive.url and facts["validator"]:
            return partial.stat().st_size, facts | {"total": facts.get("total")}
    except (OSError, UserError, KeyError, TypeError):
        pass
    return 0, {}


def _facts(archive: Archive, response: requests.Response, total: int | None) -> dict[str, Any]:
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    validator = strong or response.headers.get("Last-Modified")
    return {"url": archive.url, "validator": validator, "total": total}


def _place_of(response: requests.Response, have: int) -> tuple[int | None, int | None]:
    """Where the answer's first byte belongs (None: not where it was asked for), and the total."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    place, _, total = response.headers.get("Content-Range", "").rpartition("/")
    if not place.startswith(f"bytes {have}-"):
        return None, None
    return have, int(total) if total.isdigit() else None


def _write(
    response: requests.Response,
    archive: Archive,
    partial: Path,
    have: int,
    total: int | None,
    page: str,
) -> None:
    bar = tqdm(
        desc=archive.name, initial=have, total=total or archive.size, unit="B", unit_scale=True,
        disable=None,
    )  # fmt: skip
    with bar, partial.open("ab" if have else "wb") as file:
        for chunk in response.iter_content(CHUNK):
            if not have:
                _check_start(chunk, archive, page)
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
            _check_size(archive, have, final=False)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _TryAgainError(f"{have} of {total} bytes came")
    if total is None:
        _check_size(archive, have)


def _check_start(head: bytes, archive: Archive, page: str) -> None:
    if is_web_page(head) or not head.startswith(MAGIC[Path(archive.name).suffix]):
        raise _not_data(archive, page)


def _not_data(archive: Archive, page: str) -> UserError:
    return UserError(
        f"{archive.url}: answered with something else than {archive.name}, probably a web page; "
        f"it may have moved: look at {page}"
    )


def _check_size(archive: Archive, size: int | None, final: bool = True) -> None:
    if size is None or archive.size is None:
        return
    wrong = size != archive.size if final else size > archive.size
    if wrong if archive.exact else size > SLACK * archive.size:
        raise UserError(
            f"{archive.url}: {size} bytes where {archive.size} were expected; the publisher has "
            "changed the file, or it is another one"
        )


def _check_space(folder: Path, needed: int) -> None:
    """Raise a UserError where ``folder``'s disk has no room for ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; make "
            "room"
        )


def _elsewhere(target: Path, page: str) -> str:
    return f"find {target.name} from {page} and put it into {target.parent}"


def _short(error: Exception | None) -> str:
    return " ".join(str(error).split())[:120]
