"""Model folders of SMPL's and MANO's schema with toy surfaces, for tests that need no artefact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.spatial.transform import Rotation

from hmdiff.bodies.model_files import write_folder
from hmdiff.kinds import BODY, Kind

# SMPL's tree, and MANO's: a wrist and five fingers of three joints.
PARENTS = {
    "smpl": (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    "mano": (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14),
}


def _sphere() -> tuple[np.ndarray, np.ndarray]:
    """6890 vertices and 13776 faces: 82 rings of 84 and two poles, an upright ellipsoid."""
    rings, sides = 82, 84
    polar = np.pi * np.arange(1, rings + 1) / (rings + 1)
    around = 2 * np.pi * np.arange(sides) / sides
    ring = np.stack(
        [
            np.outer(np.sin(polar), np.sin(around)),
            np.tile(np.cos(polar)[:, None], sides),
            np.outer(np.sin(polar), np.cos(around)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([ring, [[0, 1.0, 0], [0, -1.0, 0]]]) * [0.3, 0.85, 0.2]
    here = np.arange(rings * sides).reshape(rings, sides)
    after = np.roll(here, -1, axis=1)
    top, bottom = rings * sides, rings * sides + 1
    faces = [
        np.stack([here[:-1], here[1:], after[1:]], -1).reshape(-1, 3),
        np.stack([here[:-1], after[1:], after[:-1]], -1).reshape(-1, 3),
        np.stack([np.full(sides, top), here[0], after[0]], -1),
        np.stack([np.full(sides, bottom), after[-1], here[-1]], -1),
    ]
    return vertices, np.concatenate(faces)


def _cup() -> tuple[np.ndarray, np.ndarray]:
    """778 vertices and 1538 faces with one open loop of 16: a 16-sided fan, divided."""
    angle = 2 * np.pi * np.arange(16) / 16
    points = [np.array([0.0, 0.0]), *np.stack([np.cos(angle), np.sin(angle)], -1)]
    faces = [(0, 1 + i, 1 + (i + 1) % 16) for i in range(16)]
    areas = [1.0] * 16
    while len(points) < 778:
        widest = int(np.argmax(areas))
        a, b, c = faces[widest]
        new = len(points)
        points.append((points[a] + points[b] + points[c]) / 3)
        share = areas[widest] / 3
        faces[widest], areas[widest] = (a, b, new), share
        faces += [(b, c, new), (c, a, new)]
        areas += [share, share]
    flat = np.array(points)
    depth = 1 - (flat**2).sum(1)
    return np.stack([-0.17 * depth, 0.03 * flat[:, 0], 0.05 * flat[:, 1]], -1), np.array(faces)


def write_toy_model(folder: Path, kind: Kind) -> Path:
    """Write a model folder for ``kind``; deterministic. The root joint is off the origin."""
    rng = np.random.default_rng(0)
    vertices, faces = _sphere() if kind.model == "smpl" else _cup()
    joints = kind.parameters // 3
    # Joint regressors average the vertices about random places of the surface.
    near = np.argsort(rng.random((joints, kind.vertices)), axis=1)[:, :8]
    own = np.zeros((joints, kind.vertices))
    np.put_along_axis(own, near, 1 / 8, axis=1)
    scored = np.zeros((kind.joint_count, kind.vertices))
    near = np.argsort(rng.random(scored.shape), axis=1)[:, :8]
    np.put_along_axis(scored, near, 1 / 8, axis=1)
    weights = np.zeros((kind.vertices, joints))
    places = own @ vertices
    nearest = np.argsort(((vertices[:, None] - places) ** 2).sum(-1), axis=1)[:, :2]
    np.put_along_axis(weights, nearest, 0.5, axis=1)
    arrays = {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "shapedirs": rng.normal(0, 0.02, (kind.vertices, 3, 10)) * vertices[:, :, None],
        "posedirs": np.zeros((kind.vertices, 3, 9 * (joints - 1)), np.float32),
        "J_regressor": sp.csc_matrix(own),
        "kintree_table": np.stack([PARENTS[kind.model], np.arange(joints)]),
        "weights": weights,
    }
    if kind.model == "mano":
        numbers = kind.parameters - 3
        arrays |= {"hands_mean": rng.normal(0, 0.1, numbers), "hands_components": np.eye(numbers)}
    write_folder(folder, kind, {"neutral": arrays}, scored, {"source": "stand-in"})
    return folder


# A stick figure in METRO's order: x to the person's left, y up, z ahead; metres, from the parent.
_STICKS = {
    "Pelvis": (None, (0, 0.04, 0)), "R_Hip": ("Pelvis", (-0.11, -0.08, 0)),
    "R_Knee": ("R_Hip", (0, -0.4, 0)), "R_Ankle": ("R_Knee", (0, -0.4, 0)),
    "L_Hip": ("Pelvis", (0.11, -0.08, 0)), "L_Knee": ("L_Hip", (0, -0.4, 0)),
    "L_Ankle": ("L_Knee", (0, -0.4, 0)), "Torso": ("Pelvis", (0, 0.25, 0)),
    "Neck": ("Torso", (0, 0.25, 0)), "Nose": ("Neck", (0, 0.1, 0.1)),
    "Head": ("Neck", (0, 0.2, 0)), "L_Shoulder": ("Neck", (0.17, -0.04, 0)),
    "L_Elbow": ("L_Shoulder", (0.26, 0, 0)), "L_Wrist": ("L_Elbow", (0.25, 0, 0)),
    "R_Shoulder": ("Neck", (-0.17, -0.04, 0)), "R_Elbow": ("R_Shoulder", (-0.26, 0, 0)),
    "R_Wrist": ("R_Elbow", (-0.25, 0, 0)),
}  # fmt: skip
_BENT = {"Knee", "Ankle", "Elbow", "Wrist"}


def stick_bodies(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Meshes (count, 6890, 3), clouds about the joints of posed stick figures, and their regressor.

    The joints, regressor (17, 6890) times mesh, are a person's, in METRO's order, turned at random
    and with limbs bent at random.
    """
    rng = np.random.default_rng(seed)
    joints = np.zeros((count, BODY.joint_count, 3))
    for name, (parent, offset) in _STICKS.items():
        bones = np.tile(np.array(offset, float), (count, 1))
        if name.removeprefix("L_").removeprefix("R_") in _BENT:
            bones = Rotation.from_rotvec(rng.normal(0, 0.7, (count, 3))).apply(bones)
        origin = 0 if parent is None else joints[:, BODY.joints.index(parent)]
        joints[:, BODY.joints.index(name)] = origin + bones
    joints = joints @ Rotation.random(count, rng=rng).as_matrix() + rng.normal(0, 1, (count, 1, 3))
    owner = np.arange(BODY.vertices) % BODY.joint_count
    regressor = (owner == np.arange(BODY.joint_count)[:, None]).astype(float)
    regressor /= regressor.sum(1, keepdims=True)
    cloud = rng.normal(0, 0.04, (BODY.vertices, 3))
    cloud -= (regressor @ cloud)[owner]
    return joints[:, owner] + cloud, regressor
