"""An evaluation's predictions in the format of a benchmark's submissions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.errors import UserError
from hmdiff.evaluation.freihand_files import write_submission
from hmdiff.evaluation.items import read_trained
from hmdiff.files import ARRAY_DAMAGE, read_json
from hmdiff.inference import Predictor
from hmdiff.params import load_params

FORMATS = ("freihand",)
SPLIT = "test"


def export(
    protocol: str,
    evaluation: Path,
    out: Path,
    models: Path,
    prepared: Path,
    allow_partial: bool,
    params: Path,
) -> str:
    """Write the submission ``out`` from the folder ``evaluation``; return what was written.

    Full meshes come from the stored coarse ones through the trained model's own upsampling, joints
    from the meshes by the regressor of the body model, in the order of the benchmark's list.

    Args:
        protocol: whose format; one of ``FORMATS``.
        models: holds ``train/EXPERIMENT``, ``hand`` and ``sampling/hand.npz``.
        prepared: holds ``hand/DATASET.h5``, which has the benchmark's list of images.
        allow_partial: leave out the images that the evaluation left out, instead of refusing.

    Raises:
        UserError: the format is unknown, or an input is missing, damaged or of another evaluation.
    """
    if protocol not in FORMATS:
        raise UserError(
            f"--protocol: {protocol!r} takes no submissions here; one of {', '.join(FORMATS)}"
        )
    summary = read_json(evaluation / "summary.json")
    remedy = f"run `dvc repro evaluate@{evaluation.name}`"
    try:
        experiment, dataset = str(summary["experiment"]), str(summary["dataset"])
        kind, source = summary["protocol"]["kind"], str(summary["source"])
    except (KeyError, TypeError):
        raise UserError(f"{evaluation}/summary.json: not an evaluation's; {remedy}") from None
    if kind != "hand":
        raise UserError(f"{evaluation}: evaluates a {kind}; {protocol} is about hands")
    names, coarse = _predictions(evaluation / "predictions.npz", remedy)
    with PreparedFile(prepared / kind / f"{dataset}.h5") as file:
        ids = file.sample_ids()
        listed = [ids[row] for row in file.indices(SPLIT)]
    order = _order(names, listed, evaluation, allow_partial)

    use_threads(load_params(params).compute.threads)
    folder = models / "train" / experiment
    read_trained(folder, experiment)
    body = BodyModel.load(models / kind)
    predictor = Predictor.load(folder, body, MeshSampling.load(models / f"sampling/{kind}.npz"))
    if coarse.shape[1:] != (predictor.regressor_f.shape[1], 3):
        raise UserError(f"{evaluation}/predictions.npz: coarse: of another model; {remedy}")
    vertices = predictor.full(torch.from_numpy(coarse[order])).double().numpy()
    joints = body.regressor.double().cpu().numpy() @ vertices
    write_submission(out, joints, vertices)
    partial = "" if len(order) == len(listed) else ": not a submission, which must have all"
    return f"{out}: {len(order)} of {len(listed)} {source} images of {dataset}{partial}"


def _predictions(path: Path, remedy: str) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            names, coarse = content["sample_id"].tolist(), content["coarse"].astype(np.float32)
    except ARRAY_DAMAGE:
        raise UserError(f"{path}: missing or damaged; {remedy}") from None
    if coarse.ndim != 3 or len(names) != len(coarse):
        raise UserError(f"{path}: coarse: not a mesh for each sample_id; {remedy}")
    return names, coarse


def _order(
    names: list[str], listed: list[str], evaluation: Path, allow_partial: bool
) -> np.ndarray:
    """Rows of ``names`` in the order of ``listed``."""
    row_of = {name: row for row, name in enumerate(names)}
    strangers = sorted(set(names) - set(listed))
    if strangers:
        raise UserError(
            f"{evaluation}: sample_id: {strangers[0]!r} is no test image of the prepared file; "
            "run prepare and evaluate again"
        )
    found = [row_of[name] for name in listed if name in row_of]
    if len(found) < len(listed) and not allow_partial:
        raise UserError(
            f"{evaluation}: has {len(found)} of {len(listed)} images; set evaluation.samples to "
            "null in params.yaml and evaluate again, or give --allow-partial"
        )
    return np.array(found, np.int64)
