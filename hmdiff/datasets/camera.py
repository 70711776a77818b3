"""Pinhole cameras: projection, boxes, and moving a posed body from world to camera frame."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def intrinsics(focal: np.ndarray | float, centre: np.ndarray | float) -> np.ndarray:
    """(3, 3) matrix from focal length(s) and principal point, pixels."""
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]] = focal
    matrix[:2, 2] = centre
    return matrix


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Pixels (..., n, 2) of camera-frame ``points`` (..., n, 3), metres.

    ``camera`` holds the intrinsics (3, 3), or (..., 3, 3) where each set of points has its own.
    """
    image = points @ np.swapaxes(camera, -1, -2)
    return image[..., :2] / image[..., 2:]


def to_camera(points: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """World ``points`` (..., 3) in the camera frame: R X + t; units of ``translation``."""
    return points @ rotation.T + translation


def tight_box(pixels: np.ndarray) -> np.ndarray:
    """(4,) x, y, width, height of the smallest box about ``pixels`` (n, 2)."""
    low, high = pixels.min(0), pixels.max(0)
    return np.concatenate([low, high - low])


def body_to_camera(
    pose: np.ndarray,
    translation: np.ndarray,
    root: np.ndarray,
    rotation: np.ndarray,
    camera_translation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Move SMPL parameters from the world to the camera frame.

    SMPL turns a body about its own root joint J0, not about the origin, so that
    ``root' = R root`` and ``trans' = R trans + t - J0 + R J0``.

    Args:
        pose: (n, P) axis-angle, global orientation first, world frame.
        translation: (n, 3) metres, added to the model's output.
        root: (3,) or (n, 3) J0, the root joint of the unposed, shaped body.
        rotation: (n, 3, 3) or (3, 3) world to camera.
        camera_translation: (n, 3) or (3,) metres.

    Returns:
        Pose (n, P) and translation (n, 3) in the camera frame.

    Raises:
        ValueError: ``rotation`` or a global orientation is no rotation.
    """
    moved = pose.copy()
    try:
        turn = Rotation.from_matrix(rotation)
        moved[:, :3] = (turn * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    except ValueError as error:  # of several lines
        raise ValueError(" ".join(str(error).split())) from None
    return moved, turn.apply(translation + root) + camera_translation - root
