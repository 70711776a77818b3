"""Speed of what feeds the networks: the renderer, preparation, and the loader.

It works in a temporary folder, on the models and prepared files that the pipeline made.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.datasets.registry import find
from hmdiff.machine import describe, record
from hmdiff.params import Params
from hmdiff.stages import acquire, prepare

REPEATS = 3
COUNTS = {"train": 160, "val": 16, "test": 24}  # images of a rendered set
READS = 1500  # images read at random in one repeat


def run(out: Path, params: Params) -> None:
    """Write ``out`` (JSON) and a CSV beside it.

    Images a second: ``render`` with a process a core, ``prepare`` with its own threads, ``load``
    a CPU-second (crops decoded at the prepared size, in random order).

    Raises:
        UserError: the pipeline has not made the models or the prepared files yet.
    """
    records = []
    with tempfile.TemporaryDirectory() as name:
        for dataset in params.datasets:
            rendered, prepared = _from_nothing(dataset, Path(name), params)
            records.append(record(f"render@{dataset}", rendered, "images/s"))
            records.append(record(f"prepare@{dataset}", prepared, "images/s"))
            records.append(record(f"load@{dataset}", _load(dataset, params), "images/CPU-s"))
    describe(out, records)


def _from_nothing(dataset: str, folder: Path, params: Params) -> tuple[list[float], list[float]]:
    """Images a second of rendering and of preparing a small stand-in, each repeat anew."""
    settings, _ = find(dataset, params)
    standin = params.standins[dataset]
    sizes = {key: count for key, count in COUNTS.items() if hasattr(standin, key)}
    small = standin.model_copy(update={"workers": os.cpu_count(), **sizes})
    if hasattr(settings, "held_out"):
        settings = settings.model_copy(update={"held_out": COUNTS["val"]})
    params = params.model_copy(update={
        "standins": {dataset: small}, "datasets": {dataset: settings},
    })  # fmt: skip
    body, empty = Path("models", settings.kind), folder / "placed"
    empty.mkdir(exist_ok=True)
    rendered, prepared = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        acquire.run(dataset, body, empty, folder / dataset, params)
        rendered.append(sum(COUNTS.values()) / (time.perf_counter() - start))
        target = folder / f"{dataset}.h5"
        start = time.perf_counter()
        prepare.run(dataset, folder / dataset, body, target, params)
        seconds = time.perf_counter() - start
        prepared.append(_count(target) / seconds)
    return rendered, prepared


def _count(path: Path) -> int:
    """Images in a prepared file."""
    with PreparedFile(path) as file:
        return len(file)


def _load(dataset: str, params: Params) -> list[float]:
    path = Path("data/prepared", params.datasets[dataset].kind, f"{dataset}.h5")
    images = PreparedImages(path, range(_count(path)), params.prepare.size)
    order = np.random.default_rng(params.seed).integers(len(images), size=(REPEATS, READS))
    rates = []
    for row in order.tolist():
        start = time.process_time()
        for index in row:
            images[index]
        rates.append(READS / (time.process_time() - start))
    return rates
