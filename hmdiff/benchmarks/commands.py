"""Seconds of what a user waits for at the prompt, with the processor time that it took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmdiff.machine import record

_MAKE_IS_READY = ("make", "--question", ".venv/.ready")
_DRY_RUN = ("snakemake", "-n", "--cores", "1", "--quiet", "rules", "all")


def commands() -> dict[str, Sequence[str]]:
    """What is measured here; left out is what would set up or run something, and not nothing."""
    found: dict[str, Sequence[str]] = {"hmdiff --help": ("hmdiff", "--help")}
    if not Path("dvc.yaml").is_file():
        return found
    found |= {"dvc status": ("dvc", "status"), "snakemake -n": _DRY_RUN}
    if "Nothing to be done" in _output(_DRY_RUN):
        found["no-op snakemake"] = ("snakemake", "--cores", "1", "--quiet", "progress", "all")
        if subprocess.run(_MAKE_IS_READY, capture_output=True, check=False).returncode == 0:
            found["no-op make tables"] = ("make", "tables")
    return found


def records(repeats: int, things: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Wall and processor seconds of each command, in turns; the first round is not counted.

    Raises:
        CalledProcessError: a command fails.
    """
    walls: dict[str, list[float]] = {name: [] for name in things}
    works: dict[str, list[float]] = {name: [] for name in things}
    for repeat in range(repeats + 1):
        for name, command in things.items():
            wall, work = _seconds(command)
            if repeat:
                walls[name].append(wall)
                works[name].append(work)
    found = []
    for name in things:
        found.append(record(f"`{name}`", walls[name], "s"))
        found.append(record(f"`{name}` processor", works[name], "CPU-s"))
    return found


def _seconds(command: Sequence[str]) -> tuple[float, float]:
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=_quiet())
    wall, after = time.perf_counter() - start, os.times()
    user = after.children_user - before.children_user
    return wall, user + after.children_system - before.children_system


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_quiet())
    return done.stdout + done.stderr


def _quiet() -> dict[str, str]:
    return {**os.environ, "DVC_NO_ANALYTICS": "1"}
