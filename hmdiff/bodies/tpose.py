"""MakeHuman's A-pose brought into SMPL's T-pose, for many people at once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.assets import MakeHuman

# Directions of thigh and shin in SMPL's rest pose; x is the side's sign.
_THIGH = (0.055, -1.0, 0.0)
_SHIN = (0.045, -1.0, -0.06)
# Share of the forearm's roll that each twist bone takes, so that the skin does not wring.
_ROLL_SHARES = {"upperarm02": 0.15, "lowerarm01": 0.4, "lowerarm02": 0.8}


def to_tpose(
    human: MakeHuman, vertices: np.ndarray, straight_fingers: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Turn arms sideways, palms down, and legs straight down, by MakeHuman's own skinning.

    Args:
        vertices: (people, n, 3) metres, as ``human.shapes`` gives them.
        straight_fingers: also lay the four fingers straight and level, as in MANO's rest pose.

    Returns:
        The posed vertices (people, n, 3) and the posed heads of all bones (people, bones, 3).
    """
    heads = _ends(human.heads, vertices)
    tails = _ends(human.tails, vertices)
    rotations = np.tile(np.eye(3), (len(vertices), len(human.bones), 1, 1))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        _turn_arm(human, heads, rotations, side, sign)
        if straight_fingers:
            _straighten_fingers(human, heads, tails, rotations, side)
        _turn_leg(human, heads, rotations, side, sign)
    return _skin(human, vertices, heads, rotations)


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Shortest rotations (..., 3, 3) that turn directions ``start`` (..., 3) to ``end``."""
    start = start / np.linalg.norm(start, axis=-1, keepdims=True)
    end = np.broadcast_to(end / np.linalg.norm(end, axis=-1, keepdims=True), start.shape)
    x, y, z = np.moveaxis(np.cross(start, end), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    cosine = (start * end).sum(-1)[..., None, None]
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def _ends(averages: sp.csr_matrix, vertices: np.ndarray) -> np.ndarray:
    return np.stack([averages @ person for person in vertices])


def _rotate(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", rotations, vectors)


def _set(human: MakeHuman, rotations: np.ndarray, bone: str, value: np.ndarray) -> None:
    """Give ``bone`` and everything below it the world rotation ``value``."""
    below = {human.bone(bone)}
    for child, parent in enumerate(human.parents):  # parents stand before children
        if parent in below:
            below.add(child)
    rotations[:, sorted(below)] = value[:, None]


def _turn_arm(
    human: MakeHuman, heads: np.ndarray, rotations: np.ndarray, side: str, sign: float
) -> None:
    def head(name: str) -> np.ndarray:
        return heads[:, human.bone(f"{name}.{side}")]

    outwards = np.array([sign, 0.0, 0.0])
    upper = rotation_between(head("lowerarm01") - head("upperarm01"), outwards)
    _set(human, rotations, f"upperarm01.{side}", upper)
    fore = rotation_between(_rotate(upper, head("wrist") - head("lowerarm01")), outwards) @ upper
    _set(human, rotations, f"lowerarm01.{side}", fore)
    hand = rotation_between(_rotate(fore, head("finger3-1") - head("wrist")), outwards) @ fore
    knuckles = _rotate(hand, head("finger5-1") - head("finger2-1"))
    roll = np.arctan2(-knuckles[:, 1], -knuckles[:, 2])  # brings the knuckles' line to -z
    for bone, share in _ROLL_SHARES.items():
        before = upper if bone.startswith("upper") else fore
        rotations[:, human.bone(f"{bone}.{side}")] = _about_x(share * roll) @ before
    _set(human, rotations, f"wrist.{side}", _about_x(roll) @ hand)


def _straighten_fingers(
    human: MakeHuman, heads: np.ndarray, tails: np.ndarray, rotations: np.ndarray, side: str
) -> None:
    wrist = human.bone(f"wrist.{side}")
    for finger in range(2, 6):
        first = human.bone(f"finger{finger}-1.{side}")
        ray = _rotate(rotations[:, wrist], heads[:, first] - heads[:, wrist]) * [1, 0, 1]
        for phalanx in (1, 2, 3):
            name = f"finger{finger}-{phalanx}.{side}"
            bone = human.bone(name)
            along = _rotate(rotations[:, bone], tails[:, bone] - heads[:, bone])
            _set(human, rotations, name, rotation_between(along, ray) @ rotations[:, bone])


def _turn_leg(
    human: MakeHuman, heads: np.ndarray, rotations: np.ndarray, side: str, sign: float
) -> None:
    def head(name: str) -> np.ndarray:
        return heads[:, human.bone(f"{name}.{side}")]

    mirror = np.array([sign, 1.0, 1.0])
    thigh = rotation_between(head("lowerleg01") - head("upperleg01"), _THIGH * mirror)
    shin = rotation_between(_rotate(thigh, head("foot") - head("lowerleg01")), _SHIN * mirror)
    _set(human, rotations, f"upperleg01.{side}", thigh)
    _set(human, rotations, f"lowerleg01.{side}", shin @ thigh)
    _set(human, rotations, f"foot.{side}", np.tile(np.eye(3), (len(heads), 1, 1)))


def _about_x(angles: np.ndarray) -> np.ndarray:
    cosine, sine, zero = np.cos(angles), np.sin(angles), np.zeros_like(angles)
    rows = [zero + 1, zero, zero, zero, cosine, -sine, zero, sine, cosine]
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


def _skin(
    human: MakeHuman, vertices: np.ndarray, heads: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning with world rotations; the bones' heads follow their parents."""
    posed = np.empty_like(heads)
    for bone, parent in enumerate(human.parents):
        posed[:, bone] = heads[:, bone]
        if parent >= 0:
            offset = heads[:, bone] - heads[:, parent]
            posed[:, bone] = posed[:, parent] + _rotate(rotations[:, parent], offset)
    shifts = posed - _rotate(rotations, heads)
    moved = np.empty_like(vertices)
    for person, points in enumerate(vertices):
        blended = human.weights @ rotations[person].reshape(-1, 9)
        moved[person] = _rotate(blended.reshape(-1, 3, 3), points) + human.weights @ shifts[person]
    return moved, posed
