"""Commands that change params.yaml."""

from __future__ import annotations

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app


@app.command()
def preset(name: str, params: ParamsFile = PARAMS) -> None:
    """Write a preset's values (presets/NAME.yaml) into params.yaml; its comments stay."""
    from hmdiff.presets import apply_preset

    changed = apply_preset(name, params)
    typer.echo(f"{params}: preset {name}, {changed} values changed")
