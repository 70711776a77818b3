"""3DPW as published: frames, boxes, who is left out, and damaged sequences."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_world
from toy_bodies import write_toy_model

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import threedpw
from hmdiff.datasets.camera import intrinsics, project
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.threedpw import CameraTrack, Person
from hmdiff.errors import UserError
from hmdiff.kinds import BODY

PIXEL = 0.5
METRE = 1e-4


@pytest.fixture(scope="session")
def body(tmp_path_factory) -> BodyModel:
    return BodyModel.load(write_toy_model(tmp_path_factory.mktemp("toy") / "body", BODY))


def _write_3dpw(root: Path, body: BodyModel, betas_length: int = 10) -> list[np.ndarray]:
    """Three sequences of three frames, two people each; the people's world meshes of the first."""
    rng = np.random.default_rng(1)
    meshes = []
    for folder in threedpw.FOLDERS:
        camera = CameraTrack(intrinsics(300.0, (200.0, 150.0)), toy_world.cameras(rng, 3))
        people = []
        for _ in range(2):
            betas, poses, moves = (
                rng.normal(size=10),
                rng.normal(0, 0.6, (3, 72)),
                rng.random((3, 3)),
            )
            shapes = torch.as_tensor(np.tile(betas, (3, 1)))
            joints = body.kinematic(torch.as_tensor(poses), shapes).double().numpy()
            long = np.concatenate([betas, np.zeros(betas_length - 10)])
            valid = np.array([True, False, True])
            people.append(Person(long, poses, moves, joints + moves[:, None], valid))
            if folder == "train":
                meshes.append(toy_world.vertices(body, poses, betas, moves))
        threedpw.write_sequence(root, folder, f"street_{folder}", people, camera)
    return meshes


def test_3dpw_comes_back_in_the_camera_frame_of_each_image(tmp_path, body):
    meshes = _write_3dpw(tmp_path, body)
    content = pickle.loads((tmp_path / "sequenceFiles/train/street_train.pkl").read_bytes())
    samples = [s for s in threedpw.read(tmp_path, body) if s.split == "train"]
    vertices = camera_vertices(samples, body)
    assert [s.sample_id for s in samples] == [
        f"street_train/{frame:05d}/{person}" for person in (0, 1) for frame in (0, 2)
    ]
    for sample, found in zip(samples, vertices, strict=True):
        frame, person = (int(part) for part in sample.sample_id.split("/")[1:])
        assert sample.image == tmp_path / f"imageFiles/street_train/image_{frame:05d}.jpg"
        matrix = content["cam_poses"][frame]
        expected = meshes[person][frame] @ matrix[:3, :3].T + matrix[:3, 3]
        np.testing.assert_allclose(found, expected, atol=METRE)
        assert (
            np.abs(project(found, sample.camera) - project(expected, sample.camera)).max() < PIXEL
        )


def test_3dpw_boxes_are_tight_about_the_projected_joints(tmp_path, body):
    _write_3dpw(tmp_path, body)
    content = pickle.loads((tmp_path / "sequenceFiles/test/street_test.pkl").read_bytes())
    sample = next(s for s in threedpw.read(tmp_path, body) if s.sample_id == "street_test/00002/1")
    seen = content["jointPositions"][1][2].reshape(24, 3) @ content["cam_poses"][2][:3, :3].T
    seen += content["cam_poses"][2][:3, 3]
    pixels = 300 * seen[:, :2] / seen[:, 2:] + [200, 150]
    np.testing.assert_allclose(sample.bbox[:2], pixels.min(0), atol=1e-6)
    np.testing.assert_allclose(sample.bbox[:2] + sample.bbox[2:], pixels.max(0), atol=1e-6)


def test_3dpw_leaves_out_whom_the_camera_does_not_see_whole_and_needs_no_gender(tmp_path, body):
    _write_3dpw(tmp_path, body)
    path = tmp_path / "sequenceFiles/train/street_train.pkl"
    content = pickle.loads(path.read_bytes())
    del content["genders"]
    move = content["cam_poses"][2]
    joints = content["jointPositions"][1][2].reshape(24, 3)
    joints[5] = move[:3, :3].T @ ([0.1, 0, -0.5] - move[:3, 3])  # half a metre behind the camera
    path.write_bytes(pickle.dumps(content, protocol=2))
    names = [s.sample_id for s in threedpw.read(tmp_path, body) if s.split == "train"]
    assert names == ["street_train/00000/0", "street_train/00002/0", "street_train/00000/1"]


def test_3dpw_takes_the_first_ten_of_300_betas(tmp_path, body):
    _write_3dpw(tmp_path / "long", body, 300)
    _write_3dpw(tmp_path / "short", body)
    long, short = threedpw.read(tmp_path / "long", body), threedpw.read(tmp_path / "short", body)
    for one, other in zip(long, short, strict=True):
        np.testing.assert_array_equal(one.betas, other.betas)


def test_3dpw_has_the_keys_of_the_official_readme(tmp_path, body):
    _write_3dpw(tmp_path, body)
    content = pickle.loads(
        (tmp_path / "sequenceFiles/validation/street_validation.pkl").read_bytes()
    )
    assert content["poses2d"][0].shape == (3, 3, 18)
    assert content["jointPositions"][0].shape == (3, 72)
    assert content["cam_poses"].shape == (3, 4, 4)
    assert {"sequence", "betas", "poses", "trans", "genders", "campose_valid"} <= content.keys()
    assert {"cam_intrinsics", "img_frame_ids"} <= content.keys()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("cam_poses"), "cam_poses"),
        (lambda c: c.update(trans=[c["trans"][0][:-1], c["trans"][1]]), "trans"),
        (lambda c: c.update(campose_valid=c["campose_valid"][:1]), "campose_valid"),
        (lambda c: c.update(poses=[np.full((3, 72), "x")] * 2), "poses"),
        (lambda c: c.update(poses=3), "poses"),
        (lambda c: c.update(poses=[np.full((3, 72), 1e300)] * 2), "poses"),
    ],
)
def test_a_damaged_3dpw_sequence_is_one_line_that_names_the_field(tmp_path, body, change, named):
    _write_3dpw(tmp_path, body)
    path = tmp_path / "sequenceFiles/train/street_train.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError) as caught:
        list(threedpw.read(tmp_path, body))
    assert str(path) in str(caught.value) and named in str(caught.value)
    assert "\n" not in str(caught.value)
