"""A z-buffer for triangles: which one is seen at each sample of a picture.

Plain scalar arithmetic without fast-math, so the result is bit-identical from run to run and from
one CPU to another. Needs no display and no graphics library.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmdiff.jit import jit

NEAR = 0.01  # metres; triangles that reach closer to the camera's plane are not drawn
MIN_AREA = 1e-9  # samples squared; thinner triangles cover no sample and would divide by zero


@jit
def fill(points, nearness, faces, triangle, depth):
    """Draw triangles into ``triangle`` and ``depth``, both (h, w), in place.

    points (n, 2) float64: sample coordinates; sample (x, y) has its centre at (x + .5, y + .5).
    nearness (n,) float64: affine in sample coordinates and larger when nearer (1/z of a perspective
    view); a vertex whose nearness is not positive takes its triangles out.
    faces (m, 3) int; triangle int32, -1 where nothing was drawn; depth float32, 0 there.
    """
    height, width = triangle.shape
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        za, zb, zc = nearness[a], nearness[b], nearness[c]
        if not (za > 0.0 and zb > 0.0 and zc > 0.0):
            continue
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not abs(area) > MIN_AREA:  # also NaN
            continue
        # Sample centres within the bounding box, clipped before the conversion to int.
        left = int(np.ceil(max(min(ax, bx, cx) - 0.5, 0.0)))
        right = int(np.floor(min(max(ax, bx, cx) - 0.5, width - 1.0)))
        top = int(np.ceil(max(min(ay, by, cy) - 0.5, 0.0)))
        bottom = int(np.floor(min(max(ay, by, cy) - 0.5, height - 1.0)))
        inverse = 1.0 / area
        step_a, step_b = (by - cy) * inverse, (cy - ay) * inverse
        for y in range(top, bottom + 1):
            row_a = (bx * (cy - y - 0.5) - cx * (by - y - 0.5)) * inverse
            row_b = (cx * (ay - y - 0.5) - ax * (cy - y - 0.5)) * inverse
            for x in range(left, right + 1):
                wa = row_a + step_a * (x + 0.5)
                wb = row_b + step_b * (x + 0.5)
                wc = 1.0 - wa - wb
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    z = np.float32(wa * za + wb * zb + wc * zc)
                    if z > depth[y, x]:
                        depth[y, x] = z
                        triangle[y, x] = t


@jit
def _sum_normals(vertices, faces, normals):
    for t in range(faces.shape[0]):
        a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
        ux, vx = vertices[b, 0] - vertices[a, 0], vertices[c, 0] - vertices[a, 0]
        uy, vy = vertices[b, 1] - vertices[a, 1], vertices[c, 1] - vertices[a, 1]
        uz, vz = vertices[b, 2] - vertices[a, 2], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += x
            normals[k, 1] += y
            normals[k, 2] += z


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray:
    """Smooth normals: the mean of the adjacent faces' normals, weighted by area.

    vertices (n, 3), faces (m, 3) -> (n, 3) float64 of unit length; 0 at a vertex without area.
    """
    normals = np.zeros((len(vertices), 3))
    _sum_normals(np.asarray(vertices, np.float64), faces, normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def project(vertices: NDArray, camera: NDArray) -> tuple[NDArray, NDArray]:
    """Perspective projection.

    vertices (n, 3) in the camera frame, metres; camera (3, 3) intrinsics, pixels, for which pixel
    (x, y) covers [x, x + 1) x [y, y + 1). Returns pixel coordinates (n, 2) and nearness 1/z (n,),
    which is 0 for vertices closer than ``NEAR`` or behind the camera.
    """
    vertices = np.asarray(vertices, np.float64)
    depth = vertices[:, 2]
    seen = depth >= NEAR  # False for NaN
    nearness = np.divide(1.0, depth, out=np.zeros(len(depth)), where=seen)
    points = (vertices * nearness[:, None]) @ np.asarray(camera, np.float64)[:2].T
    return points, nearness


def rasterise(
    vertices: NDArray, faces: NDArray, camera: NDArray, width: int, height: int
) -> tuple[NDArray, NDArray]:
    """The nearest triangle at every pixel centre.

    vertices (n, 3) in the camera frame, metres; faces (m, 3); camera (3, 3), pixels. Returns the
    triangle's index (height, width) int32, -1 where none, and nearness 1/z float32, 0 where none.
    """
    points, nearness = project(vertices, camera)
    triangle = np.full((height, width), -1, np.int32)
    depth = np.zeros((height, width), np.float32)
    fill(points, nearness, np.asarray(faces, np.int32), triangle, depth)
    return triangle, depth
