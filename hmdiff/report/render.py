"""The page as HTML: one file that needs nothing else, no server, no network and no script."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hmdiff.report.contents import Contents
from hmdiff.tables.paper import Column, dataset_title

TEMPLATE = "page.html.j2"


def to_html(contents: Contents) -> str:
    """The whole page. What comes from files is escaped; the same contents give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"title_of": dataset_title, "signed": signed}
    return environment.get_template(TEMPLATE).render(page=contents)


def signed(value: float | None, column: Column) -> str:
    """A difference as precise as its column; a dash where there is none."""
    return "-" if value is None else f"{value:+.{column.decimals}f}"
