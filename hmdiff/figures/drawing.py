"""Meshes as pictures, and pictures as files that are the same bytes for the same numbers."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hmdiff.files import atomic_file
from hmdiff.rendering.scene import Appearance, Light, Mesh, render_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIGHT = Light(np.array([0.36, -0.48, -0.8]), np.ones(3), 0.5)
DPI = 110
LINE = 150  # characters of a caption
PLAIN = (0.65, 0.74, 0.86)  # of a mesh whose colour says nothing


def draw_mesh(
    vertices: NDArray, faces: NDArray, colours: NDArray, camera: NDArray, background: NDArray
) -> NDArray:
    """The mesh over ``background`` (h, w, 3) uint8.

    Args:
        vertices: (V, 3) camera frame, metres. colours: (V, 3) in 0..1.
        camera: (3, 3) intrinsics, pixels.
    """
    count = len(vertices)
    look = Appearance(
        colours=colours,
        uv=np.zeros((count, 2)),
        texture=np.ones((1, 1, 3)),
        texture_mix=np.zeros(count),
        specular=0.1,
    )
    return render_frame([Mesh(vertices, faces, look)], camera, background, LIGHT)[0]


def side_view(vertices: NDArray, root: NDArray) -> NDArray:
    """Vertices (V, 3) relative to ``root`` (3,), in the camera frame, as seen from their side.

    Turned by 90 degrees about the camera's vertical axis through the root: what is nearest to the
    camera comes to lie on the left.
    """
    x, y, z = vertices.T
    return np.stack([z, y, -x], axis=1) + root


def folded(caption: str) -> str:
    """``caption`` in lines that fit below a figure."""
    return textwrap.fill(caption, LINE)


def save_png(figure: Figure, path: Path) -> None:
    """Write ``figure``, without the program's version, so that equal pictures are equal files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
