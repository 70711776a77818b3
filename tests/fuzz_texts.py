"""Readers of texts: parameters, presets, results of stages, and the records of by-products."""

from __future__ import annotations

import io
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
from fuzzing import ROOT, Target
from mutations import damaged_bytes, damaged_json, damaged_yaml

import hmdiff.params
import hmdiff.presets
from hmdiff.acquisition.catalogue import Archive
from hmdiff.acquisition.checksums import known_wrong
from hmdiff.acquisition.download import _begun
from hmdiff.costs import StageCost, read_costs
from hmdiff.dvclock import recorded_hashes
from hmdiff.evaluation.export import _predictions
from hmdiff.evaluation.selection import read_selected
from hmdiff.files import read_json, write_json
from hmdiff.params import load_params, read_yaml
from hmdiff.tables.differences import _samples
from hmdiff.tables.measured import read_speed, read_summary
from hmdiff.tables.uncertainty import _arrays

_SMALL = """\
preset: default
seed: 1
prepare:  # of crops
  size: 64
  chroma: "4:4:4"
datasets:
  one: {layout: coco, crop: 1.2}
standins: {}
experiments: {}
finetunes: {}
methods: {}
evaluations: {}
sweeps: {}
"""
_PRESETS = {
    "default": "preset: default\nprepare: {size: 64}\n",
    "small": """\
preset: small
prepare: {size: 32}
add:
  datasets:
    two: {layout: mpii, crop: [1, 2]}
""",
}


# Parameters --------------------------------------------------------------------------------------


def _yaml(root: Path) -> Target:
    """Of a small file; few of its errors are for the records, which have the next target."""
    path = root / "params.yaml"
    path.write_text(_SMALL)
    valid = read_yaml(path)

    def read() -> None:
        if read_yaml(path) != valid:  # which is not all that must be there
            load_params(path)

    return Target({path: damaged_yaml(_SMALL)}, read)


def _params(root: Path) -> Target:
    """Any value at any place of the committed parameters; as JSON, which is read in less time."""
    path = root / "params.json"
    text = json.dumps(read_yaml(ROOT / "params.yaml"))
    path.write_text(text)

    def read() -> None:
        with patch.object(hmdiff.params, "read_yaml", read_json):
            load_params(path)

    return Target({path: damaged_json(text)}, read)


def _presets(root: Path) -> Target:
    """Without the checks of the whole, which take half a second and have a target of their own."""
    params, folder = root / "params.yaml", root / "presets"
    folder.mkdir()
    for name, text in _PRESETS.items():
        (folder / f"{name}.yaml").write_text(text)

    class Applied:
        preset = "small"

    def read() -> None:
        params.write_text(_SMALL)
        with patch.object(hmdiff.presets, "load_params", lambda path: Applied):
            hmdiff.presets.apply_preset("small", params)

    damaged = {folder / f"{name}.yaml": damaged_yaml(text) for name, text in _PRESETS.items()}
    return Target(damaged, read)


# Results -----------------------------------------------------------------------------------------


def _summary() -> dict:
    reverse, scored = {"disrupted_reduction": "sum"}, {"joints": ["Pelvis"]}
    experiment = {"model": "diffusion", "depth": 2, "fastmetro": None}
    return {
        "evaluation": "row", "method": "m", "dataset": "d", "source": "rendered", "n": 2,
        "steps": 3, "chains": 2, "seeds": [1], "gflop": 1.5, "active_steps": 2.5,
        "spread_scale": None, "means": {"PA-MPJPE": {"mean": 1.0, "low": 0.5, "high": 1.5}},
        "trained": {"experiment": experiment, "parameters": 10}, "reverse": reverse,
        "protocol": scored,
    }  # fmt: skip


def _results(root: Path) -> Target:
    """What the stages evaluate, select_steps and speed have written."""
    row = root / "row"
    row.mkdir()
    steps = {"method": "m", "steps": 3, "spread_scale": 1.5, "reverse": {"chains": 2}}
    timing = {"name": "a", "value": 1.0, "unit": "1/s", "low": 1, "high": 2, "repeats": 3,
              "chains": None, "steps": None}  # fmt: skip
    machine = {"device": "cpu", "cpus": 2, "threads": 1, "precision": "fp32", "torch": "2",
               "backbone": "x", "image_size": 56}  # fmt: skip
    speed = {"records": [timing], "dataset": "d", "source": "rendered", "seed": 1,
             "machine": machine}  # fmt: skip
    texts = {"summary.json": _summary(), "steps.json": steps, "speed.json": speed}
    for name, value in texts.items():
        write_json(row / name, value)
    samples = "sample_id,seed,PA-MPJPE\na,0,1.5\nb,0,2.5\na,1,1\nb,1,2\n"
    (row / "samples.csv").write_text(samples)
    arrays = io.BytesIO()
    np.savez(
        arrays, sample_id=np.array(["a", "b"]), coarse=np.zeros((2, 3, 3), np.float32),
        joint_error=np.zeros((2, 1, 3)), joint_spread=np.ones((2, 1)),
    )  # fmt: skip
    (row / "predictions.npz").write_bytes(arrays.getvalue())

    def read() -> None:
        summary = read_summary(root, "row", ["PA-MPJPE"])
        read_selected(row / "steps.json", "m")
        read_speed(row / "speed.json", ["a"])
        _samples(root, "row", "PA-MPJPE")
        _predictions(row / "predictions.npz", "run it again")
        _arrays(row, summary)

    damaged = {row / name: damaged_json((row / name).read_text()) for name in texts}
    damaged[row / "samples.csv"] = damaged_bytes(samples.encode())
    damaged[row / "predictions.npz"] = damaged_bytes(arrays.getvalue())
    return Target(damaged, read)


# By-products -------------------------------------------------------------------------------------


def _notes(root: Path) -> Target:
    """Of what a download left, what a stage cost, and what DVC has locked."""
    archive = Archive(
        name="set.zip", url="http://localhost/set.zip", size=None, exact=False, sha256=None,
        provides=("a",),
    )  # fmt: skip
    partial, whole, cost = root / "set.zip.partial", root / "set.zip", root / "cost/train@x.json"
    for path in (partial, whole):
        path.write_bytes(b"PK")
    begun = root / "set.zip.partial.json"
    write_json(begun, {"url": archive.url, "validator": '"one"', "total": 5})
    status = whole.stat()
    known = root / "set.zip.json"
    write_json(
        known,
        {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": "0" * 64,
         "expected": "1" * 64, "expected_from": "catalogue"},
    )  # fmt: skip
    facts = {"stage": "train@x", "seconds": 1, "cpu_seconds": 1, "peak_bytes": 1, "machine": "m"}
    write_json(cost, StageCost(**facts).model_dump())
    lock = root / "dvc.lock"
    text = "schema: '2.0'\nstages:\n  a:\n    outs:\n    - path: x\n      md5: abc\n"
    lock.write_text(text)

    def read() -> None:
        _begun(archive, partial, begun)
        known_wrong(whole)
        read_costs(root / "cost")
        recorded_hashes(lock)

    damaged = {path: damaged_json(path.read_text()) for path in (begun, known, cost)}
    return Target(damaged | {lock: damaged_yaml(text)}, read)


TARGETS = {
    "notes": _notes,
    "params": _params,
    "presets": _presets,
    "results": _results,
    "yaml": _yaml,
}
