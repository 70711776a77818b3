"""Random poses within what joints allow: bodies, short sequences of them, hands.

Body poses are SMPL's: axis-angle about axes that are x left, y up, z forward in the T-pose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

# Rows of a (24, 3) SMPL pose.
HIPS, KNEES, ANKLES = (1, 2), (4, 5), (7, 8)  # left, right
SPINE, NECK, HEAD = (3, 6, 9), 12, 15
COLLARS, SHOULDERS, ELBOWS, WRISTS = (13, 14), (16, 17), (18, 19), (20, 21)

KEY_FRAMES = 12  # between key poses of a sequence: half a second at 25 frames a second

# Deviation of a hand pose along MANO's principal components, radians, and how far it may go.
HAND_DEVIATIONS = np.array([1.1, 0.45, 0.4, 0.4, 0.35, 0.25, 0.2, 0.1, 0.1, 0.1])
HAND_LIMIT = 1.8  # deviations


def compose(rotation: NDArray, orientation: NDArray) -> NDArray:
    """Turn orientations by a rotation, for example from the world to a camera.

    rotation (3, 3); orientation (..., 3) axis-angle -> (..., 3) axis-angle of the product.
    """
    turned = Rotation.from_matrix(rotation) * Rotation.from_rotvec(orientation.reshape(-1, 3))
    return turned.as_rotvec().reshape(orientation.shape)


def _sample_legs(rng: np.random.Generator) -> NDArray:
    """(2, 2): flexion of the hip (forward) and of the knee for both legs, radians."""
    action = rng.choice(["stand", "walk", "sit", "raise", "lunge"], p=[0.3, 0.3, 0.15, 0.1, 0.15])
    if action == "stand":
        flexion = np.stack([rng.normal(0.1, 0.15, 2), np.abs(rng.normal(0.1, 0.15, 2))], axis=1)
    elif action == "walk":
        swing = rng.normal(0, 0.45)
        hips = np.array([0.1 + swing, 0.1 - swing])
        # The leg that is behind is bent more.
        knees = np.abs(rng.normal(0.2, 0.2, 2)) + np.maximum(-hips, 0)
        flexion = np.stack([hips, knees], axis=1)
    elif action == "sit":
        hips = rng.uniform(0.7, 1.6) + rng.normal(0, 0.12, 2)
        flexion = np.stack([hips, rng.uniform(0.6, 1.8, 2)], axis=1)
    elif action == "raise":
        flexion = np.array(
            [
                [rng.uniform(0.6, 1.6), rng.uniform(0.3, 2.0)],
                [rng.normal(0, 0.2), abs(rng.normal(0.1, 0.2))],
            ]
        )
    else:
        flexion = np.array(
            [
                [rng.uniform(0.5, 1.2), rng.uniform(0.5, 1.3)],
                [-rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.9)],
            ]
        )
    return flexion[:: rng.choice([-1, 1])]


# Per manner of holding an arm: range of its elevation above the T-pose, then mean and deviation
# of its swing to the front, radians.
ARMS = (
    ((-1.35, -0.95), (0.10, 0.20)),  # hanging
    ((-1.2, -0.7), (0.5, 0.4)),  # loosely forward
    ((-0.6, 0.1), (0.3, 0.4)),  # out
    ((0.2, 1.1), (0.1, 0.3)),  # up
    ((-0.7, 0.3), (1.0, 0.3)),  # reaching
)


def _sample_shoulder(rng: np.random.Generator, manner: int, side: int) -> NDArray:
    """(3,) axis-angle; side 1 is left, -1 right."""
    (low, high), (mean, deviation) = ARMS[manner]
    raise_ = Rotation.from_rotvec([0, 0, side * rng.uniform(low, high)])
    forward = Rotation.from_rotvec([0, -side * np.clip(rng.normal(mean, deviation), -0.6, 1.7), 0])
    twist = Rotation.from_rotvec([rng.normal(0, 0.4), 0, 0])
    return (forward * raise_ * twist).as_rotvec()


def sample_body_pose(rng: np.random.Generator) -> NDArray:
    """(23, 3) axis-angle of SMPL's joints after the root, radians: standing, walking, sitting,
    raising a leg or lunging, with the arms held independently."""
    pose = np.zeros((24, 3))
    pose[list(SPINE)] = rng.normal(0, [0.15, 0.12, 0.08], (3, 3))
    if rng.random() < 0.2:  # bending forward
        pose[list(SPINE), 0] += rng.uniform(0.1, 0.35)
    pose[NECK] = rng.normal(0, 0.12, 3)
    pose[HEAD] = rng.normal(0, [0.15, 0.25, 0.1])
    alike = rng.random() < 0.4
    manner = rng.integers(len(ARMS))
    for i, (flexion, side) in enumerate(zip(_sample_legs(rng), (1, -1), strict=True)):
        apart = abs(rng.normal(0.05, 0.12))
        pose[HIPS[i]] = [-flexion[0], side * rng.normal(0, 0.2), side * apart]
        pose[KNEES[i], 0] = flexion[1]
        pose[ANKLES[i]] = rng.normal(0, [0.15, 0.1, 0.08])
        if not alike:
            manner = rng.integers(len(ARMS))
        pose[COLLARS[i]] = rng.normal(0, 0.07, 3)
        pose[SHOULDERS[i]] = _sample_shoulder(rng, manner, side)
        pose[ELBOWS[i], 1] = -side * rng.uniform(0, 2.0) * (rng.random() < 0.8)
        pose[WRISTS[i]] = rng.normal(0, 0.25, 3)
    return pose[1:]


def _orientation(yaw: float, tilt: NDArray) -> NDArray:
    turn = Rotation.from_rotvec([0, yaw, 0])
    return (turn * Rotation.from_rotvec([tilt[0], 0, tilt[1]])).as_rotvec()


def pose_sequence(rng: np.random.Generator, frames: int, yaw_limit: float) -> NDArray:
    """(frames, 72) axis-angle of a smooth sequence in a world with y up, radians.

    Key poses ``KEY_FRAMES`` apart are joined along great circles, at rest at each key. Yaw stays
    within plus and minus ``yaw_limit`` degrees of facing +z.
    """
    count = 3 + (frames - 1) // KEY_FRAMES
    limit = np.radians(yaw_limit)
    yaw = rng.uniform(-limit, limit)
    keys = np.empty((count, 24, 3))
    for key in keys:
        key[0] = _orientation(yaw, rng.normal(0, [0.12, 0.06]))
        key[1:] = sample_body_pose(rng)
        yaw = np.clip(yaw + rng.normal(0, 0.35), -limit, limit)
    start = rng.uniform(0, 1)  # so that a sequence of one frame is not always a key pose
    time = start + np.arange(frames) / KEY_FRAMES
    key = time.astype(int)
    part = time - key
    ease = part * part * (3 - 2 * part)
    first = Rotation.from_rotvec(keys[key].reshape(-1, 3))
    second = Rotation.from_rotvec(keys[key + 1].reshape(-1, 3))
    way = (first.inv() * second).as_rotvec() * np.repeat(ease, 24)[:, None]
    return (first * Rotation.from_rotvec(way)).as_rotvec().reshape(frames, 72)


def sample_hand_pose(rng: np.random.Generator, components: NDArray) -> NDArray:
    """(45,) axis-angle that a MANO model with flat_hand_mean=False adds to its mean pose.

    components (45, 45): the model's hands_components, a principal direction a row.
    """
    count = len(HAND_DEVIATIONS)
    weights = rng.uniform(-HAND_LIMIT, HAND_LIMIT, count) * HAND_DEVIATIONS
    return weights @ np.asarray(components, np.float64)[:count]


def sample_hand_orientation(rng: np.random.Generator, yaw_limit: float) -> NDArray:
    """(3,) axis-angle of MANO's global orientation in the camera frame.

    The palm or the back of the hand looks at the camera, turned about the fingers' direction by
    at most ``yaw_limit`` degrees, tilted, and rolled freely in the image.
    """
    # MANO's right hand: fingers towards -x, palm towards -y. Here: fingers up, palm to the camera.
    upright = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    limit = np.radians(yaw_limit)
    yaw = rng.uniform(-limit, limit) + (np.pi if rng.random() < 0.5 else 0.0)
    roll = Rotation.from_rotvec([0, 0, rng.uniform(-np.pi, np.pi)])
    tilt = Rotation.from_rotvec([rng.normal(0, 0.35), 0, 0])
    return (roll * tilt * Rotation.from_rotvec([0, yaw, 0]) * upright).as_rotvec()
