"""The command that rehearses a preset."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import app, option

Precision = StrEnum("Precision", ["bf16", "fp32"])


@app.command()
def check(
    preset: str,
    work: Annotated[
        Path | None, option("New folder for the check, which is kept; else a temporary one.")
    ] = None,
    precision: Annotated[
        Precision | None, option("bf16 or fp32; by default fp32 where there is no GPU.")
    ] = None,
) -> None:
    """Run two steps of every training of a preset at full size, on a few rendered images."""
    from hmdiff.compute import resolve_device
    from hmdiff.preset_check import Passed, check_preset

    device = resolve_device("auto").type
    kind = precision.value if precision else ("fp32" if device == "cpu" else "bf16")

    def report(done: Passed) -> None:
        typer.echo(f"ok  {done.stage:<32} {done.seconds:7.1f} s {done.peak:6.2f} GB  {done.said}")

    typer.echo(
        f"{preset} on {device} in {kind}: time, peak of main memory, last line of each stage"
    )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = work or Path(tempfile.mkdtemp(prefix="hmdiff-check-"))
    try:
        check_preset(preset, Path.cwd(), folder, kind, report)
    except Exception:
        work = folder  # what fails leaves its logs
        raise
    finally:
        if work is None:
            shutil.rmtree(folder)
    typer.echo(f"{preset}: every training ran two steps, and one evaluation went through")
