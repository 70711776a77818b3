"""People with a fit of SMPL in the frame of the camera that sees them, as NeuralAnnot stores them.

``smpl_param`` holds ``pose`` (72), ``shape`` (10) and ``trans`` (3, metres), ``cam_param`` holds
``focal`` and ``princpt`` (2 each, pixels). Four layouts are made of such people: UP-3D, MuCo, COCO
and MPII.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hmdiff.datasets.camera import intrinsics
from hmdiff.datasets.streaming import members
from hmdiff.errors import UserError

# What the parts of an entry raise when they are missing or something else than they should be.
DAMAGE = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A person to be written in one of the layouts; metres, camera frame."""

    pose: np.ndarray  # (72,) axis-angle
    betas: np.ndarray  # (10,)
    translation: np.ndarray  # (3,)
    joints: np.ndarray  # (17, 3) order of Kind.joints
    bbox: np.ndarray  # (4,) pixels


@dataclass(frozen=True)
class Shot:
    """An image with the people in it; the file of image ``number`` is the layout's to name."""

    number: int
    size: tuple[int, int]  # width, height
    focal: np.ndarray  # (2,) px
    centre: np.ndarray  # (2,) px
    people: Sequence[Person]

    @property
    def camera(self) -> np.ndarray:
        """(3, 3) intrinsics."""
        return intrinsics(self.focal, self.centre)


def as_fit(person: Person) -> dict[str, list[float]]:
    """``smpl_param`` of ``person``."""
    return {
        "pose": person.pose.tolist(),
        "shape": person.betas.tolist(),
        "trans": person.translation.tolist(),
    }


def read_fit(smpl: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Pose, betas and translation of a Sample from ``smpl_param``.

    Raises:
        KeyError, TypeError, ValueError: a part is missing, not numeric or of another size.
    """
    return {
        "pose": np.array(smpl["pose"], float).reshape(72),
        "betas": np.array(smpl["shape"], float).reshape(10),
        "translation": np.array(smpl["trans"], float).reshape(3),
    }


def read_fits(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Annotation id and fit of every member of the JSON object ``path``.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    for number, fit in members(path):
        if not isinstance(fit, dict):
            raise UserError(f"{path}: {number} is no fit; put back the annotations")
        yield number, fit


def read_camera(focal: Any, centre: Any) -> np.ndarray:
    """(3, 3) intrinsics from two focal lengths and a principal point, pixels.

    Raises:
        TypeError, ValueError: they are not two numbers each, or a focal length is not positive.
    """
    lengths = np.array(focal, float).reshape(2)
    if not (lengths > 0).all():
        raise ValueError(f"a focal length of {lengths.min():g}")
    return intrinsics(lengths, np.array(centre, float).reshape(2))


def read_box(value: Any, smallest: float) -> np.ndarray | None:
    """(4,) x, y, width, height; None where neither side has ``smallest`` pixels.

    Raises:
        TypeError, ValueError: it is not four finite numbers.
    """
    box = np.array(value, float).reshape(4)
    if not np.isfinite(box).all():
        raise ValueError("a box that is not finite")
    return box if box[2:].max() >= smallest else None


def damaged(path: Path, entry: Any, error: Exception) -> UserError:
    """What to raise where ``entry`` of ``path`` lacks a key or holds something else: ``error``."""
    reason = f"has no {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
    return UserError(f"{path}: {entry} {reason}; put back the annotations")


def below(folder: Path, name: str) -> Path:
    """The file ``name`` of an annotation in ``folder`` or in a folder inside.

    Raises:
        TypeError, ValueError: it is no text, or leads out of ``folder``.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"a file name that leads elsewhere, {name!r}")
    return folder / path


def first_present(folder: Path, names: Sequence[str]) -> Path:
    """The first of the files ``names`` that is in ``folder``.

    Raises:
        UserError: none is.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: no {' or '.join(names)}; place one of these fits of SMPL there")
