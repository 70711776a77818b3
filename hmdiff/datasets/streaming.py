"""JSON annotations of any size: read entry by entry, and joined through a database on disk.

Read whole, MuCo's or FreiHAND's lists would take tens of gigabytes as Python objects. Nothing here
holds more than one entry of a list, or one member of an object, in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ijson

from hmdiff.errors import UserError

_REMEDY = "the annotations are damaged or of another data set, put them back"


def entries(path: Path, key: str = "") -> Iterator[Any]:
    """The entries of the list ``key`` of the object in a JSON file, or of the list that it is.

    Raises:
        UserError: no such file, not valid JSON, or no such list.
    """
    prefix = f"{key}.item" if key else "item"
    yield from _stream(path, ijson.items, prefix, (key, "start_array"))


def members(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and value of each member of the object in a JSON file.

    Raises:
        UserError: no such file, not valid JSON, or no object.
    """
    yield from _stream(path, ijson.kvitems, "", ("", "start_map"))


def _stream(path: Path, read: Any, prefix: str, opening: tuple[str, str]) -> Iterator[Any]:
    empty = True
    try:
        with open(path, "rb") as file:
            for value in read(file, prefix, use_float=True):
                empty = False
                yield value
            if empty:  # nothing in it, or nothing of this name
                file.seek(0)
                events = ijson.parse(file, use_float=True)
                if opening not in ((name, event) for name, event, _ in events):
                    what = "an object" if opening[1] == "start_map" else "a list"
                    name = f"{opening[0]}: " if opening[0] else ""
                    raise UserError(f"{path}: {name}not {what}; {_REMEDY}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put back the annotations") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: not valid JSON ({reason}); {_REMEDY}") from None


class Index:
    """JSON values by key, in a nameless database on disk that goes away with the object.

    SQLite puts it into TMPDIR and keeps a few megabytes of it in memory.

    Args:
        path: the file that the values are from, for the errors.
    """

    def __init__(self, path: Path, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        self._path = path
        self._database = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8192"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT)")
        self._database.execute("BEGIN")  # of one transaction that nobody needs to be kept
        for key, value in pairs:
            self.put(key, value)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, key: Any, value: Any) -> None:
        """Keep ``value`` under ``str(key)``, in place of what was there.

        Raises:
            UserError: the disk is full, or the value is nested endlessly.
        """
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO entries VALUES (?, ?)", (str(key), json.dumps(value))
            )
        except RecursionError:
            raise UserError(f"{self._path}: {key} is nested endlessly; {_REMEDY}") from None
        except sqlite3.OperationalError as error:
            raise UserError(
                f"TMPDIR: the index of the annotations cannot be written ({error}); make room there"
            ) from None

    def get(self, key: Any) -> Any:
        """The value under ``str(key)``, or None."""
        row = self._database.execute(
            "SELECT value FROM entries WHERE key = ?", (str(key),)
        ).fetchone()
        return None if row is None else json.loads(row[0])
