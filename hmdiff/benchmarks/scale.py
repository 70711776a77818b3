"""Whether memory stays bounded and time linear where a data set has 400,000 records.

The stages' own code, each part in a process of its own, over generated records with tiny images.
What is left out is the networks: their time is ``hmdiff units``'s, and needs no test of growth.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hmdiff.batches import row_weights, sample_batches
from hmdiff.benchmarks import scale_data
from hmdiff.benchmarks.picture import draw_growth as draw
from hmdiff.benchmarks.random_models import make_trained
from hmdiff.benchmarks.timing import exponent_interval
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import generator, use_threads
from hmdiff.datasets.tally import Tally
from hmdiff.errors import UserError
from hmdiff.evaluation.score_files import score_files
from hmdiff.extractor.features import FeatureFiles
from hmdiff.files import read_json, write_json
from hmdiff.kinds import BODY
from hmdiff.machine import describe, record
from hmdiff.params import Params, load_params
from hmdiff.resources import disk_bytes
from hmdiff.stages import evaluate, prepare
from hmdiff.training.data import pairs, with_mesh
from hmdiff.training.folder import save_model

SIZES = (25_000, 50_000, 100_000, 200_000, 400_000)
MOST_MEMORY = 2e9  # bytes that no part may pass
MOST_EXPONENT = 1.1  # of time against records: this and less counts as linear
DATASET, EVALUATION = "3dpw", "3dpw_linear"


@dataclass(frozen=True)
class Place:
    """Where everything of one number of records lies."""

    root: Path
    models: Path
    count: int
    params: Params

    def path(self, name: str) -> Path:
        return self.root / name

    @property
    def body(self) -> Path:
        return self.models / "body"

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def prepared(self) -> Path:
        return self.root / f"{DATASET}.h5"

    @property
    def features(self) -> Path:
        return self.root / "features.h5"

    @property
    def sampling(self) -> Path:
        return self.models / "sampling/body.npz"


@dataclass(frozen=True)
class Spent:
    """What one part took."""

    items: int  # records that it went through
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def records(
    models: Path, params: Params, work: Path, sizes: Sequence[int] = SIZES
) -> list[dict[str, Any]]:
    """Wall and processor time and peak memory of every part at every size, disk, and exponents.

    Args:
        models: folder of the body model and the mesh sampling.
        params: with the data set DATASET and the evaluation EVALUATION.
        work: folder for up to 30 KB a record. What a size has taken stays there as records, and
            is not measured again.
    """
    found: list[dict[str, Any]] = []
    for size in sizes:
        place = Place(work.absolute() / str(size), models.absolute(), size, params)
        for name in PARTS:
            found += _measured(name, place)
        for path in (place.features, place.prepared, place.path("coco")):
            _remove(path)
    return found + (_exponents(found, sizes) if len(sizes) > 1 else [])


def _measured(name: str, place: Place) -> list[dict[str, Any]]:
    """The records of one part at one size; those of an earlier call where there are any."""
    done = place.path(f"{name}.json")
    if not done.exists():
        _generate(name, place)
        spent = _in_a_process(name, place)
        label, unit = f"{name} n={place.count}", 1e9
        found = [
            record(f"{label} records", spent.items, "1"),
            record(f"{label} wall", spent.seconds, "s"),
            record(f"{label} processor", spent.cpu_seconds, "CPU-s"),
            record(f"{label} peak memory", spent.peak_bytes / unit, "GB"),
        ]
        written = {"prepare": place.prepared, "features": place.features}.get(name)
        if written is not None:
            used = disk_bytes([written]) / place.count
            found.append(record(f"{label} disk", used, "bytes/record"))
        write_json(done, found)
        print(*(f"{row['name']}: {row['value']:.4g} {row['unit']}" for row in found), sep="; ")
    return read_json(done)


def _generate(name: str, place: Place) -> None:
    """What ``name`` reads that no other part writes; the 400,000 images go when they are read."""
    seed = place.params.seed
    if name == "read":
        _remove(place.path("coco"))
        scale_data.write_coco(place.path("coco"), place.count, seed)
    if name == "prepare":
        _remove(place.raw)
        scale_data.write_threedpw(place.raw, place.count, BodyModel.load(place.body), seed)
    else:
        _remove(place.raw)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exponents(found: Sequence[dict[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    values = {row["name"]: row["value"] for row in found}

    def column(name: str, what: str) -> list[float]:
        return [values[f"{name} n={size} {what}"] for size in sizes]

    return [
        record(
            f"{name} exponent {what}",
            exponent_interval(column(name, "records"), column(name, what)),
            "1",
        )
        for name in PARTS
        for what in ("wall", "processor")
    ]


def failures(found: Sequence[dict[str, Any]]) -> list[str]:
    """One line for every figure of :func:`records` that misses what is asked for."""
    lines = []
    for row in found:
        if row["name"].endswith("peak memory") and row["value"] * 1e9 >= MOST_MEMORY:
            lines.append(f"{row['name']}: {row['value']:.2f} GB")
        if row["name"].endswith("exponent processor") and row["value"] > MOST_EXPONENT:
            lines.append(f"{row['name']}: {row['value']:.2f}")
    return lines


def _in_a_process(name: str, place: Place) -> Spent:
    """A forked process would start with this one's peak."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_spend, name, place).result()


def measure(
    out: Path, models: Path, params: Path, work: Path, sizes: Sequence[int] = SIZES
) -> None:
    """Write :func:`records` to ``out`` (JSON), a CSV and an SVG beside it.

    Raises:
        UserError: a stage cannot run, or a figure misses its bound (all is written first).
    """
    given = load_params(params)
    settings = tiny(given)
    found = records(models, settings, work, sorted(sizes))
    limits = {"memory_gb": MOST_MEMORY / 1e9, "exponent": MOST_EXPONENT}
    describe(out, found, preset=given.preset, frame=scale_data.FRAME, limits=limits)
    draw(found, out.with_suffix(".svg"))
    missed = failures(found)
    if missed:
        raise UserError(f"{out}: {'; '.join(missed)}; find what holds or repeats the records")


def tiny(params: Params) -> Params:
    """``params`` with crops of FRAME pixels, and with all test images scored."""
    return params.model_copy(
        update={
            "prepare": params.prepare.model_copy(update={"size": scale_data.FRAME}),
            "evaluation": params.evaluation.model_copy(update={"samples": None}),
        }
    )


def _spend(name: str, place: Place) -> Spent:
    use_threads(place.params.compute.threads)
    os.chdir(place.root)  # what stages leave behind lies there
    start, before = time.perf_counter(), time.process_time()
    items = PARTS[name](place)
    seconds, worked = time.perf_counter() - start, time.process_time() - before
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts kilobytes
    return Spent(
        items,
        seconds,
        worked,
        _peak() or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _peak() -> int | None:
    """Linux's own count of this program; ru_maxrss may be that of who started it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def _read(place: Place) -> int:
    """Annotations of COCO alone: a list and an object of JSON, joined by their ids."""
    from hmdiff.datasets import coco
    from hmdiff.params.data import CocoDataset

    settings = CocoDataset(layout="coco", kind="body", crop=1.25, smallest_box=20, keypoints=6)
    return sum(1 for _ in coco.read(place.path("coco"), settings, Tally()))


def _prepare(place: Place) -> int:
    prepare.run(DATASET, place.raw, place.body, place.prepared, place.params)
    return place.count


def _features(place: Place) -> int:
    scale_data.write_features(place.features, place.prepared, BODY, place.params)
    return place.count


def _load(place: Place) -> int:
    """What a training of g reads: all poses and meshes once for the ridge map, then one epoch."""
    files = FeatureFiles([place.features], "train")
    for _ in pairs(files, with_mesh(files, place.features, "train"), "joints"):
        pass
    weights = row_weights(files.counts, [1.0])
    order = generator(place.params.seed, "training order")
    seen = 0
    for indices in sample_batches(weights, len(files), scale_data.BATCH, order):
        seen += len(files.select(indices))
    return seen


def _score(place: Place) -> int:
    """`hmdiff score`: joints of all records, as for Human3.6M."""
    truth, predicted = scale_data.write_joints(place.root, place.prepared, place.params.seed)
    resamples = place.params.evaluation.bootstrap
    return score_files("human36m", truth, predicted, place.body, None, resamples, 0)["n"]


def _evaluate(place: Place) -> int:
    """The stage evaluate on the test rows, with meshes; the linear control takes no network."""
    item = place.params.evaluations[EVALUATION]
    _save_linear(place, item.experiment)
    write_json(place.path("steps.json"), {"method": item.method, "steps": 1, "spread_scale": None})
    evaluate.run(
        EVALUATION,
        *(place.path("model"), place.path("steps.json"), place.features, place.prepared),
        *(place.body, place.sampling, place.path("evaluated"), place.params),
    )
    return scale_data.split_counts(place.count)["test"]


def _save_linear(place: Place, experiment: str) -> None:
    sampling = MeshSampling.load(place.sampling)
    trained = make_trained(place.params.experiments[experiment], sampling, place.params)
    trained.recipe.notes["name"] = experiment
    random = generator(place.params.seed, "linear")
    with torch.no_grad():
        for values in (trained.pose_to_mesh.weight, trained.pose_to_mesh.bias):
            values.copy_(0.1 * torch.randn(values.shape, generator=random))
    place.path("model").mkdir(exist_ok=True)
    save_model(trained, place.path("model"))


PARTS: dict[str, Callable[[Place], int]] = {
    "read": _read,
    "prepare": _prepare,
    "features": _features,
    "load": _load,
    "score": _score,
    "evaluate": _evaluate,
}
