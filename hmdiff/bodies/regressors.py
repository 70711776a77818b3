"""Joints as weighted means of vertices: fitting them, and the rows by which meshes are scored."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from hmdiff.kinds import Kind

_SUM_WEIGHT = 100.0  # of the row that asks the weights to sum to 1
_RIDGE = 2e-3
_NEGLIGIBLE = 1e-4
_POSED_WEIGHT = 0.5  # of the posed meshes, against those at rest

# SMPL's kinematic joints behind METRO's 17 rows; the nose and the head are areas of the skin.
_H36M_JOINTS: dict[str, tuple[int, ...]] = {
    "Pelvis": (1, 2), "R_Hip": (2,), "R_Knee": (5,), "R_Ankle": (8,), "L_Hip": (1,),
    "L_Knee": (4,), "L_Ankle": (7,), "Torso": (9,), "Neck": (12,), "L_Shoulder": (16,),
    "L_Elbow": (18,), "L_Wrist": (20,), "R_Shoulder": (17,), "R_Elbow": (19,), "R_Wrist": (21,),
}  # fmt: skip
_NOSE = 332  # smplx's landmark
_AREA = 8  # vertices of the nose and of the crown
# FreiHAND's order from MANO's 16 joints and the finger tips of its toolbox.
FREIHAND_TIPS = {"Thumb": 744, "Index": 320, "Middle": 443, "Ring": 555, "Pinky": 672}
_MANO_FIRST = {"Thumb": 13, "Index": 1, "Middle": 4, "Ring": 10, "Pinky": 7}


def fit_regressor(
    rest: tuple[np.ndarray, np.ndarray],
    posed: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
    parents: np.ndarray,
    candidates: int,
) -> np.ndarray:
    """Joint regressor (J, V): not negative, rows sum to 1, few entries, right on posed meshes too.

    Args:
        rest, posed: meshes (n, V, 3) and their kinematic joints (n, J, 3), metres. A regressor
            fitted at rest alone is 13 mm off on posed bodies (elbows 44 mm).
        weights: (V, J) skin weights; a joint is made of skin that moves with it or its relatives.
        parents: (J,), -1 for the root.
        candidates: how many of the nearest such vertices may take part.
    """
    mean, mean_joints = rest[0].mean(0), rest[1].mean(0)
    regressor = np.zeros((len(parents), len(mean)))
    for joint, parent in enumerate(parents):
        relatives = [joint, *np.flatnonzero(parents == joint), *([parent] if parent >= 0 else [])]
        foreign = weights[:, relatives].sum(1) < 0.5
        distance = np.linalg.norm(mean - mean_joints[joint], axis=1)
        near = np.lexsort((distance, foreign))[:candidates]
        rows = []
        for weight, (meshes, joints) in ((1.0, rest), (_POSED_WEIGHT, posed)):
            offsets = meshes[:, near] - joints[:, joint, None]
            rows.append(weight * offsets.transpose(0, 2, 1).reshape(-1, len(near)))
        ridge = _RIDGE * np.sqrt(len(near)) * np.eye(len(near))
        system = np.vstack([*rows, ridge, np.full((1, len(near)), _SUM_WEIGHT)])
        wanted = np.zeros(len(system))
        wanted[-1] = _SUM_WEIGHT
        solution = nnls(system, wanted)[0]
        solution[solution < _NEGLIGIBLE] = 0
        regressor[joint, near] = solution / solution.sum()
    return regressor


def evaluation_regressor(kind: Kind, regressor: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Rows (kind.joints, V) float64 for a model's own regressor (J, V) and template (V, 3).

    Body: an open counterpart of METRO's J_regressor_h36m_correct. Hand: FreiHAND's 21 joints,
    which hold for licensed models as well.
    """
    rows = []
    if kind.model == "mano":
        rows.append(regressor[0])
        for finger, first in _MANO_FIRST.items():
            tip = np.eye(1, kind.vertices, FREIHAND_TIPS[finger])[0]
            rows += [*regressor[first : first + 3], tip]
    else:
        nose = np.linalg.norm(template - template[_NOSE], axis=1)
        areas = {"Nose": nose, "Head": -template[:, 1]}
        for name in kind.joints:
            if name in areas:
                row = np.zeros(kind.vertices)
                row[np.argsort(areas[name], kind="stable")[:_AREA]] = 1 / _AREA
                rows.append(row)
            else:
                rows.append(regressor[list(_H36M_JOINTS[name])].mean(0))
    return np.stack(rows)
