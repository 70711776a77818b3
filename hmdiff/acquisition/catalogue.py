"""The catalogue of real data sets and models (catalogue.yaml), checked."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML

from hmdiff.errors import UserError

FILE = Path(__file__).with_name("catalogue.yaml")
LICENSED, DOWNLOADS = Path("data/licensed"), Path("data/downloads")
# Lies in a data set's folder while an archive is being put in place, and holds the archive's name.
CUT = ".incomplete"

Address = Annotated[str, Field(pattern=r"^https?://\S+$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Archive(_Record):
    """A file that may be downloaded directly."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+\.(zip|tar\.gz)$")]
    url: Address
    size: Annotated[int, Field(gt=0)] | None  # bytes
    exact: bool  # whether ``size`` is that of the file, or only about that
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    into: str = "."  # folder of the data set in which its content belongs
    provides: Annotated[tuple[str, ...], Field(min_length=1)]  # globs below ``into``

    @property
    def globs(self) -> list[str]:
        """``provides`` without braces, still below the folder ``into``."""
        return [glob for text in self.provides for glob in expand(text)]


class ByHand(_Record):
    """Files that the user places."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]  # globs below the data set's folder
    source: str  # where they come from, in words

    @property
    def globs(self) -> list[str]:
        """``files`` without braces."""
        return [glob for text in self.files for glob in expand(text)]


class Entry(_Record):
    """A data set, a model of the body or the hand, or the weights of a network."""

    title: str
    kind: Literal["dataset", "model", "weights"]
    page: Address
    licence: Address | None
    terms: str
    access: Literal["direct", "licence", "account", "open"]
    archives: tuple[Archive, ...]
    by_hand: tuple[ByHand, ...]
    citation: str

    @model_validator(mode="after")
    def _reachable(self) -> Entry:
        if (self.access in ("account", "open")) == bool(self.archives):
            raise ValueError("archives are for what may be downloaded without an account, directly")
        return self

    @property
    def required(self) -> list[str]:
        """What a placed copy must hold: globs, or ``"A or B"`` where either will do."""
        return [*self.from_archives, *(glob for part in self.by_hand for glob in part.globs)]

    @property
    def from_archives(self) -> list[str]:
        """The required parts that the archives provide."""
        return [
            str(PurePosixPath(archive.into, glob))
            for archive in self.archives
            for glob in archive.globs
        ]

    def lacking(self, folder: Path) -> list[str]:
        """The required parts that are not in ``folder``, in the catalogue's order."""
        lost = [text for text in self.required if not found(folder, text)]
        cut = folder / CUT
        if cut.is_file():
            lost.insert(0, f"all of {cut.read_text().strip()} (unpacking it was interrupted)")
        return lost


def expand(text: str) -> list[str]:
    """``"a{1,2}"`` as ``["a1", "a2"]``; on both sides of ``" or "`` in step."""
    return [" or ".join(parts) for parts in zip(*map(_braces, text.split(" or ")), strict=True)]


def _braces(text: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [whole for part in match[1].split(",") for whole in _braces(before + part + after)]


def found(folder: Path, text: str) -> bool:
    """Whether ``folder`` holds a match of the glob, or of one of the globs joined by " or "."""
    return any(next(folder.glob(glob), None) is not None for glob in text.split(" or "))


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by its name, in the file's order."""
    raw = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in raw.items()}


def find(name: str) -> Entry:
    """The entry of that name.

    Raises:
        UserError: there is none.
    """
    if name not in catalogue():
        raise UserError(f"{name}: not in the catalogue; one of {', '.join(catalogue())}")
    return catalogue()[name]
