"""The table of disk, hours and cost."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from hmdiff.acquisition.catalogue import catalogue
from hmdiff.budget.assumptions import ASSUMPTIONS, Assumptions, read_assumptions
from hmdiff.budget.jobs import disk, jobs
from hmdiff.budget.measured import CPUCosts, Units, read_cpu_costs, read_units
from hmdiff.budget.schedule import side_by_side, split
from hmdiff.files import atomic_file, write_json
from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.presets import preset_params

HOUR = 3600


def rows(
    params: Params, units: Units, cpu: CPUCosts, given: Assumptions, archives: float
) -> list[dict[str, Any]]:
    """One row of the table for each number of GPUs; see :mod:`hmdiff.budget`."""
    work = jobs(params, units, cpu, given)
    download = archives / (given.megabytes_per_second * 1e6)
    price = given.price.cpu if units.device == "cpu" else given.price.gpu
    used = sum(disk(params, cpu, given, archives).values())
    found = []
    for gpus in given.gpus:
        times = {
            "a job each": side_by_side(work, gpus, given.prepare_at_once),
            "jobs split": split(work, gpus, given.efficiency, given.prepare_at_once),
        }
        row: dict[str, Any] = {"device": units.device, "devices": gpus, "disk (GB)": round(used)}
        row["device hours of work"] = round(sum(job.gpu for job in work) / HOUR, 1)
        for name, seconds in times.items():
            hours = (download + seconds) / HOUR
            row[f"hours, {name}"] = round(hours, 1)
            row[f"{given.currency}, {name}"] = round(hours * gpus * price)
        found.append(row)
    return found


def write_table(
    out: Path,
    preset: str,
    units: Sequence[Path],
    readers: Path,
    scale: Path,
    assumptions: Path = ASSUMPTIONS,
    changes: Mapping[str, float | None] | None = None,
) -> None:
    """Write :func:`rows` of every file of ``units`` to ``out`` (JSON) with the jobs, and a CSV.

    Args:
        readers, scale: see :func:`read_cpu_costs`.
        changes: ``price`` of a GPU and ``efficiency``, in place of the assumed ones.

    Raises:
        UserError: a file is missing or damaged, or lacks what the preset needs.
    """
    given = read_assumptions(assumptions)
    changes = changes or {}
    if changes.get("price") is not None:
        price = given.price.model_copy(update={"gpu": changes["price"]})
        given = given.model_copy(update={"price": price})
    if changes.get("efficiency") is not None:
        given = given.model_copy(update={"efficiency": changes["efficiency"]})
    params, cpu = preset_params(preset), read_cpu_costs(readers, scale)
    archives = archive_bytes(params)
    table, work = [], {}
    for path in units:
        measured = read_units(path)
        table += rows(params, measured, cpu, given, archives)
        work[measured.device] = {
            job.name: {"gpu_hours": job.gpu / HOUR, "cpu_hours": job.cpu / HOUR}
            for job in jobs(params, measured, cpu, given)
        }
    facts = {
        "preset": preset,
        "assumptions": given.model_dump(mode="json"),
        "commit": current_commit(),
    }
    sources = {"units": [str(path) for path in units], "readers": str(readers), "scale": str(scale)}
    parts = disk(params, cpu, given, archives)
    write_json(out, {**facts, "sources": sources, "disk_gb": parts, "jobs": work, "rows": table})
    with (
        atomic_file(out.with_suffix(".csv")) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(tabulate(table, headers="keys", tablefmt="github"))


def archive_bytes(params: Params) -> float:
    """Bytes of the archives of the preset's data sets whose size their publishers tell."""
    entries = catalogue()
    return sum(archive.size or 0 for name in params.datasets for archive in entries[name].archives)
