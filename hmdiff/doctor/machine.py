"""Cores, memory and disk, against what the stages ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmdiff.acquisition.catalogue import LICENSED, catalogue
from hmdiff.doctor.findings import Context, Finding
from hmdiff.machine import this_machine
from hmdiff.params import load_params, read_yaml
from hmdiff.params.runs import MemoryParams

GB = 1e9
# What a run on stand-ins leaves in data, models, runs and .dvc, and room to write. An estimate: the
# preset smoke was measured to leave 0.7 GB, nearly all of which does not depend on the preset.
RUN = 2.0
# Real data take their archives' room, again unpacked, and again as crops and features.
TIMES_ARCHIVES = 3


def processor(context: Context) -> Iterator[Finding]:
    """Cores that this process may use, against ``compute.threads_alone``."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = load_params(context.params).compute.threads_alone
    found = f"{this_machine()}; {usable} usable"
    if usable is not None and usable < threads:
        remedy = (
            f"compute.threads_alone is {threads}: give it more cores, or accept that two stages "
            "are slower (another value changes the last digits of results)"
        )
        yield Finding("warning", found, remedy)
    else:
        yield Finding("ok", found)


def memory(context: Context) -> Iterator[Finding]:
    """What is available, against the largest ``mem_mb`` of dvc.yaml."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = machine.total / GB, machine.available / GB
    limit = container_limit()
    if limit is not None and limit / GB < total:
        total, free = limit / GB, min(free, limit / GB)
    name, need = largest_stage(context.root / "dvc.yaml", load_params(context.params).memory)
    found = f"{free:.1f} of {total:.1f} GB free; {name} asks for {need:.1f} GB"
    if total < need:
        remedy = f"a machine with {need:.0f} GB, or a smaller extractor.*.batch in params.yaml"
        yield Finding("warning", found, remedy)
    elif free < need:
        yield Finding("warning", found, "close other programs before you run it")
    else:
        yield Finding("ok", found)


def largest_stage(dvc_yaml: Path, memory: MemoryParams) -> tuple[str, float]:
    """The stage of dvc.yaml that asks for the most memory, and GB of it."""

    def gigabytes(stage: dict[str, Any]) -> float:
        asked = stage.get("do", stage).get("meta", {}).get("mem_mb", 0)
        if isinstance(asked, str):  # ${memory.NAME}
            asked = getattr(memory, asked.removeprefix("${memory.").removesuffix("}"))
        return asked / 1000

    stages = read_yaml(dvc_yaml)["stages"]
    sizes = {name: gigabytes(stage) for name, stage in stages.items()}
    name = max(sizes, key=sizes.__getitem__)
    return name, sizes[name]


def container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that a container may use; None where nothing limits it."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def disk(context: Context) -> Iterator[Finding]:
    """What is free in the project's folder, against a run with the data sets that are asked for."""
    folder = context.root
    free = shutil.disk_usage(folder).free / GB
    need, what = _needed(context)
    found = f"{free:.1f} GB free in {folder.resolve()}; {what} needs about {need:.0f} GB"
    if not os.access(folder, os.W_OK):
        yield Finding(
            "problem", f"{folder.resolve()}: not writable", "open it, or copy the project"
        )
    elif free < need:
        yield Finding("warning", found, "make room, or move the project to a larger disk")
    else:
        yield Finding("ok", found)


def _needed(context: Context) -> tuple[float, str]:
    """GB, and for what. The size of an archive that its publisher does not state counts nothing."""
    params = load_params(context.params)
    if params.acquire.source != "real":
        return RUN, f"preset {params.preset}"
    archives = [
        archive.size or 0
        for name, dataset in params.datasets.items()
        if catalogue()[dataset.layout].lacking(context.root / LICENSED / name)
        for archive in catalogue()[dataset.layout].archives
    ]
    return RUN + TIMES_ARCHIVES * sum(archives) / GB, "what is still to be downloaded"
