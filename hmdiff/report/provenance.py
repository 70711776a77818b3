"""Where the data behind the numbers are from: what the prepared files say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import h5py

from hmdiff.acquisition.catalogue import catalogue
from hmdiff.errors import UserError
from hmdiff.rendering.backgrounds import CREDITS

LABELS = {"rendered": "rendered stand-ins", "real": "real images"}

FACTS = ("crop", "protocol", "ground_truth")


@dataclass(frozen=True)
class Provenance:
    """One prepared data set.

    Attributes:
        source: ``real`` or ``rendered``.
        counts: samples a split.
        facts: what else the file says, of FACTS.
        terms: citation and licence page of the real data set; empty for a stand-in.
    """

    name: str
    kind: str
    path: Path
    source: str
    counts: dict[str, int]
    facts: dict[str, str]
    terms: str


def provenance(prepared: Path) -> list[Provenance]:
    """One record a file of ``prepared``/KIND/DATASET.h5, by kind and name.

    Raises:
        UserError: there is none, or one is not a prepared file.
    """
    found = [_read(path) for path in sorted(prepared.glob("*/*.h5"))]
    if not found:
        raise UserError(f"{prepared}: no prepared data in it; run `dvc repro prepare@3dpw`")
    return found


def origin(sources: Collection[str]) -> str:
    """``rendered stand-ins``, ``real images`` or both, for captions."""
    return " and ".join(LABELS[source] for source in sorted(set(sources), reverse=True))


def credits_of(data: Collection[Provenance]) -> list[str]:
    """Authors of the photographs inside rendered pictures; empty where none is rendered."""
    return list(CREDITS.values()) if any(part.source == "rendered" for part in data) else []


def _read(path: Path) -> Provenance:
    try:
        with h5py.File(path) as file:
            attrs = dict(file.attrs)
            names = [str(name) for name in attrs["splits"]]
            count = Counter(names[index] for index in file["split"][:].tolist())
            name, source = str(attrs["dataset"]), str(attrs["source"])
            return Provenance(
                name=name,
                kind=str(attrs["kind"]),
                path=path,
                source=source,
                counts={split: count[split] for split in names},
                facts={key: str(attrs[key]) for key in FACTS if key in attrs},
                terms=_terms(name) if source == "real" else "",
            )
    except (OSError, KeyError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a prepared file ({reason}); run its prepare stage") from None


def _terms(name: str) -> str:
    entry = catalogue().get(name)
    return f"{entry.citation} ({entry.licence or entry.page})" if entry else ""
