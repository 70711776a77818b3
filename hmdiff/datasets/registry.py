"""Which native layout is read how and cropped how: one table, so that no stage asks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import freihand, human36m, threedpw
from hmdiff.datasets.crop import Square, central_square, square_about
from hmdiff.datasets.sample import Sample
from hmdiff.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A native layout. ``Any`` is the record of params.yaml's ``datasets`` that belongs to it."""

    read: Callable[[Path, BodyModel, Any], list[Sample]]
    square: Callable[[Sample, Any], Square]
    crop: str  # the crop rule in words, kept in the prepared file
    protocol: str  # likewise splits and ground truth
    required: tuple[str, ...]  # what a placed copy must hold: paths, the last part may be a glob
    annotations: str  # glob of the annotation files, hashed in the manifest

    def check(self, root: Path) -> None:
        """Raise a UserError that names the first part of the layout missing below ``root``."""
        for name in self.required:
            if next(iter(root.glob(name)), None) is None:
                raise UserError(
                    f"{root}: has no {name}; complete the layout as its README.md says, or leave "
                    "only README.md there to render the stand-in"
                )


LAYOUTS = {
    "human36m": Layout(
        read=human36m.read,
        square=lambda sample, params: square_about(sample.bbox, params.crop),
        crop="square about the native box, side = datasets.crop x its longer side",
        protocol="P2: train S1, 5, 6, 7, 8 less datasets.val_subjects; test S9, 11 with one camera; "
        "motion capture joints; no mesh in test",
        required=tuple(
            f"annotations/Human36M_subject{subject}_{part}.json"
            for subject in (*human36m.TRAIN_SUBJECTS, *human36m.TEST_SUBJECTS)
            for part in ("data", "camera", "joint_3d")
        )
        + ("images/s_*",),
        annotations="annotations/*.json",
    ),
    "3dpw": Layout(
        read=lambda root, body, params: threedpw.read(root, body),
        square=lambda sample, params: square_about(sample.bbox, params.crop),
        crop="square about the tight box of the projected joints, side = datasets.crop x its longer "
        "side",
        protocol="native splits; frames with campose_valid; neutral body whatever the gender; "
        "joints regressed from the mesh",
        required=tuple(f"sequenceFiles/{folder}/*.pkl" for folder in threedpw.FOLDERS)
        + ("imageFiles/*",),
        annotations="sequenceFiles/*/*.pkl",
    ),
    "freihand": Layout(
        read=lambda root, body, params: freihand.read(root, params.held_out),
        square=lambda sample, params: central_square(freihand.FRAME, params.crop * freihand.FRAME),
        crop="square in the middle of the frame, side = datasets.crop x the frame's",
        protocol="all versions of the training images less the last datasets.held_out samples (val);"
        " evaluation set as test; native joints and vertices",
        required=tuple(
            f"{part}_{name}.json"
            for part in ("training", "evaluation")
            for name in ("K", "xyz", "verts", "mano")
        )
        + ("training/rgb/*.jpg", "evaluation/rgb/*.jpg"),
        annotations="*.json",
    ),
}
