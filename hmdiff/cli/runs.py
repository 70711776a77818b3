"""Commands about recorded runs."""

from __future__ import annotations

from typing import Annotated

import typer

from hmdiff.cli.app import app, option


@app.command()
def runs(
    experiment: Annotated[str, option("table1 to table7, figures or training.")] = "table1",
    sort: Annotated[str | None, option("A metric; best first.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest runs that are looked at.")] = 50,
) -> None:
    """Print a leader board of what MLflow has recorded: rows of a table, or trainings.

    What was recorded again with the same result is shown once, as of the newest.
    """
    from hmdiff.leaderboard import leaderboard, to_text

    typer.echo(to_text(leaderboard(experiment, sort, limit)))
