"""Stage ``table7``: spread of the chains and error (ours), as files, on the console, in MLflow."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.tables.runs import uncertainty_run
from hmdiff.tables.uncertainty import (
    CAPTION,
    NUMBER,
    build_uncertainty,
    frame,
    write_uncertainty,
)
from hmdiff.tracking import log_run


def run(evaluations: Path, out: Path, params: Params) -> None:
    """Write ``out``/table7.csv, .tex and .json from the folder of the evaluations; log its rows."""
    table = build_uncertainty(evaluations, params, current_commit())
    paths = write_uncertainty(table, out)
    log_run(f"table{NUMBER}", uncertainty_run(table, paths, params), CAPTION)
    shown = frame(table, joints=False)
    body = tabulate(shown.values.tolist(), list(shown.columns), disable_numparse=True)
    print("\n".join([f"Table {NUMBER}. {CAPTION}", "", body, "", *table.notices]))
