"""A camera for a mesh that has none: fitted so that the mesh fills the person's box.

The recovered mesh is metric and relative to its root joint, and so is all that the extractor says
of the image (its heatmaps have metric axes). Nothing in the method tells how large the person is
in pixels, or how far away. What does is the box from which the crop was made, so the camera is the
one for which the mesh's own box has the centre and the longer side of the person's box.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hmdiff.datasets.camera import intrinsics, project, tight_box
from hmdiff.errors import UserError

ITERATIONS = 100  # perspective makes each a small correction of the one before; about 10 are needed
TOLERANCE = 1e-4  # of the box's longer side
NEAREST = 0.05  # metres between the camera and the nearest vertex


def full_camera(size: tuple[int, int], focal: float) -> NDArray:
    """Intrinsics (3, 3) of a picture of ``size`` (width, height) pixels; ``focal`` in diagonals.

    One diagonal, a field of view of 53 degrees along it, is what CLIFF (Li et al. 2022) takes for
    pictures of an unknown camera. The principal point is the middle.
    """
    return intrinsics(focal * math.hypot(*size), np.asarray(size) / 2)


def fit_translation(vertices: NDArray, box: NDArray, camera: NDArray) -> NDArray:
    """Where the root joint is, (3,) metres, for the mesh to fill ``box``.

    Args:
        vertices: (V, 3) root-relative metres, axes of the camera frame.
        box: (4,) x, y, width, height in pixels of the full picture.
        camera: (3, 3) intrinsics of the full picture, with one focal length.

    Raises:
        UserError: the box is so large that the camera would be inside the mesh.
    """
    vertices = np.asarray(vertices, np.float64)
    wanted, centre = max(box[2:]), np.asarray(box[:2]) + np.asarray(box[2:]) / 2
    focal, principal = camera[0, 0], camera[:2, 2]
    extent = max(np.ptp(vertices[:, 0]), np.ptp(vertices[:, 1]))
    # From the sizes alone, as if the mesh were flat: a nearer start could lie inside the mesh.
    nearest = NEAREST - vertices[:, 2].min()
    depth = max(focal * extent / wanted, nearest)
    translation = np.array([*((centre - principal) * depth / focal), depth])
    for _ in range(ITERATIONS):
        found = tight_box(project(vertices + translation, camera))
        ratio = max(found[2:]) / wanted
        shift = centre - found[:2] - found[2:] / 2
        if max(abs(ratio - 1), *abs(shift) / wanted) < TOLERANCE:
            return translation
        # Damped: close to the camera the nearest vertices grow faster than 1 / depth.
        depth = max(translation[2] * math.sqrt(ratio), nearest)
        lateral = translation[:2] / translation[2] + shift / focal
        translation = np.array([*(lateral * depth), depth])
    raise UserError(
        f"box {', '.join(f'{value:g}' for value in box)}: no camera at a focal length of "
        f"{focal:.0f} pixels shows the mesh that large; give a longer focal length"
    )
