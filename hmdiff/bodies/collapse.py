"""A triangle surface whose vertices are merged one by one, without folds, slivers or new holes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Legality of a collapse. Loose bounds: they forbid broken surfaces and leave the choice to the
# quadrics otherwise.
_LEAST_TURN = 0.2  # cosine between a triangle's normals before and after
_LEAST_SHAPE = 0.08  # double area over squared longest edge, below which a triangle is a sliver
_MOST_NEIGHBOURS = 10

_Triangle = tuple[int, int, int]
Point = tuple[float, float, float]


@dataclass
class CollapsingSurface:
    """The changing mesh.

    Attributes:
        points: of each vertex, metres; a merge does not move them.
        triangles: corners by number; those that vanished are in no ``around`` any more.
        around: of each vertex, the numbers of its triangles; empty once it is gone.
        boundary: the vertices on open edges at the start.
        boundary_edges: the open edges at the start, each with its triangle.
    """

    points: list[Point]
    triangles: list[_Triangle]
    around: list[set[int]]
    boundary: set[int] = field(default_factory=set)
    boundary_edges: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, points: np.ndarray, faces: np.ndarray) -> CollapsingSurface:
        """From vertices (n, 3) and triangles (f, 3) of a manifold."""
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
        """Vertices that share a triangle with ``vertex``."""
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
        """Merge ``gone`` into ``kept``; the triangles that hold both vanish."""
        for t in self.around[gone] & self.around[kept]:
            for corner in self.triangles[t]:
                self.around[corner].discard(t)
        for t in self.around[gone]:
            a, b, c = (kept if corner == gone else corner for corner in self.triangles[t])
            self.triangles[t] = (a, b, c)
            self.around[kept].add(t)
        self.around[gone] = set()


def _measure(a: Point, b: Point, c: Point) -> tuple[Point, float, float]:
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
