"""Stage ``extract_features``: the frozen extractor over one prepared file, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from torch.utils.data import DataLoader
from tqdm import tqdm

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, use_threads
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.datasets.sample import SPLITS
from hmdiff.errors import UserError
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.features import features_writer
from hmdiff.extractor.model import WEIGHTS, load_extractor
from hmdiff.files import sha256
from hmdiff.params import Params


def run(
    prepared: Path, extractor: Path, body: Path, sampling: Path, out: Path, params: Params
) -> None:
    """Write f_I, U and the true coarse meshes of all samples of ``prepared`` to ``out``.

    Args:
        prepared: one prepared file.
        extractor: folder of pretrain_extractor.
        body, sampling: artefacts of body_models and mesh_sampling.
        out: features HDF5.
    """
    use_threads(params.compute.threads)
    network = load_extractor(extractor, resolve_device(params.compute.device))
    body_model = BodyModel.load(body)
    down = MeshSampling.load(sampling).down
    with PreparedFile(prepared) as file:
        attrs = {name: str(file.attrs[name]) for name in ("dataset", "kind", "source")}
        for path, kind in ((extractor, network.kind), (body, body_model.kind)):
            if kind.name != attrs["kind"]:
                raise UserError(f"{path}: is for a {kind.name}, {prepared} is of {attrs['kind']}s")
        if down.shape[1] != body_model.kind.vertices:
            raise UserError(f"{sampling}: not made for {body}; run mesh_sampling again")
        attrs["extractor"] = sha256(extractor / WEIGHTS)
        truth = {
            name: file.array(name) for name in ("joints", "valid_mesh", "valid_joints", "split")
        }
        ids = file.sample_ids()
        images = PreparedImages(prepared, range(len(file)), network.architecture.image_size)
        batch = params.extractor[attrs["kind"]].batch
        loader = DataLoader(images, batch, num_workers=params.compute.workers)
        errors = []
        with features_writer(out, len(file), attrs) as writer:
            for crops, _, _ in tqdm(loader, "extract", disable=None):
                rows = np.arange(writer.written, writer.written + len(crops))
                names = [f"{attrs['dataset']}/{ids[row]}" for row in rows]
                block = extract(
                    network,
                    crops,
                    names,
                    draws=params.prior.draws,
                    seed=params.seed,
                    precision=params.compute.precision,
                )
                block |= {name: values[rows] for name, values in truth.items()}
                block["coarse"] = _coarse(file, rows, block["valid_mesh"], body_model, down)
                writer.append({**block, "sample_id": [ids[row] for row in rows]})
                distance = np.linalg.norm(block["centre"] - block["joints"], axis=-1)
                errors.append(distance.mean(1, where=block["valid_joints"]))
    per_split = _per_split(np.concatenate(errors), truth["split"])
    print(f"{out}: {len(ids)} samples; MPJPE of U's mean in mm: {per_split}")


def _coarse(
    file: PreparedFile, rows: np.ndarray, valid: np.ndarray, body: BodyModel, down: sp.csr_matrix
) -> np.ndarray:
    """D applied to the meshes of ``rows``: (n, V_coarse, 3) float32; NaN where not ``valid``."""
    coarse = np.full((len(rows), down.shape[0], 3), np.nan, np.float32)
    for row, mesh in zip(np.flatnonzero(valid), file.meshes(rows[valid], body), strict=True):
        # D selects vertices, so a row of it is applied to each coordinate on its own.
        coarse[row] = down @ mesh
    return coarse


def _per_split(errors: np.ndarray, splits: np.ndarray) -> str:
    means = [
        f"{name} {1000 * errors[splits == number].mean():.1f}"
        for number, name in enumerate(SPLITS)
        if (splits == number).any()
    ]
    return ", ".join(means)
