"""Commands about size: what one image costs, whether work grows with the data, what a run costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import app, option


@app.command()
def units(
    out: Annotated[Path, option("Records (JSON); a CSV beside it.")],
    device: Annotated[str, option("What torch calls it; auto: CUDA where there is one.")] = "auto",
    preset: Annotated[str, option("Whose sizes are measured.")] = "paper",
    repeats: Annotated[int, typer.Option(min=1, help="Of everything; medians count.")] = 3,
) -> None:
    """Measure what one image and one sample cost on this device, with random weights and data."""
    from hmdiff.benchmarks.units import measure

    measure(out, device, preset, repeats)
