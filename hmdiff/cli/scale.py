"""Commands about size: what one image costs, whether work grows with the data, what a run costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app, option


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


@app.command()
def scale(
    work: Annotated[
        Path, option("Folder for up to 15 GB; what was measured stays there and is not done again.")
    ],
    out: Annotated[Path, option("Records (JSON); a CSV and an SVG beside it.")] = Path(
        "results/scale.json"
    ),
    models: Annotated[Path, option("Folder of body model and mesh sampling.")] = Path("models"),
    size: Annotated[
        list[int] | None, typer.Option(min=1000, help="Records; may be given several times.")
    ] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Measure time and memory of preparation, features, loader and scoring to 400,000 records."""
    from hmdiff.benchmarks.scale import SIZES, measure

    measure(out, models, params, work, size or SIZES)


@app.command()
def budget(
    units: Annotated[list[Path], option("Unit costs; a row of the table for each of them.")],
    out: Annotated[Path, option("The table (JSON); a CSV beside it.")] = Path(
        "results/paper_cost.json"
    ),
    readers: Annotated[Path, option("Of `hmdiff bench --only readers`.")] = Path(
        "results/readers.json"
    ),
    growth: Annotated[Path, option("Of `hmdiff scale`.")] = Path("results/scale.json"),
    preset: Annotated[str, option("What is to be run.")] = "paper",
    assumptions: Annotated[
        Path | None, option("In place of hmdiff/budget/assumptions.yaml.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of one GPU.")] = None,
    efficiency: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Of a job over several GPUs.")
    ] = None,
) -> None:
    """Write the expected disk, hours and cost of a preset on 1, 8 and 64 GPUs."""
    from hmdiff.budget.assumptions import ASSUMPTIONS
    from hmdiff.budget.table import write_table

    changes = {"price": price, "efficiency": efficiency}
    write_table(out, preset, units, readers, growth, assumptions or ASSUMPTIONS, changes)
