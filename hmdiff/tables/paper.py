"""The paper's tables as records, and which of their rows are measured here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ruamel.yaml import YAML


@dataclass(frozen=True)
class Column:
    """A column of numbers: how the paper heads it, and what it holds."""

    header: str
    metric: str
    dataset: str
    unit: str
    decimals: int

    @property
    def source(self) -> str:
        """The key in a row's layout: an evaluation of the data set, or the timings."""
        return "speed" if self.metric == "FPS" else self.dataset


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        rows: name -> one number a column, None where the paper has a dash.
        measured: row -> {data set: evaluation, or "speed": timing}; in the order of the table,
            rows that the paper lacks last.
    """

    number: int
    caption: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[float | None, ...]]
    measured: dict[str, dict[str, str]]

    @property
    def row_names(self) -> list[str]:
        """The paper's rows in its order, then ours."""
        return [*self.rows, *(row for row in self.measured if row not in self.rows)]

    def evaluations(self) -> list[str]:
        """Names of the evaluations that the table needs."""
        parts = (sources.items() for sources in self.measured.values())
        return [name for items in parts for source, name in items if source != "speed"]


def paper_table(number: int) -> PaperTable:
    """Table ``number`` (1 to 6) with its layout."""
    raw = _read("paper.yaml")["tables"][number]
    return PaperTable(
        number=number,
        caption=raw["caption"],
        columns=tuple(Column(**column) for column in raw["columns"]),
        rows={name: tuple(values) for name, values in raw["rows"].items()},
        measured=layout(number),
    )


def layout(number: int) -> dict[str, Any]:
    """What layout.yaml says of the rows of a table."""
    return _read("layout.yaml")[number]


def dataset_title(dataset: str) -> str:
    """The data set's name in print."""
    return _read("paper.yaml")["datasets"][dataset]


def citation() -> str:
    """What the quoted numbers are quoted from."""
    return _read("paper.yaml")["citation"]


@cache
def _read(name: str) -> dict[Any, Any]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return YAML(typ="safe").load(text)
