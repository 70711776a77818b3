"""Triangle meshes: splitting quads, closing holes, and closest points."""

from __future__ import annotations

import numpy as np


def split_quads(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangles (2q, 3) of ``quads`` (q, 4), each cut along its shorter diagonal.

    Ties go the same way on both sides of a mirrored mesh: a diagonal must be shorter by more
    than rounding.
    """
    first = np.linalg.norm(vertices[quads[:, 0]] - vertices[quads[:, 2]], axis=1)
    second = np.linalg.norm(vertices[quads[:, 1]] - vertices[quads[:, 3]], axis=1)
    straight = (first <= second * (1 + 1e-7))[:, None]
    upper = np.where(straight, quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    lower = np.where(straight, quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([upper, lower])


def directed_edges(faces: np.ndarray) -> np.ndarray:
    """(3f, 2) edges of ``faces`` (f, 3) in their winding order."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """Holes of a manifold as vertex cycles, wound as the triangles that would close them."""
    edges = {(int(a), int(b)) for a, b in directed_edges(faces)}
    following = {b: a for a, b in sorted(edges) if (b, a) not in edges}
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex != start:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(loop)
    return loops


def fan(loop: list[int], centre: int) -> np.ndarray:
    """Triangles that join a boundary loop to the vertex ``centre``."""
    return np.array([(a, b, centre) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)])


def least_area_patch(loop: list[int], vertices: np.ndarray) -> np.ndarray:
    """Triangles (n - 2, 3) that close ``loop`` with the least total area.

    Dynamic programming over sub-polygons (Barequet & Sharir, CAGD 1995).
    """
    points = vertices[loop]
    count = len(loop)
    area = np.zeros((count, count))
    apex = np.zeros((count, count), dtype=int)
    for span in range(2, count):
        for start in range(count - span):
            end = start + span
            between = np.arange(start + 1, end)
            sides = np.cross(points[between] - points[start], points[end] - points[start])
            total = area[start, between] + area[between, end] + np.linalg.norm(sides, axis=1) / 2
            apex[start, end] = between[total.argmin()]
            area[start, end] = total.min()
    triangles = []
    waiting = [(0, count - 1)]
    while waiting:
        start, end = waiting.pop()
        if end - start > 1:
            middle = int(apex[start, end])
            triangles.append((loop[start], loop[middle], loop[end]))
            waiting += [(start, middle), (middle, end)]
    return np.array(triangles)


def closest_points(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, candidates: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Closest point of a surface to each of ``points`` (n, 3).

    Only the ``candidates`` triangles with the nearest centroids are looked at, which is exact
    unless triangles differ greatly in size.

    Returns:
        The face (n,) and the barycentric weights (n, 3) therein, not negative and of sum 1.
    """
    count = min(candidates, len(faces))
    from scipy.spatial import cKDTree  # here, for few stages need it

    tree = cKDTree(vertices[faces].mean(1))
    near = tree.query(points, k=count)[1].reshape(len(points), count)
    corners = vertices[faces[near]]  # (n, count, 3 corners, 3)
    weights = _barycentric(points[:, None], corners)
    offsets = np.einsum("nkc,nkcd->nkd", weights, corners) - points[:, None]
    best = (offsets**2).sum(-1).argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], weights[rows, best]


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Weights (..., 3) of the point of each triangle (..., 3, 3) that is closest to its point.

    The interior solution where it is inside; else the best of the three clamped edges.
    """
    a, b, c = np.moveaxis(corners, -2, 0)
    options = []
    for start, end, order in ((a, b, (0, 1, 2)), (b, c, (1, 2, 0)), (c, a, (2, 0, 1))):
        edge = end - start
        length = np.maximum((edge * edge).sum(-1), 1e-30)
        along = np.clip(((points - start) * edge).sum(-1) / length, 0, 1)
        weights = np.zeros((*along.shape, 3))
        weights[..., order[0]] = 1 - along
        weights[..., order[1]] = along
        options.append(weights)
    clamped = np.stack(options)  # (3 edges, ..., 3)
    offsets = np.einsum("e...c,...cd->e...d", clamped, corners) - points
    best = (offsets**2).sum(-1).argmin(0)
    result = np.take_along_axis(clamped, best[None, ..., None], axis=0)[0]

    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    determinant = uu * vv - uv * uv
    safe = np.where(determinant > 0, determinant, 1.0)
    second = (vv * wu - uv * wv) / safe
    third = (uu * wv - uv * wu) / safe
    inside = (determinant > 0) & (second >= 0) & (third >= 0) & (second + third <= 1)
    interior = np.stack([1 - second - third, second, third], axis=-1)
    return np.where(inside[..., None], interior, result)
