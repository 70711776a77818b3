"""Random poses, with which models are fitted and mesh sampling is fitted and tested.

They need to reach everywhere, not to look natural: independent Gaussian angles for the body, and
fingers that curl together for the hand.
"""

from __future__ import annotations

import numpy as np

from hmdiff.kinds import Kind

_LIMBS = [1, 2, 4, 5, 16, 17, 18, 19]  # SMPL's hips, knees, shoulders and elbows
_LIMB_DEVIATION = 0.55  # radians
_OTHER_DEVIATION = 0.2

# First joint of each finger in MANO's order, and how far it swings when the hand is spread.
_FINGERS = {"index": (1, 1.0), "middle": (4, 0.2), "little": (7, -1.2), "ring": (10, -0.5)}
_THUMB = 13
_FULL_CURL = (1.3, 1.5, 1.0)  # radians of the three joints of a closed finger
_THUMB_CURL = (0.6, 0.5, 0.8)


def random_poses(
    kind: Kind, joints: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Poses (count, J, 3) in axis-angle radians, a random global orientation first.

    ``joints`` (J, 3) are the model's at rest; for the hand they give the thumb's hinge. The angles
    are relative to the template: ``hands_mean`` is not subtracted.
    """
    if kind.model == "mano":
        fingers = finger_poses(joints, count, rng)
    else:
        deviation = np.full((kind.parameters // 3 - 1, 1), _OTHER_DEVIATION)
        deviation[np.array(_LIMBS) - 1] = _LIMB_DEVIATION
        fingers = rng.normal(size=(count, len(deviation), 3)) * deviation
    return np.concatenate([rng.normal(size=(count, 1, 3)), fingers], axis=1)


def finger_poses(joints: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Angles (count, 15, 3) of the joints of a right hand in MANO's rest pose and joint order.

    The fingers lie along -x and the palm faces -y, so that a finger closes about +z.
    """
    poses = np.zeros((count, 16, 3))
    curl = rng.beta(1.2, 1.8, count)
    spread = 0.08 * rng.normal(size=count)
    for first, swing in _FINGERS.values():
        own = np.clip(curl + 0.18 * rng.normal(size=count), -0.1, 1.1)
        for phalanx, angle in enumerate(_FULL_CURL):
            poses[:, first + phalanx, 2] = angle * own
        poses[:, first, 1] = swing * spread
        poses[:, first] += rng.normal(size=(count, 3)) * [0.05, 0.05, 0.0] - [0, 0, 0.1]
    along = joints[_THUMB + 2] - joints[_THUMB + 1]
    hinge = np.cross(along, [-0.2, -0.6, -1.0])  # the thumb closes towards the palm and fingers
    hinge /= np.linalg.norm(hinge)
    own = np.clip(0.6 * curl + 0.25 * rng.normal(size=count), -0.3, 1)
    for phalanx, angle in enumerate(_THUMB_CURL):
        poses[:, _THUMB + phalanx] = angle * own[:, None] * hinge
    poses[:, _THUMB, 0] += 0.2 * rng.normal(size=count)
    return poses[:, 1:] + 0.02 * rng.normal(size=(count, 15, 3))
