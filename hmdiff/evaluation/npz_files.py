"""Predictions and truth as .npz: ``vertices`` (n, V, 3), ``joints`` (n, 17, 3), ``sample_id``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hmdiff.bodies.model_files import read_regressor
from hmdiff.bodies.row_orders import check_metro_order, is_body, metro_order
from hmdiff.errors import UserError
from hmdiff.evaluation.npz_rows import NpzRows
from hmdiff.evaluation.protocols import Protocol
from hmdiff.evaluation.scoring import Points
from hmdiff.files import read_json
from hmdiff.kinds import BODY


def read_points(file: NpzRows, protocol: Protocol, truth: bool) -> Points:
    """What ``protocol`` compares of an .npz; ``truth`` tells true from predicted.

    Where meshes are compared, joints are those of the meshes. Where they are not, true joints are
    ``joints``, and predicted ones ``joints`` where there are any, else those of ``vertices``.

    Raises:
        UserError: an array is missing, of another shape, or in GraphCMR's order of joints.
    """
    joints = vertices = None
    if protocol.needs_meshes or not (truth or "joints" in file):
        vertices = file.rows("vertices", (BODY.vertices, 3))
    else:
        joints = file.rows("joints", (BODY.joint_count, 3))
    ids = None
    if "sample_id" in file:
        ids = file.array("sample_id")
        try:
            if ids.dtype.kind not in "USiu":
                raise ValueError(f"are {ids.dtype}")
            ids = ids.astype(np.str_)
        except ValueError as error:
            raise UserError(f"{file.path}: sample_id: {error}; save numbers or text") from None
    points = Points(str(file.path), joints, vertices, ids)
    if ids is not None and ids.shape != (len(points),):
        raise UserError(
            f"{file.path}: sample_id: shape {ids.shape}, but there are {len(points)} samples; name "
            "each of them"
        )
    if joints is not None and len(points):
        check_metro_order(f"{file.path}: joints", points.some("joints"))
    return points


def find_regressor(
    file: Path | None, folder: Path, predicted: Points, truth: Points
) -> tuple[np.ndarray | None, dict[str, str]]:
    """The rows (17, V) that make joints of meshes, in METRO's order, and where they are from.

    Args:
        file: METRO's or GraphCMR's .npy; which of the two is told from the meshes.
        folder: a body model of the stage body_models, whose regressor is taken without ``file``.

    Returns:
        None where all joints are given.

    Raises:
        UserError: there is none, or the rows of ``file`` are in neither order.
    """
    meshed = [points for points in (truth, predicted) if points.vertices is not None]
    if not meshed or not all(len(points) for points in meshed):
        return None, {}
    some = meshed[0].some("vertices")
    if file is not None:
        rows = metro_order(file, read_regressor(file, BODY), some)
        return rows, {"regressor": str(file)}
    path = folder / "regressor.npy"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; run `dvc repro body_models@smpl`, or name METRO's or "
            "GraphCMR's J_regressor_h36m.npy with --regressor"
        )
    rows, record = read_regressor(path, BODY), read_json(folder / "model.json")
    source = record.get("source") if isinstance(record, dict) else None
    if not is_body(rows @ some):
        print(
            f"hmdiff: warning: {path} ({source}): gives these meshes joints unlike a body's; "
            "are they of another model?",
            file=sys.stderr,
        )
    return rows, {"regressor": str(path), "body_model": str(source)}
