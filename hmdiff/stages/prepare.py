"""Stage ``prepare``: a native layout to one HDF5 file of crops and ground truth."""

from __future__ import annotations

from pathlib import Path

from hmdiff.bodies.model import BodyModel
from hmdiff.compute import use_threads
from hmdiff.datasets.preparation import records
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.writer import write_prepared
from hmdiff.errors import UserError
from hmdiff.files import read_json
from hmdiff.params import Params
from hmdiff.progress import progress


def run(dataset: str, raw: Path, body: Path, out: Path, params: Params) -> None:
    """Write ``out`` (HDF5) from the native layout in ``raw``.

    Args:
        dataset: a key of ``datasets`` in params.yaml.
        raw: folder that the stage ``acquire`` wrote.
        body: folder of the body or hand model.
    """
    use_threads(params.compute.threads)
    record = params.datasets[dataset]
    layout = LAYOUTS[record.layout]
    manifest = read_json(raw / "manifest.json")
    layout.check(raw)
    model = BodyModel.load(body)
    samples = layout.read(raw, model, record)
    squares = [layout.square(sample, record) for sample in samples]
