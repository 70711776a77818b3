"""Commands about real data: what is here, what is missing, how to get it."""

from __future__ import annotations

from typing import Annotated

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app, option

data = typer.Typer(help="Real data sets and licensed models: what is here, and how to get it.")
app.add_typer(data, name="data")


@data.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    verify: Annotated[
        bool, option("Compare the checksums of the archives in data/downloads anew.")
    ] = False,
) -> None:
    """One line each: present, partial, missing or wrong checksum, and what to do."""
    import json
    from dataclasses import asdict

    from hmdiff.acquisition.status import statuses

    items = statuses(verify)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in items], indent=1))
    else:
        for item in items:
            typer.echo(f"{item.name:9}  {item.state:14}  {item.line}".rstrip())


@data.command()
def fetch(
    name: str,
    accept_licence: Annotated[bool, option("You have read its licence and accept it.")] = False,
) -> None:
    """Download, check and unpack what may be; say what must be placed by hand, and check that."""
    from hmdiff.acquisition.fetch import fetch as run

    run(name, accept_licence)


@data.command()
def missing(params: ParamsFile = PARAMS) -> None:
    """What params.yaml needs for `acquire.source: real` and is not here; exit code 2 if any."""
    from hmdiff.acquisition.status import missing as find_missing
    from hmdiff.errors import UserError

    lines = find_missing(params)
    for line in lines:
        typer.echo(line)
    if lines:
        raise UserError(f"{params}: acquire.source is real, but {len(lines)} of what it needs "
                        "are not complete; do what the lines above say")  # fmt: skip
