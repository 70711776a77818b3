"""Things that stand between the camera and a person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from hmdiff.rendering.scene import Appearance, Mesh
from hmdiff.rendering.textures import sample_pattern

GAP = 0.02  # least distance to the target, relative to its size
TEXTURE = 64  # texels


def box(size: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """A box about the origin with hard edges; size (3,), metres.

    Returns vertices (24, 3), faces (12, 3), anticlockwise seen from outside, and uv (24, 2).
    """
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    vertices, faces = [], []
    for axis in range(3):
        for sign in (1, -1):
            side = np.zeros((4, 3))
            side[:, axis] = sign / 2
            side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = corner[:, 0] * sign, corner[:, 1]
            first = 4 * len(vertices)
            faces += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
            vertices.append(side)
    return np.concatenate(vertices) * size, np.array(faces), np.tile(corner + 0.5, (6, 1))


def capsule(radius: float, length: float) -> tuple[NDArray, NDArray, NDArray]:
    """A ball drawn out along y: ``length`` metres of cylinder between two half balls.

    Returns vertices (n, 3), faces (m, 3), anticlockwise seen from outside, and uv (n, 2).
    """
    rows, columns = 12, 20
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    longitude = np.linspace(0, 2 * np.pi, columns + 1)[None, :]
    y = radius * np.sin(latitude) + np.sign(latitude) * length / 2
    grid = np.stack(
        [
            radius * np.cos(latitude) * np.cos(longitude),
            np.broadcast_to(y, (rows, columns + 1)),
            -radius * np.cos(latitude) * np.sin(longitude),
        ],
        axis=-1,
    )
    u, v = np.meshgrid(np.linspace(0, 2, columns + 1), np.linspace(0, 1, rows))
    low = (np.arange(rows - 1)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    high = low + columns + 1
    faces = np.concatenate(
        [np.stack([low, low + 1, high + 1], axis=1), np.stack([low, high + 1, high], axis=1)]
    )
    return grid.reshape(-1, 3), faces, np.stack([u.ravel(), v.ravel()], axis=1)


def sample_occluder(rng: np.random.Generator, target: NDArray) -> Mesh:
    """A box, plank, ball or capsule before a random part of a target.

    target (n, 3): its vertices in the camera frame, metres. The occluder lies on the ray to one
    of them, wholly nearer to the camera than every one of them, and measures 0.1 to 0.5 of the
    target's larger side in the image (a plank up to 0.9).
    """
    target = np.asarray(target, np.float64)
    closest = target[:, 2].min()
    # Half the distance at most, so that it always fits between.
    extent = min(float(np.ptp(target[:, :2], axis=0).max()), 0.5 * closest)
    shape = rng.integers(4)
    if shape == 0:
        vertices, faces, uv = box(extent * rng.uniform(0.08, 0.25, 3))
    elif shape == 1:
        vertices, faces, uv = box(extent * rng.uniform([0.04, 0.5, 0.02], [0.12, 0.9, 0.05]))
    else:
        length = extent * rng.uniform(0.1, 0.25) if shape == 2 else 0.0
        vertices, faces, uv = capsule(extent * rng.uniform(0.05, 0.15), length)
    vertices = Rotation.random(rng=rng).apply(vertices)
    depth = closest - (GAP + rng.uniform(0, 0.3)) * extent - vertices[:, 2].max()
    aim = target[rng.integers(len(target))]
    vertices = vertices + aim * (depth / aim[2])
    look = Appearance(
        colours=np.zeros((len(vertices), 3)),
        uv=uv,
        texture=sample_pattern(rng, (TEXTURE, TEXTURE)),
        texture_mix=np.ones(len(vertices)),
        specular=float(rng.uniform(0.0, 0.25)),
    )
    return Mesh(vertices, faces, look)
