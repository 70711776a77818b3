"""The command that compares a rebuild with what is committed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import app, option


@app.command()
def verify(
    rebuilt: Annotated[
        Path | None, option("A rebuilt copy of the project; else one is made and run first.")
    ] = None,
    exact: Annotated[
        bool, option("Fail where content differs, as it may on another processor only.")
    ] = False,
    cache: Annotated[bool, option("Only check the files of DVC's cache against their names.")] = (
        False
    ),
) -> None:
    """Rebuild all results from an empty cache and compare them with the committed dvc.lock."""
    from hmdiff.verify import compare, damaged_objects, rebuild

    if cache:
        damaged = damaged_objects(Path(".dvc/cache"))
        for path in damaged:
            typer.echo(f"damaged: {path}; delete it and run `dvc repro`")
        typer.echo(f"{len(damaged)} damaged files in DVC's cache")
        raise typer.Exit(bool(damaged))
    with tempfile.TemporaryDirectory(prefix="hmdiff-verify-") as work:
        if rebuilt is None:
            rebuilt = Path(work, "project")
            rebuild(Path.cwd(), rebuilt)
        verdict = compare(Path.cwd(), rebuilt)
    for line in verdict.lines():
        typer.echo(line)
    raise typer.Exit(not verdict.close or (exact and not verdict.exact))
