"""Speed of what feeds the networks: renderer, preparation, loader and extractor.

It works in a temporary folder, on the models and prepared files that the pipeline made.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hmdiff.benchmarks.timing import interleaved, rates
from hmdiff.compute import resolve_precision
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.datasets.registry import find
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.model import Extractor, unit_range
from hmdiff.machine import record
from hmdiff.params import Params
from hmdiff.stages import acquire, prepare

COUNTS = {"train": 160, "val": 16, "test": 24}  # images of a rendered set
READS = 1500  # images read at random in one repeat


def records(
    params: Params, repeats: int, counts: Mapping[str, int] = COUNTS, reads: int = READS
) -> list[dict[str, Any]]:
    """Of every data set of params.yaml; rendered and prepared are those that have a stand-in.

    Images a second: ``render`` with a process a core, ``prepare`` with its own threads, ``load``
    a CPU-second (crops decoded at the prepared size, in random order).

    Raises:
        UserError: the pipeline has not made the models or the prepared files yet.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        for dataset in params.datasets:
            if dataset in params.standins:
                rendered, prepared = _from_nothing(dataset, Path(name), params, repeats, counts)
                found.append(record(f"render@{dataset}", rendered, "images/s"))
                found.append(record(f"prepare@{dataset}", prepared, "images/s"))
            loaded = _load(dataset, params, repeats, reads)
            found.append(record(f"load@{dataset}", loaded, "images/CPU-s"))
    return found


def extractor_records(
    network: Extractor, file: PreparedFile, params: Params, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Images a second from crops in memory to f_I and U, ``batch`` at a time."""
    size, ids = network.architecture.image_size, file.sample_ids()
    rows = [i % len(file) for i in range(batch)]
    images = torch.stack([torch.from_numpy(file.image(i, size)).permute(2, 0, 1) for i in rows])

    def run() -> None:
        extract(
            network, unit_range(images, network.mean.device), [ids[row] for row in rows],
            draws=params.prior.draws, seed=params.seed,
            precision=resolve_precision(params.compute),
        )  # fmt: skip

    name = f"extract@{network.architecture.backbone} B={batch}"
    return [rates(name, batch, interleaved({name: run}, repeats)[name], "images/s")]


def _from_nothing(
    dataset: str, folder: Path, params: Params, repeats: int, counts: Mapping[str, int]
) -> tuple[list[float], list[float]]:
    """Images a second of rendering and of preparing a small stand-in, each repeat anew."""
    settings, _ = find(dataset, params)
    standin = params.standins[dataset]
    sizes = {key: count for key, count in counts.items() if hasattr(standin, key)}
    small = standin.model_copy(update={"workers": os.cpu_count(), **sizes})
    if hasattr(settings, "held_out"):
        settings = settings.model_copy(update={"held_out": counts["val"]})
    params = params.model_copy(update={
        "standins": {dataset: small}, "datasets": {dataset: settings},
    })  # fmt: skip
    body, empty = Path("models", settings.kind), folder / "placed"
    empty.mkdir(exist_ok=True)
    rendered, prepared = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        acquire.run(dataset, body, empty, folder / dataset, params)
        # Not of counts: FreiHAND's val is a part of its train.
        rendered.append(sum(sizes.values()) / (time.perf_counter() - start))
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


def _load(dataset: str, params: Params, repeats: int, reads: int) -> list[float]:
    path = Path("data/prepared", params.datasets[dataset].kind, f"{dataset}.h5")
    images = PreparedImages(path, range(_count(path)), params.prepare.size)
    order = np.random.default_rng(params.seed).integers(len(images), size=(repeats, reads))
    found = []
    for row in order.tolist():
        start = time.process_time()
        for index in row:
            images[index]
        found.append(reads / (time.process_time() - start))
    return found
