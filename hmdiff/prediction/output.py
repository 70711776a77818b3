"""The files of one recovery: overlay, meshes, NPZ and viewer page, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from hmdiff.errors import UserError
from hmdiff.files import atomic_directory, write_json, write_text
from hmdiff.prediction.overlay import draw_overlay, spread_colours
from hmdiff.prediction.recovery import Recovery
from hmdiff.prediction.viewer import viewer_page

FORMATS = ("glb", "obj", "ply")
OVERLAY, ARRAYS, PAGE, RECORD = "overlay.png", "prediction.npz", "viewer.html", "record.json"
SHEET = "contact_sheet{}.jpg"
# glTF, and most programs that open a mesh, have y up and z towards the viewer.
TO_VIEWER = np.array([1.0, -1.0, -1.0])
FRAME = "metres; root-relative axes of the camera frame: x right, y down, z forward"
CAMERA = (
    "fitted so that the mesh fills `box` (same centre and longer side); the focal length is the "
    "one that was given, or a guess from the picture's diagonal"
)


def parse_formats(text: str) -> tuple[str, ...]:
    """``glb,obj,ply`` of the command line, or any of them."""
    formats = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"--format {text}: {unknown[0]!r} is none of {', '.join(FORMATS)}")
    return formats


def save(
    recovery: Recovery,
    picture: Image.Image,
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    viewer: bool = True,
    record: dict[str, Any] | None = None,
) -> Image.Image:
    """Write ``folder`` whole or not at all; returns the overlay.

    ``overlay.png`` has the size of ``picture``, ``mesh.FORMAT`` the spread as vertex colours,
    ``prediction.npz`` all numbers, ``viewer.html`` is a page that needs nothing else, and
    ``record.json`` says how all of them were made (``record`` is added to it).
    """
    overlay = draw_overlay(recovery, picture)
    with atomic_directory(folder) as partial:
        overlay.save(partial / OVERLAY, compress_level=3)
        for name in formats:
            export_mesh(recovery, partial / f"mesh.{name}")
        np.savez_compressed(partial / ARRAYS, **arrays(recovery))
        if viewer:
            write_text(partial / PAGE, viewer_page(recovery, overlay, folder.name))
        write_json(partial / RECORD, {**(record or {}), "settings": recovery.settings})
    return overlay


def export_mesh(recovery: Recovery, path: Path) -> None:
    """The mesh with the topology of SMPL or MANO: same vertices, same order, same faces.

    Metres, relative to the root joint, y up and z towards the viewer. The suffix is the format.
    """
    mesh = trimesh.Trimesh(
        recovery.vertices * TO_VIEWER,
        recovery.faces,
        vertex_colors=spread_colours(recovery.spread),
        process=False,
    )
    mesh.export(path)


def arrays(recovery: Recovery) -> dict[str, np.ndarray]:
    """What ``prediction.npz`` holds: the fields of :class:`Recovery`, and text that explains."""
    names = (
        "vertices", "joints", "samples", "samples_coarse", "spread", "faces", "coarse_faces",
        "camera", "translation", "box", "crop", "image_size", "active_steps", "ratio",
    )  # fmt: skip
    found = {name: np.asarray(getattr(recovery, name)) for name in names}
    found |= {
        "joint_names": np.array(recovery.kind.joints),
        "trace_k": recovery.trace.k,
        "trace_h_k": recovery.trace.h_k,
        "trace_h0_hat": recovery.trace.h0_hat,
        "trace_ratio": recovery.trace.ratio,
        "units": np.array(f"{FRAME}; spread: millimetres; camera, box, crop: pixels"),
        "camera_source": np.array(CAMERA),
    }
    return found
