"""A self-contained HTML page of one recovery: the mesh, its samples and the reverse process."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from typing import Any

import numpy as np
import trimesh
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from trimesh.viewer import scene_to_html

from hmdiff.errors import UserError
from hmdiff.prediction.overlay import colour_range, spread_colours
from hmdiff.prediction.recovery import Recovery

MOST_SAMPLES = 25  # on a page, the paper's N; for a body 1.4 MB
PICTURE = 640  # pixels, longer side of the overlay on the page


def viewer_page(recovery: Recovery, overlay: Image.Image, title: str) -> str:
    """The page's text. It loads nothing, and its policy forbids it to."""
    environment = Environment(
        loader=PackageLoader("hmdiff.prediction", "."), autoescape=True, trim_blocks=True
    )
    return environment.get_template("viewer.html.j2").render(
        title=title,
        recovery=recovery,
        data=page_data(recovery),
        picture=_jpeg(overlay),
        library=_three(),
        shown=min(len(recovery.samples), MOST_SAMPLES),
        top=f"{colour_range(recovery.spread):.1f}",
    )


def page_data(recovery: Recovery) -> dict[str, Any]:
    """Meshes as base64 of little-endian arrays; coordinates are int16 times a scale in metres.

    Over the extent of a body that resolves 0.03 mm.
    """
    trace, samples = recovery.trace, recovery.samples[:MOST_SAMPLES]
    return {
        "faces": _encode(recovery.faces, "<u2"),
        "coarse_faces": _encode(recovery.coarse_faces, "<u2"),
        "colours": _encode(spread_colours(recovery.spread), "u1"),
        "mean": _quantise(recovery.vertices[None]),
        "samples": _quantise(samples),
        "h_k": _quantise(trace.h_k),
        "h0_hat": _quantise(trace.h0_hat),
        "k": trace.k.tolist(),
        # JSON has no NaN
        "ratio": [None if np.isnan(value) else float(value) for value in trace.ratio],
    }


def _quantise(meshes: NDArray) -> dict[str, Any]:
    """Meshes (n, V, 3) of one scale."""
    scale = float(np.abs(meshes).max(initial=0)) / 32767 or 1.0
    return {
        "count": len(meshes),
        "scale": scale,
        "values": _encode((meshes / scale).round(), "<i2"),
    }


def _encode(values: NDArray, form: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(form).tobytes()).decode("ascii")


def _jpeg(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((PICTURE, PICTURE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@cache
def _three() -> Markup:
    """three.js with its TrackballControls (MIT), out of the viewer that trimesh brings along."""
    page = scene_to_html(trimesh.Scene(trimesh.creation.box()))
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    library, found, _ = (script[1] if script else "").partition("var camera,controls,scene")
    if not found or "TrackballControls" not in library:
        raise UserError(
            f"trimesh {trimesh.__version__}: no three.js where it is looked for; install the "
            "version of requirements.lock, or use --no-viewer"
        )
    return Markup(library)
