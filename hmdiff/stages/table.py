"""Stage ``tableN``: measured rows beside the paper's, as files, on the console and in MLflow."""

from __future__ import annotations

from pathlib import Path

from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.tables.build import build_table
from hmdiff.tables.render import to_text, write_table
from hmdiff.tables.runs import table_run
from hmdiff.tracking import log_run


def run(number: int, evaluations: Path, out: Path, speed: Path | None, params: Params) -> None:
    """Write ``out``/tableN.csv, .tex and .json, and log one run a measured row.

    Args:
        number: 1 to 6.
        evaluations: folder of the evaluations.
        speed: timings of the speed stage; Table 6 alone needs them.
    """
    table = build_table(number, evaluations, speed, params, current_commit())
    paths = write_table(table, out)
    log_run(f"table{number}", table_run(table, paths, params), table.paper.caption)
    print(to_text(table))
