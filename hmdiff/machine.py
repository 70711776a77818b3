"""Measured figures as records, with the machine and the code that gave them."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmdiff.files import atomic_file, write_json

FIELDS = ("name", "value", "unit", "ratio_to", "n", "low", "high", "machine", "commit")


def record(
    name: str, values: float | Sequence[float], unit: str, ratio_to: str | None = None
) -> dict[str, Any]:
    """The median of repeated ``values`` with the least and the greatest of them.

    ``ratio_to`` names the record by whose values, repeat by repeat, they were divided.
    """
    values = [values] if isinstance(values, int | float) else list(values)
    return {
        "name": name,
        "value": statistics.median(values),
        "unit": unit,
        "ratio_to": ratio_to,
        "n": len(values),
        "low": min(values),
        "high": max(values),
        "machine": this_machine(),
        "commit": current_commit(),
    }


def describe(out: Path, records: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Print ``records`` and write them, with ``facts``, to ``out`` (JSON) and a CSV beside it."""
    show(records)
    keep(out, records, **facts)


def show(records: Sequence[dict[str, Any]]) -> None:
    """Print ``records``, a line each."""
    for row in records:
        spread = f"  [{row['low']:.4g}, {row['high']:.4g}]" if row["n"] > 1 else ""
        print(f"{row['name']:36} {row['value']:10.4g} {row['unit']}{spread}", flush=True)


def keep(out: Path, records: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Write ``records`` with ``facts`` to ``out`` (JSON), and a CSV beside it."""
    write_json(out, {**facts, "records": list(records)})
    with (
        atomic_file(out.with_suffix(".csv")) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def this_machine() -> str:
    """Processor, number of cores and, where this process has one, the GPU, as far as the system
    tells."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    torch = sys.modules.get("torch")  # what has not loaded it has not used a GPU
    gpu = torch is not None and torch.cuda.is_available()
    return f"{name}, {os.cpu_count()} cores" + (f", {torch.cuda.get_device_name()}" if gpu else "")


def current_commit(folder: Path = Path()) -> str | None:
    """The short hash of git's HEAD; None outside a repository or without git.

    With ``-dirty`` where code or parameters differ from it. Results and dvc.lock do not count:
    they always differ while a pipeline runs.
    """
    try:
        head = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", "hmdiff", "params.yaml", "dvc.yaml")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
