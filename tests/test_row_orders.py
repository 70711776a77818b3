"""METRO's and GraphCMR's rows are told apart in any pose, and cannot be mixed up silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from toy_bodies import stick_bodies

from hmdiff.bodies.row_orders import GRAPHCMR, check_metro_order, is_body, metro_order
from hmdiff.errors import UserError
from hmdiff.kinds import BODY

FILE = Path("J_regressor_h36m.npy")


def swapped(*pairs: tuple[str, str]) -> list[int]:
    """Row numbers with the joints of each pair exchanged, left and right."""
    order = list(range(17))
    for first, second in pairs:
        a, b = BODY.joints.index(first), BODY.joints.index(second)
        order[a], order[b] = order[b], order[a]
    return order


def limbs(*parts: str) -> list[int]:
    return swapped(*((f"L_{part}", f"R_{part}") for part in parts))


LEGS, ARMS = ("Hip", "Knee", "Ankle"), ("Shoulder", "Elbow", "Wrist")


def test_graphcmrs_order_is_metros_with_the_legs_exchanged():
    assert limbs(*LEGS) == GRAPHCMR


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4))
def test_either_order_is_recognised_whatever_the_pose_and_the_frame(seed, count):
    """Where people face and which way is up does not matter; one person is enough."""
    meshes, regressor = stick_bodies(count, seed)
    for order in (list(range(17)), GRAPHCMR):
        assert np.array_equal(metro_order(FILE, regressor[order], meshes), regressor)


@pytest.mark.parametrize(
    "order",
    [
        limbs(*ARMS),
        limbs(*LEGS, *ARMS),
        list(range(17))[::-1],
        swapped(("Neck", "Pelvis")),
        swapped(("L_Knee", "L_Elbow")),
        np.random.default_rng(0).permutation(17).tolist(),
    ],
)
def test_rows_in_another_order_are_refused(order):
    meshes, regressor = stick_bodies(20)
    with pytest.raises(UserError, match="neither METRO's nor GraphCMR's order") as line:
        metro_order(FILE, regressor[order], meshes)
    assert str(line.value).startswith(f"{FILE}: ") and "\n" not in str(line.value)


def test_cocos_rows_are_refused_although_they_are_seventeen_as_well():
    """Pose2Mesh's J_regressor_coco: nose, eyes, ears, then shoulders to ankles, left first."""
    meshes, regressor = stick_bodies(20)
    face = regressor[[BODY.joints.index("Nose")] * 3 + [BODY.joints.index("Head")] * 2]
    rest = [f"{side}_{part}" for part in (*ARMS, *LEGS) for side in "LR"]
    coco = np.concatenate([face, regressor[[BODY.joints.index(name) for name in rest]]])
    with pytest.raises(UserError, match="neither"):
        metro_order(FILE, coco, meshes)


def test_a_mirrored_body_is_no_body():
    """Left and right exchanged everywhere, which no rotation undoes."""
    meshes, regressor = stick_bodies(20)
    assert is_body(regressor @ meshes)
    assert not is_body(regressor @ (meshes * [-1, 1, 1]))


def test_joints_in_graphcmrs_order_are_refused_and_the_remedy_is_right():
    meshes, regressor = stick_bodies(20)
    joints = regressor @ meshes
    check_metro_order("pred.npz: joints", joints)
    theirs = joints[:, GRAPHCMR]
    with pytest.raises(UserError, match=r"^pred\.npz: joints: legs and arms") as line:
        check_metro_order("pred.npz: joints", theirs)
    order = eval(str(line.value).split("METRO's: ")[1])
    assert np.array_equal(theirs[:, order], joints)


def test_people_who_twist_their_trunk_are_still_told_apart():
    """Hips turned by up to 60 degrees against the shoulders."""
    meshes, regressor = stick_bodies(30)
    joints = (regressor @ meshes).copy()
    up = joints[:, 8] - joints[:, 0]
    axis = up / np.linalg.norm(up, axis=1, keepdims=True)
    angle = np.radians(np.random.default_rng(0).uniform(-60, 60, (30, 1)))
    legs = slice(1, 7)
    turns = Rotation.from_rotvec(angle * axis).as_matrix()
    joints[:, legs] = (joints[:, legs] - joints[:, :1]) @ turns.transpose(0, 2, 1) + joints[:, :1]
    check_metro_order("x", joints)
    with pytest.raises(UserError):
        check_metro_order("x", joints[:, GRAPHCMR])
