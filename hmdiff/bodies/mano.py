"""The open stand-in of MANO's right hand: 778 vertices, 1538 faces, 16 joints, from CC0 assets."""

from __future__ import annotations

from typing import Any

import numpy as np
from smplx.vertex_ids import vertex_ids

from hmdiff.bodies.assets import MakeHuman, asset, read_target
from hmdiff.bodies.decimation import decimate
from hmdiff.bodies.poses import finger_poses
from hmdiff.bodies.regressors import FREIHAND_TIPS
from hmdiff.bodies.shape_space import sample_shapes
from hmdiff.bodies.standin import Skeleton, fit_model, numbered, single_precision
from hmdiff.bodies.surface import split_quads
from hmdiff.bodies.tpose import to_tpose
from hmdiff.kinds import HAND
from hmdiff.params.models import BodyModelParams

# MANO's joint order, as MakeHuman's numbers of the fingers.
_FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
JOINTS = ("wrist", *(f"{finger}{i}" for finger in _FINGERS for i in (1, 2, 3)))
PARENTS = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
_ROOT = np.array([0.0957, 0.0064, 0.0062])  # about where MANO's template has its wrist
_ANGLE = 1.6  # radians for the pose blend shapes
_RINGS = 2  # rows of faces of the forearm beyond the hand's texture chart
_BOUNDARY = 16  # vertices of MANO's open wrist: with 778 in all, that gives its 1538 faces
_GRASPS = 2000  # random poses whose principal components are `hands_components`


def build_mano(
    human: MakeHuman, params: BodyModelParams, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Arrays of the right hand under smplx's names (about 2 s)."""
    shape = human.shapes([{}])
    vertices, heads = to_tpose(human, shape, straight_fingers=True)
    vertices, joints = vertices[0], _joints(human, heads)[0]
    faces = split_quads(human.quads[_hand_quads(human)], shape[0])
    weights = _skin_weights(human)
    tips = _tips(vertices, joints, weights, np.unique(faces))
    kept, triangles = decimate(
        [vertices],
        faces,
        HAND.vertices,
        params.stiffness,
        protected=list(tips.values()),
        boundary=_BOUNDARY,
    )
    fixed = {vertex_ids["mano"][finger]: vertex for finger, vertex in tips.items()}
    fixed |= _beside_tips(kept, triangles, tips, vertices)
    order = numbered(kept, fixed)
    kept, triangles = kept[order], np.argsort(order)[triangles]
    people, bones, _ = sample_shapes(
        human, kept, params.shape_samples, rng, _details(len(human.base)), straight_fingers=True
    )
    skeleton = Skeleton(
        HAND, PARENTS, np.full(len(JOINTS), _ANGLE), _ROOT, params.regressor_candidates
    )
    arrays = fit_model(
        skeleton, people, _joints(human, bones), triangles, weights[kept], params.pose_samples, rng
    )
    return {"neutral": arrays | single_precision(_pose_space(arrays["J"], rng))}


def _hand_quads(human: MakeHuman) -> np.ndarray:
    """(q,) which faces make the right hand: its texture chart and some rows of the forearm."""
    tip = human.weights[:, human.bone("finger3-3.R")].toarray().ravel()
    chart = human.charts[tip[human.quads].sum(1).argmax()]
    chosen = human.charts == chart
    for _ in range(_RINGS):
        touched = np.zeros(len(human.base), dtype=bool)
        touched[human.quads[chosen]] = True
        chosen |= touched[human.quads].any(1)
    return chosen


def _joints(human: MakeHuman, heads: np.ndarray) -> np.ndarray:
    """Joints (n, 16, 3) from the bones' heads (n, bones, 3)."""
    bones = ["wrist.R"] + [f"finger{_FINGERS[j[:-1]]}-{j[-1]}.R" for j in JOINTS[1:]]
    return heads[:, [human.bone(bone) for bone in bones]]


def _skin_weights(human: MakeHuman) -> np.ndarray:
    """(n, 16): the phalanges' own weights; everything else follows the wrist."""
    onto = np.zeros((len(human.bones), len(JOINTS)))
    onto[:, 0] = 1
    for column, name in enumerate(JOINTS[1:], start=1):
        bone = human.bone(f"finger{_FINGERS[name[:-1]]}-{name[-1]}.R")
        onto[bone] = np.eye(len(JOINTS))[column]
    return human.weights @ onto


def _tips(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, skin: np.ndarray
) -> dict[str, int]:
    """The foremost vertex of each last phalanx."""
    tips = {}
    for finger in _FINGERS:
        last = JOINTS.index(f"{finger}3")
        allowed = skin[weights[skin, last] > 0.8]
        along = joints[last] - joints[last - 1]
        tips[finger] = int(allowed[(vertices[allowed] @ along).argmax()])
    return tips


def _beside_tips(
    kept: np.ndarray, faces: np.ndarray, tips: dict[str, int], vertices: np.ndarray
) -> dict[int, int]:
    """FreiHAND reads two tips one vertex further on than smplx: give it a neighbour there."""
    fixed = {}
    for finger, vertex in tips.items():
        place = FREIHAND_TIPS[finger.capitalize()]
        if place != vertex_ids["mano"][finger]:
            around = np.setdiff1d(kept[faces[(kept[faces] == vertex).any(1)]], vertex)
            distance = np.linalg.norm(vertices[around] - vertices[vertex], axis=1)
            fixed[place] = int(around[distance.argmin()])
    return fixed


def _details(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """MakeHuman's local sliders of the right hand: displacements (count, 3) of both directions."""
    folder = asset("targets/hands")
    pairs = []
    for name in ("fingers-diameter", "fingers-distance", "fingers-length", "scale"):
        ways = (folder / f"r-hand-{name}-{way}.target.gz" for way in ("decr", "incr"))
        pairs.append(tuple(read_target(path, count) for path in ways))
    return pairs


def _pose_space(joints: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """MANO's `hands_mean` (45,) and `hands_components` (45, 45), a direction a row."""
    poses = finger_poses(joints.astype(np.float64), _GRASPS, rng).reshape(_GRASPS, -1)
    mean = poses.mean(0)
    _, vectors = np.linalg.eigh((poses - mean).T @ (poses - mean))
    components = vectors[:, ::-1].T
    largest = np.abs(components).argmax(1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    return {"hands_mean": mean, "hands_components": components}
