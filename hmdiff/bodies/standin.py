"""From sampled shapes to the arrays of a model file: what the body and the hand have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.poses import random_poses
from hmdiff.bodies.regressors import fit_regressor
from hmdiff.bodies.shape_space import principal_components
from hmdiff.bodies.skinning import fit_posedirs, pose_meshes
from hmdiff.kinds import Kind

BETAS = 10
_WEIGHTS_A_VERTEX = 4
_NO_PARENT = np.iinfo(np.uint32).max  # as in SMPL's kintree_table
_REST_MESHES = 80  # sampled shapes that the joint regressor is fitted on


@dataclass(frozen=True)
class Skeleton:
    """What a model needs beside its shapes.

    Attributes:
        kind: body or hand.
        parents: (J,), -1 for the root.
        largest_angles: (J,) radians up to which the pose blend shapes are fitted.
        root: (3,) place of the root joint in every rest mesh, metres.
        candidates: vertices that may take part in a joint.
    """

    kind: Kind
    parents: np.ndarray
    largest_angles: np.ndarray
    root: np.ndarray
    candidates: int


def fit_model(
    skeleton: Skeleton,
    vertices: np.ndarray,
    joints: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    pose_samples: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Arrays under smplx's names, float32 but for the regressor.

    Args:
        vertices, joints: sampled people at rest, (n, V, 3) and (n, J, 3), metres.
        faces: (F, 3); weights: (V, J) skin weights.
        pose_samples: random poses for the pose blend shapes and for the regressor.
    """
    shift = skeleton.root - joints[:, :1]
    vertices, joints = vertices + shift, joints + shift
    parents = skeleton.parents
    weights = _strongest(weights)
    mean, shapedirs, coordinates = principal_components(vertices, BETAS)
    mean_joints = joints.mean(0)
    posedirs = fit_posedirs(
        mean, mean_joints, weights, parents, skeleton.largest_angles, pose_samples, rng
    )
    moved = np.linalg.lstsq(coordinates, (joints - mean_joints).reshape(len(joints), -1))[0]
    betas = rng.normal(size=(pose_samples, BETAS))
    posed = pose_meshes(
        mean + np.tensordot(betas, shapedirs, (1, 2)),
        mean_joints + (betas @ moved).reshape(-1, *mean_joints.shape),
        weights,
        posedirs,
        parents,
        random_poses(skeleton.kind, mean_joints, pose_samples, rng),
    )
    some = rng.permutation(len(vertices))[:_REST_MESHES]
    regressor = fit_regressor(
        (vertices[some], joints[some]), posed, weights, parents, skeleton.candidates
    )
    tree = np.stack([np.where(parents < 0, _NO_PARENT, parents), np.arange(len(parents))])
    arrays = {
        "v_template": mean,
        "f": faces.astype(np.uint32),
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "J_regressor": sp.csc_matrix(regressor),
        "J": regressor @ mean,
        "kintree_table": tree.astype(np.uint32),
        "weights": weights,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    return single_precision(arrays)


def single_precision(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The same with float64 arrays as C-ordered float32; the regressor is kept as it is."""
    return {
        key: np.ascontiguousarray(value, dtype=np.float32)
        if isinstance(value, np.ndarray) and value.dtype == np.float64
        else value
        for key, value in arrays.items()
    }


def numbered(kept: np.ndarray, fixed: Mapping[int, int]) -> np.ndarray:
    """Order of ``kept`` in which the vertices ``fixed[i]`` stand at their places ``i``.

    Args:
        kept: (V,) vertex numbers of the source mesh; fixed: from place to vertex number.

    Returns:
        (V,) positions in ``kept`` by place.
    """
    order = np.full(len(kept), -1)
    places = np.fromiter(fixed, dtype=int)
    order[places] = np.searchsorted(kept, np.fromiter(fixed.values(), dtype=int))
    order[order < 0] = np.setdiff1d(np.arange(len(kept)), order[places])
    return order


def _strongest(weights: np.ndarray) -> np.ndarray:
    """Keep each row's largest entries, as SMPL does, and bring its sum to 1."""
    ranks = np.argsort(np.argsort(-weights, axis=1, kind="stable"), axis=1)
    strong = np.where(ranks < _WEIGHTS_A_VERTEX, weights, 0)
    return strong / strong.sum(1, keepdims=True)
