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
from dataclasses import dataclass, field

import numpy as np

# Legality of a collapse. Loose bounds: they forbid broken surfaces and leave the choice to the
# quadrics otherwise.
_LEAST_TURN = 0.2  # cosine between a triangle's normals before and after
_LEAST_SHAPE = 0.08  # double area over squared longest edge, below which a triangle is a sliver
_MOST_NEIGHBOURS = 10
_BOUNDARY_WEIGHT = 10.0  # of the planes that hold an open boundary in place

_Triangle = tuple[int, int, int]
_Point = tuple[float, float, float]


@dataclass
class _Surface:
    """The changing mesh: triangles by number and, of each vertex, its triangles."""

    points: list[_Point]
    triangles: list[_Triangle]
    around: list[set[int]]
    boundary: set[int] = field(default_factory=set)
    boundary_edges: list[tuple[int, int, int]] = field(default_factory=list)  # vertices, triangle

    @classmethod
    def of(cls, points: np.ndarray, faces: np.ndarray) -> _Surface:
        triangles = [(int(a), int(b), int(c)) for a, b, c in faces]
        around: list[set[int]] = [set() for _ in range(len(points))]
        edges: dict[tuple[int, int], int] = {}
        for number, (a, b, c) in enumerate(triangles):
            for start, end in ((a, b), (b, c), (c, a)):
                around[start].add(number)
                edges[start, end] = number
        surface = cls([(x, y, z) for x, y, z in points.tolist()], triangles, around)
        for (start, end), number in edges.items():
            if (end, start) not in edges:
                surface.boundary_edges.append((start, end, number))
                surface.boundary.update((start, end))
        return surface

    def neighbours(self, vertex: int) -> set[int]:
        found = {corner for t in self.around[vertex] for corner in self.triangles[t]}
        found.discard(vertex)
        return found

    def collapsible(self, gone: int, kept: int) -> bool:
        """Whether merging ``gone`` into ``kept`` leaves a manifold without folds and slivers."""
        of_gone, of_kept = self.neighbours(gone), self.neighbours(kept)
        if kept not in of_gone:
            return False
        shared = self.around[gone] & self.around[kept]
        opposite = {c for t in shared for c in self.triangles[t]} - {gone, kept}
        if of_gone & of_kept != opposite:  # the link condition
            return False
        if gone in self.boundary and len(shared) != 1:
            return False
        if not 3 <= len(of_gone | of_kept) - 2 <= _MOST_NEIGHBOURS:
            return False
        for corner in opposite:
            if len(self.neighbours(corner)) <= (2 if corner in self.boundary else 3):
                return False
        return all(
            self._keeps_shape(self.triangles[t], gone, kept) for t in self.around[gone] - shared
        )

    def _keeps_shape(self, triangle: _Triangle, gone: int, kept: int) -> bool:
        before = [self.points[c] for c in triangle]
        after = [self.points[kept if c == gone else c] for c in triangle]
        normal_before, area_before, longest_before = _measure(*before)
        normal_after, area_after, longest_after = _measure(*after)
        if area_after < 1e-9:
            return False
        turn = sum(p * q for p, q in zip(normal_before, normal_after, strict=True))
        if area_before > 1e-9 and turn < _LEAST_TURN * area_before * area_after:
            return False
        shape = area_after / longest_after
        return shape >= _LEAST_SHAPE or shape >= 0.9 * area_before / longest_before

    def collapse(self, gone: int, kept: int) -> None:
        for t in self.around[gone] & self.around[kept]:
            for corner in self.triangles[t]:
                self.around[corner].discard(t)
        for t in self.around[gone]:
            a, b, c = (kept if corner == gone else corner for corner in self.triangles[t])
            self.triangles[t] = (a, b, c)
            self.around[kept].add(t)
        self.around[gone] = set()


class _Quadrics:
    """Squared distances to the planes of the faces around each vertex, averaged over poses."""

    def __init__(
        self, surface: _Surface, poses: Sequence[np.ndarray], weights: np.ndarray, stiffness: float
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
    surface = _Surface.of(np.asarray(poses[0], dtype=float), faces)
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
        surface: _Surface,
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


def _measure(a: _Point, b: _Point, c: _Point) -> tuple[_Point, float, float]:
    """Normal (of length twice the area), that length, and the squared longest edge."""
    ax, ay, az = a
    ux, uy, uz = b[0] - ax, b[1] - ay, b[2] - az
    vx, vy, vz = c[0] - ax, c[1] - ay, c[2] - az
    normal = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    wx, wy, wz = vx - ux, vy - uy, vz - uz
    longest = max(
        ux * ux + uy * uy + uz * uz, vx * vx + vy * vy + vz * vz, wx * wx + wy * wy + wz * wz
    )
    return normal, (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) ** 0.5, longest
