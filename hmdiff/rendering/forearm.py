"""A forearm for a hand mesh, which ends in an open loop at the wrist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmdiff.rendering.scene import Appearance, Mesh

RINGS = np.array([0.0, 0.02, 0.05, 0.09, 0.14, 0.20, 0.28])  # metres from the wrist's loop


def boundary_loop(faces: NDArray) -> NDArray:
    """Vertices round the one hole of a mesh, each once, in the order of the faces' edges.

    faces (m, 3) -> (k,). Raises ValueError unless the mesh has exactly one simple boundary loop.
    """
    faces = np.asarray(faces, np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = faces.max() + 1
    open_ = ~np.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])
    following = dict(edges[open_].tolist())
    if not following:
        raise ValueError("the mesh has no boundary")
    loop = [min(following)]
    while (vertex := following.pop(loop[-1], None)) is not None and vertex != loop[0]:
        loop.append(vertex)
    if following or vertex is None:
        raise ValueError("the mesh has more than one boundary loop")
    return np.array(loop)


def _colours_at(look: Appearance, vertices: NDArray) -> NDArray:
    """What the appearance shows at some vertices: (k, 3)."""
    height, width = look.texture.shape[:2]
    u, v = (look.uv[vertices] % 1.0).T
    texels = look.texture[(v * height).astype(int), (u * width).astype(int)]
    share = look.texture_mix[vertices][:, None]
    return look.colours[vertices] * (1 - share) + texels * share


def sample_forearm(rng: np.random.Generator, hand: Mesh) -> Mesh:
    """A tapered tube from the wrist's loop away from the hand, in the loop's own colours.

    The hand's vertices are in the camera frame, metres; so are the result's. It starts on the
    loop itself and leads away, so that it hides no more of the hand than an arm does.
    """
    loop = boundary_loop(hand.faces)
    rim = np.asarray(hand.vertices, np.float64)[loop]
    centre = rim.mean(axis=0)
    spread = rim - centre
    normal = np.linalg.svd(spread)[2][2]
    away = centre - np.asarray(hand.vertices, np.float64).mean(axis=0)
    normal = normal if normal @ away > 0 else -normal
    bend = rng.normal(0, 0.12, 3)
    widening = rng.uniform(1.2, 2.2)  # a metre, relative to the wrist
    rings = [
        centre + normal * step + bend * step**2 * 3 + spread * (1 + widening * step)
        for step in RINGS
    ]
    count = len(loop)
    here, after = np.arange(count), (np.arange(count) + 1) % count
    quads = [
        np.concatenate(
            [
                np.stack([low + after, low + here, low + count + here], axis=1),
                np.stack([low + after, low + count + here, low + count + after], axis=1),
            ]
        )
        for low in range(0, count * (len(RINGS) - 1), count)
    ]
    vertices = np.concatenate(rings)
    look = Appearance(
        colours=np.tile(_colours_at(hand.appearance, loop), (len(RINGS), 1)),
        uv=np.zeros((len(vertices), 2)),
        texture=np.ones((1, 1, 3)),
        texture_mix=np.zeros(len(vertices)),
        specular=hand.appearance.specular,
    )
    return Mesh(vertices, np.concatenate(quads), look)
