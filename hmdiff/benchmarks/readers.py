"""How fast each native layout is read into HDF5, and whether memory stays flat as a set grows.

Of every data set of the preset ``paper`` a stand-in of n samples and one of ten times as many are
rendered. Each is prepared as the stage ``prepare`` does it, in a process of its own, whose peak
memory Linux tells.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from hmdiff.datasets.prepared import PreparedFile
from hmdiff.machine import record
from hmdiff.params import Params
from hmdiff.presets import preset_params
from hmdiff.stages import acquire, prepare

PRESET = "paper"
FEW = 4  # samples of the other splits
FRAME = 640  # pixels, of the layouts that do not fix them
GROWTH = 10


def records(
    models: Path, count: int, datasets: list[str] | None = None, project: Path = Path()
) -> list[dict[str, Any]]:
    """Images a second and peak memory at ``count`` samples and at ten times as many.

    Args:
        models: folder with the models of body and hand.
        datasets: names; None takes all of the preset.
        project: folder with params.yaml and the presets.
    """
    found = []
    for name in datasets or _params(project, 1).datasets:
        peaks = []
        for samples in (count, GROWTH * count):
            with tempfile.TemporaryDirectory() as folder:
                params = _params(project, samples)
                raw, body = Path(folder, "raw"), models / params.datasets[name].kind
                acquire.run(name, body, Path(folder, "placed"), raw, params)
                images, seconds, peak = _in_a_process(name, raw, body, params)
            found.append(record(f"read@{name} n={images}", images / seconds, "images/s"))
            peaks.append(record(f"read@{name} n={images} peak memory", peak, "MB"))
        found += peaks
        growth = peaks[1]["value"] / peaks[0]["value"]
        found.append(record(f"read@{name} memory growth", growth, "x", peaks[0]["name"]))
    return found


def _params(project: Path, count: int) -> Params:
    """The preset's parameters, with stand-ins of ``count`` training samples."""
    params = preset_params(PRESET, project)
    sizes = {"train": count, "val": FEW, "test": FEW, "frame": FRAME}
    standins = {
        name: item.model_copy(update={k: v for k, v in sizes.items() if hasattr(item, k)})
        for name, item in params.standins.items()
    }
    datasets = {
        name: item.model_copy(update={"held_out": FEW}) if hasattr(item, "held_out") else item
        for name, item in params.datasets.items()
    }
    source = params.acquire.model_copy(update={"source": "rendered"})
    return params.model_copy(update={"standins": standins, "datasets": datasets, "acquire": source})


def _in_a_process(name: str, raw: Path, body: Path, params: Params) -> tuple[int, float, float]:
    """Images, seconds and MB of preparing ``raw``; a forked process would have this one's peak."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_prepare, name, raw, body, params).result()


def _prepare(name: str, raw: Path, body: Path, params: Params) -> tuple[int, float, float]:
    target = raw.with_suffix(".h5")
    start = time.perf_counter()
    prepare.run(name, raw, body, target, params)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    with PreparedFile(target) as file:
        return len(file), seconds, int(peak.split()[1]) * 1024 / 1e6
