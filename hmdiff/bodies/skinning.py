"""Linear blend skinning in numpy, and pose blend shapes that make it behave like dual quaternions.

SMPL's pose blend shapes were learned from scans. The stand-in's are fitted so that linear blend
skinning of one bent joint comes close to dual-quaternion skinning (Kavan et al., I3D 2007), which
keeps the volume where linear blending collapses.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

_RIDGE = 0.1  # on the nine rotation features of a joint


def pose_meshes(
    shaped: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    posedirs: np.ndarray,
    parents: np.ndarray,
    poses: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Pose meshes as SMPL does.

    Args:
        shaped: (n, V, 3) vertices at rest, metres.
        joints: (n, J, 3) their joints.
        weights: (V, J) skin weights.
        posedirs: (V, 3, 9 (J - 1)) pose blend shapes.
        parents: (J,), -1 for the root, which is first.
        poses: (n, J, 3) axis-angle radians, each relative to the parent.

    Returns:
        The posed vertices (n, V, 3) and joints (n, J, 3).
    """
    count, joint_count = poses.shape[:2]
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(count, joint_count, 3, 3)
    features = (local[:, 1:] - np.eye(3)).reshape(count, -1)
    bent = shaped + np.tensordot(features, posedirs, (1, 2))
    turned = local.copy()
    posed = joints.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            offset = joints[:, joint] - joints[:, parent]
            posed[:, joint] = posed[:, parent] + np.einsum("nij,nj->ni", turned[:, parent], offset)
            turned[:, joint] = turned[:, parent] @ local[:, joint]
    shifts = posed - np.einsum("njab,njb->nja", turned, joints)
    vertices = np.empty_like(bent)
    for i in range(count):
        blended = (weights @ turned[i].reshape(joint_count, 9)).reshape(-1, 3, 3)
        vertices[i] = np.einsum("vab,vb->va", blended, bent[i]) + weights @ shifts[i]
    return vertices, posed


def fit_posedirs(
    template: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    parents: np.ndarray,
    largest_angles: np.ndarray,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Pose blend shapes (V, 3, 9 (J - 1)), one joint at a time by ridge regression.

    Args:
        template: (V, 3) vertices at rest; joints: (J, 3); weights: (V, J); parents: (J,).
        largest_angles: (J,) radians up to which each joint is bent about random axes.
        samples: random rotations a joint.
    """
    below = _descendants(parents)
    posedirs = np.zeros((*template.shape, 9 * (len(parents) - 1)))
    for joint in range(1, len(parents)):
        moving = weights[:, below[joint]].sum(1)
        active = np.flatnonzero((moving > 1e-4) & (moving < 1 - 1e-4))
        axes = rng.normal(size=(samples, 3))
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        angles = rng.uniform(0.1, largest_angles[joint], samples)
        rotations = Rotation.from_rotvec(axes * angles[:, None])
        residuals = np.stack(
            [
                _residual(template[active], moving[active], joints[joint], rotation)
                for rotation in rotations
            ]
        )
        features = (rotations.as_matrix() - np.eye(3)).reshape(samples, 9)
        normal = features.T @ features + _RIDGE * np.eye(9)
        solution = np.linalg.solve(normal, features.T @ residuals.reshape(samples, -1))
        columns = slice(9 * (joint - 1), 9 * joint)
        posedirs[active, :, columns] = solution.reshape(9, -1, 3).transpose(1, 2, 0)
    return posedirs


def _descendants(parents: np.ndarray) -> list[list[int]]:
    below = [[joint] for joint in range(len(parents))]
    for joint in range(len(parents) - 1, 0, -1):
        below[parents[joint]] += below[joint]
    return below


def _residual(
    points: np.ndarray, share: np.ndarray, centre: np.ndarray, rotation: Rotation
) -> np.ndarray:
    """What must be added at rest so that linear blending lands where dual quaternions do.

    ``share`` (n,) of each point follows ``rotation`` about ``centre``; the rest stays.
    """
    matrix = rotation.as_matrix()
    shift = centre - matrix @ centre
    real = rotation.as_quat(canonical=True, scalar_first=True)
    dual = 0.5 * _product(np.concatenate([[0.0], shift]), real)
    blended = share[:, None] * real + (1 - share)[:, None] * np.array([1.0, 0.0, 0.0, 0.0])
    length = np.linalg.norm(blended, axis=1, keepdims=True)
    blended, dual = blended / length, share[:, None] * dual / length
    scalar, vector = blended[:, :1], blended[:, 1:]
    moved = 2 * (scalar * dual[:, 1:] - dual[:, :1] * vector + np.cross(vector, dual[:, 1:]))
    target = Rotation.from_quat(blended, scalar_first=True).apply(points) + moved
    linear = share[:, None, None] * matrix + (1 - share)[:, None, None] * np.eye(3)
    at_rest = np.linalg.solve(linear, (target - share[:, None] * shift)[:, :, None])[:, :, 0]
    return at_rest - points


def _product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hamilton product of two quaternions, scalar first."""
    scalar = p[0] * q[0] - p[1:] @ q[1:]
    return np.concatenate([[scalar], p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])])
