"""The typer application that every module of commands adds its own to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="HMDiff as a reproducible pipeline. `dvc repro` or `snakemake --cores 8` call these.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameters.")]
PARAMS = Path("params.yaml")


def option(text: str) -> Any:
    """An option that ``--help`` explains by ``text``."""
    return typer.Option(help=text)
