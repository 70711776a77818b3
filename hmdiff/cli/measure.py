"""What the pipeline costs on this machine, measured and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app, option

# What a run leaves behind; .dvc/cache is hard-linked to the others where the file system can.
FOLDERS = (".venv", ".dvc", "data", "models", "runs", "mlruns")


@app.command()
def measure(
    command: Annotated[list[str], typer.Argument(help="A command, after --.")],
    out: Annotated[Path, option("Records (JSON).")],
) -> None:
    """Run a command; print and write its wall time, peak memory and the disk in use after it."""
    from hmdiff.machine import describe, record
    from hmdiff.resources import GIGABYTE, disk_bytes, run_measured

    cost = run_measured(command)
    if cost.code:
        raise typer.Exit(cost.code)
    records = [
        record("wall", cost.seconds / 60, "min"),
        record("cpu", cost.cpu_seconds / 60, "min"),
        record("peak memory", cost.peak_bytes / GIGABYTE, "GB"),
    ]
    for name in FOLDERS:
        if Path(name).is_dir():
            records.append(record(f"disk {name}", disk_bytes([Path(name)]) / GIGABYTE, "GB"))
    describe(out, records, command=" ".join(command))


@app.command()
def bench(
    out: Annotated[Path, option("Records (JSON); a CSV and an SVG beside it.")] = Path(
        "results/bench.json"
    ),
    only: Annotated[list[str] | None, option("A subject; may be given several times.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of everything; medians count.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    params: ParamsFile = PARAMS,
) -> None:
    """Measure what is fast and what is not, in one run and as ratios (needs `make tables`)."""
    from hmdiff.benchmarks.run import SUBJECTS, Sizes, run
    from hmdiff.errors import UserError
    from hmdiff.params import load_params

    unknown = [name for name in only or () if name not in SUBJECTS]
    if unknown:
        raise UserError(f"bench: no subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    run(out, load_params(params), only or list(SUBJECTS), Sizes(repeats=repeats, batch=batch))
