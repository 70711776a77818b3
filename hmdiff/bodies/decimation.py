"""Quadric half-edge collapse that keeps a subset of the vertices.

After Garland & Heckbert (SIGGRAPH 1997) as COMA (Ranjan et al., ECCV 2018) uses it: a vertex is
merged into an existing neighbour, so that skin weights, blend shapes and joints restrict exactly.
Unlike COMA's, a collapse must keep the surface a manifold without folds and slivers, and the error
may be summed over several poses of the mesh.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import numpy as np

from hmdiff.bodies.collapse import CollapsingSurface

_BOUNDARY_WEIGHT = 10.0  # of the planes that hold an open boundary in place


class _Quadrics:
    """Squared distances to the planes of the faces around each vertex, averaged over poses."""

    def __init__(
        self,
        surface: CollapsingSurface,
        poses: Sequence[np.ndarray],
        weights: np.ndarray,
        stiffness: float,
    ):
        faces = np.array(surface.triangles)
        count = len(surface.points)
        self.stiffness = stiffness
        self.points = surface.points
        self.homogeneous = np.concatenate([np.stack(poses), np.ones((len(poses), count, 1))], -1)
        self.values = np.zeros((len(poses), count, 4, 4))
        for value, pose in zip(self.values, poses, strict=True):
            a, b, c = (pose[faces[:, corner]] for corner in range(3))
            normals = np.cross(b - a, c - a)
            areas = np.linalg.norm(normals, axis=1)  # doubled
            normals /= np.maximum(areas, 1e-15)[:, None]
            planes = np.column_stack([normals, -(normals * a).sum(1)])
            outer = planes[:, :, None] * planes[:, None, :] * (areas * weights / 6)[:, None, None]
            for corner in range(3):
                np.add.at(value, faces[:, corner], outer)
            for start, end, triangle in surface.boundary_edges:
                edge = pose[end] - pose[start]
                across = np.cross(edge, normals[triangle])
                across /= max(np.linalg.norm(across), 1e-15)
                plane = np.append(across, -across @ pose[start])
                wall = _BOUNDARY_WEIGHT * (edge @ edge) * np.outer(plane, plane)
                value[start] += wall
                value[end] += wall

    def cost(self, gone: int, kept: int) -> float:
        """Error of merging ``gone`` into ``kept``, with a mild preference for short edges."""
        place = self.homogeneous[:, kept]
        both = self.values[:, gone] + self.values[:, kept]
        error = float(np.einsum("pi,pij,pj->", place, both, place)) / len(place)
        return error + self.stiffness * math.dist(self.points[gone], self.points[kept]) ** 4

    def merge(self, gone: int, kept: int) -> None:
        self.values[:, kept] += self.values[:, gone]


def decimate(
    poses: Sequence[np.ndarray],
    faces: np.ndarray,
    target: int,
    stiffness: float,
    *,
    face_weights: np.ndarray | None = None,
    mirror: np.ndarray | None = None,
    protected: Sequence[int] = (),
    boundary: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices into neighbours until ``target`` are left.

    Args:
        poses: the mesh's vertices (n, 3), metres, in one or more poses; the first one decides
            which collapses would fold the surface.
        faces: (f, 3) triangles of a manifold, with or without a boundary. Vertices outside every
            face are dropped.
        stiffness: weight of the fourth power of an edge's length, which keeps triangles even.
        face_weights: (f,) factors on the error of each face.
        mirror: (n,) partner of each vertex; collapses are then made in mirrored pairs.
        protected: vertices that must stay.
        boundary: number of vertices to which an open boundary is brought first and then kept.

    Returns:
        The kept vertex numbers, rising, and the remaining faces in terms of positions therein.

    Raises:
        ValueError: no legal collapse is left above ``target``.
    """
    surface = CollapsingSurface.of(np.asarray(poses[0], dtype=float), faces)
    weights = np.ones(len(faces)) if face_weights is None else face_weights
    quadrics = _Quadrics(surface, poses, weights, stiffness)
    state = _Collapses(surface, quadrics, set(protected), mirror)
    if boundary is not None:
        state.shorten_boundary(boundary)
    state.run(target)
    kept = np.flatnonzero([bool(triangles) for triangles in surface.around])
    left = sorted({t for triangles in surface.around for t in triangles})
    return kept, np.searchsorted(kept, np.array([surface.triangles[t] for t in left]))


class _Collapses:
    """The queue of candidate collapses; stale entries are recognised by their versions."""

    def __init__(
        self,
        surface: CollapsingSurface,
        quadrics: _Quadrics,
        protected: set[int],
        mirror: np.ndarray | None,
    ):
        self.surface, self.quadrics, self.protected = surface, quadrics, protected
        self.mirror = None if mirror is None else [int(partner) for partner in mirror]
        self.version = [0] * len(surface.around)
        self.count = sum(bool(triangles) for triangles in surface.around)
        self.queue: list[tuple[float, int, int, int, int]] = []

    def run(self, target: int) -> None:
        for vertex, triangles in enumerate(self.surface.around):
            if triangles:
                self._push_around(vertex, both_ways=False)
        while self.count > target:
            if not self.queue:
                raise ValueError(f"no legal collapse is left at {self.count} vertices")
            _, gone, kept, *versions = heapq.heappop(self.queue)
            if versions != [self.version[gone], self.version[kept]]:
                continue
            partner = gone if self.mirror is None else self.mirror[gone]
            if partner != gone and self.count - target < 2:
                continue  # a pair would overshoot
            if not self._collapse(gone, kept) or partner == gone:
                continue
            self._collapse(partner, self.mirror[kept])

    def shorten_boundary(self, target: int) -> None:
        """Bring an open boundary to ``target`` vertices, shortest new edges first; protect it."""
        ring = set(self.surface.boundary)
        while len(ring) > target:
            best = min(self._boundary_candidates(ring), default=None)
            if best is None:
                raise ValueError(f"the boundary cannot be brought below {len(ring)} vertices")
            self._collapse(*best[1:])
            ring.discard(best[1])
        self.protected |= ring

    def _boundary_candidates(self, ring: set[int]) -> Iterator[tuple[float, int, int]]:
        surface = self.surface
        for gone in sorted(ring - self.protected):
            beside = [
                v
                for v in sorted(surface.neighbours(gone) & ring)
                if len(surface.around[gone] & surface.around[v]) == 1
            ]
            for kept in beside:
                if len(beside) == 2 and surface.collapsible(gone, kept):
                    first, second = (surface.points[v] for v in beside)
                    yield math.dist(first, second), gone, kept

    def _collapse(self, gone: int, kept: int) -> bool:
        if gone in self.protected or not self.surface.collapsible(gone, kept):
            return False
        self.surface.collapse(gone, kept)
        self.quadrics.merge(gone, kept)
        self.count -= 1
        self.version[gone] += 1
        self.version[kept] += 1
        self._push_around(kept, both_ways=True)
        return True

    def _push_around(self, vertex: int, both_ways: bool) -> None:
        for other in sorted(self.surface.neighbours(vertex)):
            self._push(vertex, other)
            if both_ways:
                self._push(other, vertex)

    def _push(self, gone: int, kept: int) -> None:
        if gone in self.protected:
            return
        if self.mirror is not None:
            on_plane = self.mirror[gone] == gone
            if self.mirror[gone] == kept or (on_plane and self.mirror[kept] != kept):
                return  # would break the symmetry
        entry = (self.quadrics.cost(gone, kept), gone, kept)
        heapq.heappush(self.queue, (*entry, self.version[gone], self.version[kept]))
