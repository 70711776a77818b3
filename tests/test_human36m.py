"""Human3.6M as published: frames, splits, fits, joints, and damaged annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy_world
from pydantic import ValidationError
from toy_bodies import write_toy_model

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import human36m
from hmdiff.datasets.camera import project
from hmdiff.datasets.human36m import Camera, Frame, View
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.sample import Sample
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.params import load_params
from hmdiff.params.data import Human36MDataset

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PIXEL = 0.5
METRE = 1e-4


@pytest.fixture(scope="session")
def body(tmp_path_factory) -> BodyModel:
    return BodyModel.load(write_toy_model(tmp_path_factory.mktemp("toy") / "body", BODY))


def _write_human36m(root: Path, body: BodyModel) -> dict[tuple[int, int], np.ndarray]:
    """Six frames, four cameras, every subject; (world mesh) by subject and frame, metres."""
    rng = np.random.default_rng(2)
    regressor = body.regressor.double().numpy()
    meshes = {}
    for subject in (1, 5, 6, 7, 8, 9, 11):
        cameras = {
            number: Camera(matrix[:3, :3], matrix[:3, 3] * 1000, np.full(2, 400.0), np.full(2, 200))
            for number, matrix in enumerate(toy_world.cameras(rng, 4), start=1)
        }
        betas, poses = rng.normal(0, 0.5, 10), rng.normal(0, 0.6, (6, 72))
        if subject == 6:
            betas[3] = 3.5  # beyond what a fit may have
        moves = rng.random((6, 3))
        world = toy_world.vertices(body, poses, np.zeros(10) if subject == 6 else betas, moves)
        views = []
        for index in range(6):
            meshes[subject, index] = world[index]
            fit = {"pose": poses[index], "shape": betas, "trans": moves[index]}
            joints = regressor @ world[index] * 1000
            frame = Frame(2, 1, index, joints, fit if subject < 9 else None)
            box = np.array([10.0, 20, 30, 40])
            views += [View(frame, number, box, (400, 400)) for number in cameras]
        human36m.write_subject(root, subject, cameras, views)
    return meshes


def _read_human36m(root: Path, body: BodyModel, **changes) -> list[Sample]:
    settings = PARAMS.datasets["human36m"].model_copy(update=changes)
    return list(human36m.read(root, body, settings))


def test_human36m_comes_back_in_the_camera_frame_of_each_image(tmp_path, body):
    meshes = _write_human36m(tmp_path, body)
    samples = [s for s in _read_human36m(tmp_path, body) if s.valid_mesh]
    regressor = body.regressor.double().numpy()
    for sample, found in zip(samples, camera_vertices(samples, body), strict=True):
        subject, camera, number = (int(sample.sample_id.split("_")[i]) for i in (1, 7, 8))
        stored = json.loads(
            (tmp_path / f"annotations/Human36M_subject{subject}_camera.json").read_text()
        )[str(camera)]
        rotation, move = np.array(stored["R"]), np.array(stored["t"]) / 1000
        expected = meshes[subject, number - 1] @ rotation.T + move
        np.testing.assert_allclose(found, expected, atol=METRE)
        np.testing.assert_allclose(sample.joints, regressor @ expected, atol=METRE)
        pixels = 400 * sample.joints[:, :2] / sample.joints[:, 2:] + 200
        assert np.abs(project(sample.joints, sample.camera) - pixels).max() < PIXEL


def test_human36m_splits_by_subject_and_tests_on_every_fifth_frame_of_camera_four(tmp_path, body):
    _write_human36m(tmp_path, body)
    samples = _read_human36m(tmp_path, body)
    names = {
        split: {s.sample_id for s in samples if s.split == split}
        for split in ("train", "val", "test")
    }
    assert names["test"] == {
        f"s_{subject:02d}_act_02_subact_01_ca_04_{number:06d}"
        for subject in (9, 11)
        for number in (1, 6)
    }
    assert {name[:4] for name in names["train"]} == {"s_01", "s_05", "s_06", "s_07"}
    assert {name[:4] for name in names["val"]} == {"s_08"}
    assert len(names["train"]) == 4 * 4 * 2
    image = next(s.image for s in samples if s.sample_id.startswith("s_09"))
    assert image.relative_to(tmp_path).parts[:2] == ("images", "s_09_act_02_subact_01_ca_04")


def test_human36m_has_no_mesh_in_the_test_split(tmp_path, body):
    _write_human36m(tmp_path, body)
    # Not even where somebody placed fits for the test subjects.
    (tmp_path / "annotations/Human36M_subject9_SMPL_NeuralAnnot.json").write_text("{}")
    for sample in _read_human36m(tmp_path, body):
        assert sample.valid_mesh == (sample.split != "test")


def test_human36m_also_reads_the_older_fits_and_misses_them_in_one_line(tmp_path, body):
    _write_human36m(tmp_path, body)
    for subject in (1, 5, 6, 7, 8):
        path = tmp_path / f"annotations/Human36M_subject{subject}_SMPL_NeuralAnnot.json"
        path.rename(path.with_name(f"Human36M_subject{subject}_smpl_param.json"))
    assert all(s.valid_mesh for s in _read_human36m(tmp_path, body) if s.split == "train")
    path.with_name("Human36M_subject5_smpl_param.json").unlink()
    with pytest.raises(UserError, match=r"Human36M_subject5_SMPL_NeuralAnnot\.json or"):
        _read_human36m(tmp_path, body)


@pytest.mark.parametrize("part", ["camera", "data", "joint_3d", "SMPL_NeuralAnnot"])
def test_human36m_json_of_the_wrong_form_is_one_line(tmp_path, body, part):
    _write_human36m(tmp_path, body)
    (tmp_path / f"annotations/Human36M_subject1_{part}.json").write_text("[1]")
    with pytest.raises(UserError, match=r"Human36M_subject1_.*put them back") as caught:
        _read_human36m(tmp_path, body)
    assert "\n" not in str(caught.value)


def test_a_human36m_camera_that_turns_nothing_into_itself_is_one_line(tmp_path, body):
    _write_human36m(tmp_path, body)
    path = tmp_path / "annotations/Human36M_subject1_camera.json"
    cameras = json.loads(path.read_text())
    for camera in cameras.values():
        camera["R"][0] = [0.0, 0.0, 0.0]
    path.write_text(json.dumps(cameras))
    with pytest.raises(UserError, match=r"subject1_.*determinant.*put them back") as caught:
        _read_human36m(tmp_path, body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("subjects", [(8, 8), (1, 5, 6, 7, 8)])
def test_validation_subjects_are_distinct_and_leave_one_to_train_on(subjects):
    record = PARAMS.datasets["human36m"].model_dump() | {"val_subjects": subjects}
    with pytest.raises(ValidationError, match="val_subjects"):
        Human36MDataset.model_validate(record)


def test_human36m_joints_are_mapped_by_name():
    assert tuple(human36m.JOINTS[index] for index in human36m.TO_KIND) == BODY.joints
