"""Whose rows a 17-joint regressor has: METRO's and GraphCMR's files differ in the legs alone.

METRO's ``J_regressor_h36m_correct.npy`` and GraphCMR's and SPIN's ``J_regressor_h36m.npy`` hold the
same rows, rows 1 to 3 and 4 to 6 exchanged. Taken for one another they swap the legs, and a person
who stands still scores almost as before. What tells them apart holds in any pose: legs are on the
side of the arms, and limbs have a limb's length.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmdiff.errors import UserError
from hmdiff.kinds import BODY

GRAPHCMR = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]  # GraphCMR's rows in METRO's order, and back
# Median lengths over that from pelvis to neck, wide enough for a child and for a stand-in.
_LENGTHS = {
    ("Hip", "Knee"): (0.5, 1.4), ("Knee", "Ankle"): (0.5, 1.4),
    ("Shoulder", "Elbow"): (0.25, 0.9), ("Elbow", "Wrist"): (0.25, 0.9),
}  # fmt: skip
_CLEAR = 0.3  # mean cosine from which on a direction is certain


def metro_order(path: Path, regressor: np.ndarray, meshes: np.ndarray) -> np.ndarray:
    """The rows of ``regressor`` (17, V) in METRO's order, whichever of the two it came in.

    Args:
        path: of the regressor, for the error.
        meshes: (n, V, 3) metres: bodies in any pose and frame, or the template alone.

    Raises:
        UserError: the rows give these meshes neither METRO's joints nor GraphCMR's.
    """
    joints = regressor @ meshes
    side = legs_beside_arms(joints) if _is_body(joints) else 0.0
    if side > _CLEAR:
        return regressor
    if side < -_CLEAR:
        return regressor[GRAPHCMR]
    raise UserError(
        f"{path}: its rows are in neither METRO's nor GraphCMR's order; "
        "use the file that either of them publishes"
    )


def check_metro_order(name: str, joints: np.ndarray) -> None:
    """Refuse joints (n, 17, 3) in GraphCMR's order; ``name`` says where they come from.

    Raises:
        UserError: the legs are on the other side of the body than the arms.
    """
    if legs_beside_arms(joints) < -_CLEAR:
        raise UserError(
            f"{name}: legs and arms are on different sides, as in GraphCMR's and SPIN's order of "
            f"rows; put the rows in METRO's: [{', '.join(map(str, GRAPHCMR))}]"
        )


def legs_beside_arms(joints: np.ndarray) -> float:
    """Mean cosine between right-to-left of hips and of shoulders, joints (n, 17, 3) as METRO's."""
    hips = _joint(joints, "L_Hip") - _joint(joints, "R_Hip")
    shoulders = _joint(joints, "L_Shoulder") - _joint(joints, "R_Shoulder")
    return _cosine(hips, shoulders)


def is_body(joints: np.ndarray) -> bool:
    """Whether joints (n, 17, 3) are those of bodies, in METRO's order."""
    return _is_body(joints) and legs_beside_arms(joints) > _CLEAR


def _is_body(joints: np.ndarray) -> bool:
    """As :func:`is_body`, but the legs may be exchanged."""
    up = _joint(joints, "Neck") - _joint(joints, "Pelvis")
    trunk = np.median(np.linalg.norm(up, axis=1))
    for (upper, lower), (least, most) in _LENGTHS.items():
        for side in ("L", "R"):
            limb = _joint(joints, f"{side}_{upper}") - _joint(joints, f"{side}_{lower}")
            if not least * trunk < np.median(np.linalg.norm(limb, axis=1)) < most * trunk:
                return False
    # Left is where a person's left is who looks ahead: up x forward.
    ahead = _joint(joints, "Nose") - _joint(joints, "Neck")
    left = _joint(joints, "L_Shoulder") - _joint(joints, "R_Shoulder")
    between = (_joint(joints, "L_Shoulder") + _joint(joints, "R_Shoulder")) / 2
    neck = np.linalg.norm(between - _joint(joints, "Neck"), axis=1)
    return bool(np.median(neck) < 0.5 * trunk and _cosine(np.cross(up, ahead), left) > _CLEAR)


def _joint(joints: np.ndarray, name: str) -> np.ndarray:
    return joints[:, BODY.joints.index(name)]


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    size = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / np.maximum(size, 1e-12)).mean())
