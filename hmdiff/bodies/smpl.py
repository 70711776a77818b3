"""The open stand-in of SMPL: 6890 vertices, 13776 faces, 24 joints, from CC0 assets."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from smplx.vertex_ids import vertex_ids

from hmdiff.bodies.assets import MakeHuman
from hmdiff.bodies.decimation import decimate
from hmdiff.bodies.shape_space import sample_shapes
from hmdiff.bodies.standin import Skeleton, fit_model, numbered, single_precision
from hmdiff.bodies.surface import boundary_loops, fan, least_area_patch, split_quads
from hmdiff.bodies.tpose import to_tpose
from hmdiff.kinds import BODY
from hmdiff.params.models import BodyModelParams

JOINTS = (
    "pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle", "r_ankle",
    "spine3", "l_foot", "r_foot", "neck", "l_collar", "r_collar", "head", "l_shoulder",
    "r_shoulder", "l_elbow", "r_elbow", "l_wrist", "r_wrist", "l_hand", "r_hand",
)  # fmt: skip
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
)
_ROOT = np.array([0.0, -0.22, 0.03])  # about where SMPL's template has its pelvis
_ANGLE, _HINGE_ANGLE = 1.4, 1.9  # radians for the pose blend shapes; knees and elbows bend further

# The bone at whose head a joint sits, centrally and on each side.
_CENTRAL_HEADS = {
    "spine1": "spine04", "spine2": "spine03", "spine3": "spine02", "neck": "neck01", "head": "head",
}  # fmt: skip
_SIDE_HEADS = {
    "hip": ("upperleg01",), "knee": ("lowerleg01",), "ankle": ("foot",),
    "foot": tuple(f"toe{i}-1" for i in range(1, 6)), "collar": ("clavicle",),
    "shoulder": ("upperarm01",), "elbow": ("lowerarm01",), "wrist": ("wrist",),
    "hand": tuple(f"finger{i}-1" for i in range(2, 6)),
}  # fmt: skip
# The joint that a bone's skin follows, by the start of the bone's name.
_SIDE_SKIN = {
    "upperleg": "hip", "lowerleg": "knee", "foot": "ankle", "toe": "foot", "clavicle": "collar",
    "shoulder": "collar", "upperarm": "shoulder", "lowerarm": "elbow", "wrist": "wrist",
    "metacarpal": "wrist", "finger": "hand",
}  # fmt: skip
_CENTRAL_SKIN = {
    "root": "pelvis", "pelvis": "pelvis", "spine05": "pelvis", "spine04": "spine1",
    "spine03": "spine2", "spine02": "spine3", "spine01": "spine3", "breast": "spine3",
    "neck": "neck",
}  # fmt: skip
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def build_smpl(
    human: MakeHuman, params: BodyModelParams, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Arrays of the body under smplx's names (about 5 s), for each gender.

    Man and woman share everything with the neutral body but the mean shape: theirs is the mean of
    the sampled men or women.
    """
    shape = human.shapes([{}])
    vertices = to_tpose(human, shape, straight_fingers=False)[0][0]
    faces, eyes = _closed_skin(human, shape[0])
    weights = _skin_weights(human)
    landmarks = _landmarks(human, vertices, weights, np.unique(faces), eyes)
    kept, triangles = decimate(
        [vertices],
        faces,
        BODY.vertices,
        params.stiffness,
        face_weights=_detail(weights, faces, params.detail),
        mirror=_mirror(shape[0], np.unique(faces)),
        protected=list(landmarks.values()),
    )
    order = numbered(kept, {vertex_ids["smplh"][name]: v for name, v in landmarks.items()})
    kept, triangles = kept[order], np.argsort(order)[triangles]
    people, bones, genders = sample_shapes(human, kept, params.shape_samples, rng)
    joints = _joints(human, bones)
    hinges = [name[2:] in ("knee", "elbow") for name in JOINTS]
    skeleton = Skeleton(
        BODY, PARENTS, np.where(hinges, _HINGE_ANGLE, _ANGLE), _ROOT, params.regressor_candidates
    )
    neutral = fit_model(
        skeleton, people, joints, triangles, weights[kept], params.pose_samples, rng
    )
    models = {"neutral": neutral}
    for gender, members in (("male", genders < 0.5), ("female", genders >= 0.5)):
        mean = (people[members] + (_ROOT - joints[members, :1])).mean(0)
        own = {"v_template": mean, "J": neutral["J_regressor"] @ mean}
        models[gender] = neutral | single_precision(own)
    return models


def _closed_skin(human: MakeHuman, vertices: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """The skin without the insides of mouth and eye sockets, closed; and the pupils' vertices.

    Those insides are the three smallest charts of the texture. The lips' gap is patched, and the
    lids are joined to the foremost vertex of the eyeball.
    """
    inside = np.argsort(np.bincount(human.charts))[:3]
    faces = split_quads(human.quads[~np.isin(human.charts, inside)], vertices)
    patches = [faces]
    eyes = {}
    for loop in boundary_loops(faces):
        x = vertices[loop, 0].mean()
        if abs(x) < 0.01:
            patches.append(least_area_patch(loop, vertices))
        else:
            side = "l" if x > 0 else "r"
            ball = human.groups[f"helper-{side}-eye"]
            eyes[side] = int(ball[vertices[ball, 2].argmax()])
            patches.append(fan(loop, eyes[side]))
    return np.concatenate(patches), eyes


def _joint_of(bone: str) -> str:
    name, _, side = bone.partition(".")
    if side:
        for start, joint in _SIDE_SKIN.items():
            if name.startswith(start):
                return f"{side.lower()}_{joint}"
    for start, joint in _CENTRAL_SKIN.items():
        if name.startswith(start):
            return joint
    return "head"


def _skin_weights(human: MakeHuman) -> np.ndarray:
    """(n, 24): MakeHuman's bones summed onto SMPL's joints."""
    onto = np.zeros((len(human.bones), len(JOINTS)))
    onto[np.arange(len(human.bones)), [JOINTS.index(_joint_of(b)) for b in human.bones]] = 1
    return human.weights @ onto


def _joints(human: MakeHuman, heads: np.ndarray) -> np.ndarray:
    """Joints (n, 24, 3) from the bones' heads (n, bones, 3)."""

    def mean(*bones: str) -> np.ndarray:
        return heads[:, [human.bone(bone) for bone in bones]].mean(1)

    placed = []
    for name in JOINTS:
        if name == "pelvis":
            hips = mean("upperleg01.L", "upperleg01.R")
            placed.append(0.6 * hips + 0.4 * mean("spine04"))
        elif name in _CENTRAL_HEADS:
            placed.append(mean(_CENTRAL_HEADS[name]))
        else:
            side = name[0].upper()
            placed.append(mean(*(f"{bone}.{side}" for bone in _SIDE_HEADS[name[2:]])))
    return np.stack(placed, axis=1)


def _landmarks(
    human: MakeHuman,
    vertices: np.ndarray,
    weights: np.ndarray,
    skin: np.ndarray,
    eyes: dict[str, int],
) -> dict[str, int]:
    """Vertices in T-pose that smplx reads as nose, eyes, ears, toes, heels and finger tips."""

    def extreme(weight: np.ndarray, least: float, *direction: float) -> int:
        allowed = skin[weight[skin] > least]
        return int(allowed[(vertices[allowed] @ direction).argmax()])

    def bone(name: str) -> np.ndarray:
        return human.weights[:, human.bone(name)].toarray().ravel()

    head = weights[:, JOINTS.index("head")]
    middle = np.where(np.abs(vertices[:, 0]) < 2e-3, head, 0)
    found = {"nose": extreme(middle, 0.5, 0, 0, 1)}
    for side, upper, x in (("l", "L", 1), ("r", "R", -1)):
        found[f"{side}eye"] = eyes[side]
        found[f"{side}ear"] = extreme(head, 0.9, x, 0, 0)
        for number, finger in enumerate(_FINGERS, start=1):
            forwards = 0.8 if finger == "thumb" else 0.0
            tip = bone(f"finger{number}-3.{upper}")
            found[f"{side}{finger}"] = extreme(tip, 0.9, x, 0, forwards)
        ankle = weights[:, JOINTS.index(f"{side}_ankle")]
        found[f"{upper}BigToe"] = extreme(bone(f"toe1-2.{upper}"), 0.9, 0, 0, 1)
        found[f"{upper}SmallToe"] = extreme(bone(f"toe5-3.{upper}"), 0.9, 0, 0, 1)
        found[f"{upper}Heel"] = extreme(ankle, 0.9, 0, 0, -1)
    return found


def _detail(weights: np.ndarray, faces: np.ndarray, factor: float) -> np.ndarray:
    """(f,) weights of faces in the collapse: ``factor`` on the head and on each hand."""
    share = weights[faces].mean(1)
    result = np.ones(len(faces))
    result[share[:, JOINTS.index("head")] > 0.5] *= factor
    hands = share[:, [JOINTS.index("l_hand"), JOINTS.index("r_hand")]].sum(1)
    result[hands > 0.3] *= factor
    return result


def _mirror(vertices: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """(n,) partner across x = 0 of each vertex of ``skin``; MakeHuman's base mesh is symmetric."""
    partner = np.arange(len(vertices))
    partner[skin] = skin[cKDTree(vertices[skin]).query(vertices[skin] * [-1, 1, 1])[1]]
    return partner
