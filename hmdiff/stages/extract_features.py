"""Stage ``extract_features``: the frozen extractor over one prepared file, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.checkpoints import checkpoints
from hmdiff.compute import resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.datasets.sample import SPLITS
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import turn_points
from hmdiff.extractor.extraction import changed_copies, extract
from hmdiff.extractor.features import features_writer
from hmdiff.extractor.held_out import divide
from hmdiff.extractor.model import WEIGHTS, Extractor, load_extractor, unit_range
from hmdiff.files import sha256
from hmdiff.params import Params


def run(
    prepared: Path, extractor: Path, body: Path, sampling: Path, out: Path, params: Params
) -> None:
    """Write f_I, U and the true coarse meshes of the samples of ``prepared`` to ``out``.

    Training images that the extractor has seen are left out where others were held out for g. With
    ``params.features.copies`` above 1, copies of the training images follow, changed as
    ``extractor.*.augmentation`` says; their truth is turned with them.

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
        seen, train = _divided(file, params)
        # The plain images in their order, then the copies of the training images.
        copies = [np.setdiff1d(np.arange(len(file)), seen)]
        copies += [train] * (params.features.copies - 1)
        count = sum(len(rows) for rows in copies)
        errors = []
        settings = {
            "augmentation": params.extractor[attrs["kind"]].augmentation.model_dump(),
            "batch": params.extractor[attrs["kind"]].batch,
            "copies": params.features.copies,
            "draws": params.prior.draws,
            "seen": len(seen),
        }
        inputs = [prepared, extractor]
        with (
            checkpoints(f"extract_features@{out.stem}", params, settings, inputs) as kept,
            features_writer(out, count, attrs) as writer,
            tqdm(total=count, desc="extract", disable=None) as bar,
        ):
            for block in kept.blocks(lambda first: _blocks(network, file, copies, first, params)):
                at = block.pop("row")
                block["coarse"] = _coarse(file, at, block["valid_mesh"], body_model, down)
                angles = torch.from_numpy(block.pop("angle"))
                for name in ("coarse", "joints"):  # by nothing, where it is no copy
                    turned = turn_points(torch.from_numpy(block[name]), angles)
                    block[name] = turned.numpy()
                writer.append(block)
                bar.update(len(at))
                if not block["copy"][0]:
                    distance = np.linalg.norm(block["centre"] - block["joints"], axis=-1)
                    errors.append(distance.mean(1, where=block["valid_joints"]))
        per_split = _per_split(np.concatenate(errors), file.array("split")[copies[0]])
    print(f"{out}: {count} rows; MPJPE of U's mean in mm: {per_split}")


def _divided(file: PreparedFile, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Training rows that are left out, and those that g learns from."""
    settings = params.extractor[str(file.attrs["kind"])]
    train = file.indices("train")
    if not settings.held_out or file.attrs["dataset"] not in settings.datasets:
        return train[:0], train
    return divide(train, settings.held_out)


def _blocks(
    network: Extractor, file: PreparedFile, copies: Sequence[np.ndarray], first: int, params: Params
) -> Iterator[dict[str, Any]]:
    """The blocks of all ``copies`` (rows of each) from block ``first`` on."""
    batch = params.extractor[network.kind.name].batch
    for copy, rows in enumerate(copies):
        left = rows[first * batch :]
        first = max(0, first - -(-len(rows) // batch))
        if len(left):
            yield from _copy_blocks(network, file, left, copy, params)


def _copy_blocks(
    network: Extractor, file: PreparedFile, rows: np.ndarray, copy: int, params: Params
) -> Iterator[dict[str, Any]]:
    """Columns of ``rows``, a batch at a time: f_I, U and the unturned truth but for the mesh.

    ``copy`` 0 are the plain images, other copies are changed; ``angle`` (B,) says how far each is
    turned, ``row`` which row it is.
    """
    settings, device = params.extractor[network.kind.name], network.mean.device
    names = ("joints", "valid_mesh", "valid_joints", "split")
    truth = {name: file.array(name) for name in names}
    ids, dataset = file.sample_ids(), file.attrs["dataset"]
    images = PreparedImages(file.path, rows, network.architecture.image_size)
    loader = DataLoader(images, settings.batch, num_workers=params.compute.workers)
    for number, (crops, _, _) in enumerate(loader):
        at = rows[number * settings.batch :][: len(crops)]
        crops = unit_range(crops, device)
        streams = [f"{dataset}/{ids[row]}" + (f"#{copy}" if copy else "") for row in at]
        angles = torch.zeros(len(at))
        if copy:
            crops, angles = changed_copies(crops, streams, settings.augmentation, params.seed)
        block = extract(
            network,
            crops,
            streams,
            draws=params.prior.draws,
            seed=params.seed,
            precision=resolve_precision(params.compute),
        )
        block |= {name: values[at] for name, values in truth.items()}
        yield {
            **block,
            "copy": np.full(len(at), copy, np.uint16),
            "sample_id": [ids[row] for row in at],
            "angle": angles.numpy(),
            "row": at,
        }


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
