"""Cameras and bodies of known place, for what data sets keep in world coordinates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from hmdiff.bodies.model import BodyModel


def cameras(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4, 4) world to camera, some four metres before the origin."""
    extrinsics = np.tile(np.eye(4), (count, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, (count, 3))).as_matrix()
    extrinsics[:, :3, 3] = rng.normal(0, 0.2, (count, 3)) + np.array([0, 0, 4])
    return extrinsics


def vertices(
    body: BodyModel, poses: np.ndarray, betas: np.ndarray, moves: np.ndarray
) -> np.ndarray:
    """(count, V, 3) metres: the body in each pose, moved."""
    shapes = torch.as_tensor(np.tile(betas, (len(poses), 1)))
    return body.vertices(torch.as_tensor(poses), shapes).double().numpy() + moves[:, None]
