"""The record that every reader of a native format yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One person (or hand) in one image; metres, pixels, camera frame (x right, y down, z forward).

    Pixels are continuous: the centre of the top left pixel is (0.5, 0.5).

    The mesh is given by ``vertices``, or by ``pose``, ``betas`` and ``translation``, or not at
    all. Where ``joints`` is None, they are to be regressed from the mesh; a joint that the data
    set does not know is NaN.
    """

    sample_id: str  # unique within the data set
    image: Path  # the full image
    split: str  # one of SPLITS
    bbox: np.ndarray  # (4,) x, y, width, height: the box from which the crop is made
    camera: np.ndarray  # (3, 3) intrinsics of the full image
    pose: np.ndarray | None = None  # (P,) axis-angle, global orientation in the camera frame
    betas: np.ndarray | None = None  # (10,)
    translation: np.ndarray | None = None  # (3,) added to the model's output
    gender: str = "neutral"  # one of hmdiff.kinds.GENDERS: the model that pose and betas are for
    vertices: np.ndarray | None = None  # (V, 3)
    joints: np.ndarray | None = None  # (J, 3) in the order of Kind.joints
    # Metres; the sample is of no use where the mesh's joints are further from `joints` on average.
    fit_limit: float | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"{self.sample_id}: split {self.split!r} is none of {SPLITS}")
        parametric = [self.pose is None, self.betas is None, self.translation is None]
        if any(parametric) and not all(parametric) and self.vertices is None:
            raise ValueError(f"{self.sample_id}: a mesh needs pose, betas and translation")
        if not self.valid_mesh and self.joints is None:
            raise ValueError(f"{self.sample_id}: neither a mesh nor joints")

    @property
    def valid_mesh(self) -> bool:
        """Whether the native data say where the surface is."""
        return self.vertices is not None or self.pose is not None
