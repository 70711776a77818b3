"""Native layouts, crops, and what stands in for a licensed data set."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.spatial.transform import Rotation
from toy_bodies import write_toy_model

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import freihand, human36m, threedpw
from hmdiff.datasets.camera import intrinsics, project, tight_box
from hmdiff.datasets.crop import Square, crop_camera, crop_image, square_about
from hmdiff.datasets.human36m import Camera, Frame, View
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.placed import is_placed, take
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.standins import look_at, split_evenly
from hmdiff.datasets.threedpw import CameraTrack, Person
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


def _cameras(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4, 4) world to camera, some four metres before the origin."""
    extrinsics = np.tile(np.eye(4), (count, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, (count, 3))).as_matrix()
    extrinsics[:, :3, 3] = rng.normal(0, 0.2, (count, 3)) + np.array([0, 0, 4])
    return extrinsics


def _world(body: BodyModel, poses: np.ndarray, betas: np.ndarray, moves: np.ndarray) -> np.ndarray:
    shapes = torch.as_tensor(np.tile(betas, (len(poses), 1)))
    return body.vertices(torch.as_tensor(poses), shapes).double().numpy() + moves[:, None]


# 3DPW ------------------------------------------------------------------------------------------


def _write_3dpw(root: Path, body: BodyModel, betas_length: int = 10) -> list[np.ndarray]:
    """Three sequences of three frames, two people each; the people's world meshes of the first."""
    rng = np.random.default_rng(1)
    meshes = []
    for folder in threedpw.FOLDERS:
        camera = CameraTrack(intrinsics(300.0, (200.0, 150.0)), _cameras(rng, 3))
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
                meshes.append(_world(body, poses, betas, moves))
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


# Human3.6M -------------------------------------------------------------------------------------


def _write_human36m(root: Path, body: BodyModel) -> dict[tuple[int, int], np.ndarray]:
    """Six frames, four cameras, every subject; (world mesh) by subject and frame, metres."""
    rng = np.random.default_rng(2)
    regressor = body.regressor.double().numpy()
    meshes = {}
    for subject in (1, 5, 6, 7, 8, 9, 11):
        cameras = {
            number: Camera(matrix[:3, :3], matrix[:3, 3] * 1000, np.full(2, 400.0), np.full(2, 200))
            for number, matrix in enumerate(_cameras(rng, 4), start=1)
        }
        betas, poses = rng.normal(0, 0.5, 10), rng.normal(0, 0.6, (6, 72))
        if subject == 6:
            betas[3] = 3.5  # beyond what a fit may have
        moves = rng.random((6, 3))
        world = _world(body, poses, np.zeros(10) if subject == 6 else betas, moves)
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


# FreiHAND --------------------------------------------------------------------------------------


def _hands(count: int, seed: int) -> freihand.Hands:
    rng = np.random.default_rng(seed)
    centre = np.array([0, 0, 0.7])
    return freihand.Hands(
        cameras=np.stack([intrinsics(rng.uniform(400, 500), 112.0) for _ in range(count)]),
        joints=rng.normal(0, 0.05, (count, 21, 3)) + centre,
        vertices=rng.normal(0, 0.05, (count, 778, 3)) + centre,
        poses=rng.normal(0, 0.5, (count, 48)),
        betas=rng.normal(size=(count, 10)),
    )


def _write_freihand(root: Path, versions: int = 4) -> dict[str, freihand.Hands]:
    hands = {"training": _hands(5, 3), "evaluation": _hands(2, 4)}
    for part, value in hands.items():
        freihand.write_lists(root, part, value)
        (root / part / "rgb").mkdir(parents=True, exist_ok=True)
        for number in range(5 * versions if part == "training" else 2):
            Image.new("RGB", (224, 224), (number * 9, 40, 90)).save(
                freihand.image_path(root, part, number)
            )
    return hands


def test_freihand_comes_back_and_its_versions_share_the_ground_truth(tmp_path):
    hands = _write_freihand(tmp_path)
    samples = {s.sample_id: s for s in freihand.read(tmp_path, held_out=2)}
    for version in range(4):
        for index in range(3):
            sample = samples[f"training/{version * 5 + index:08d}"]
            own = hands["training"]
            assert sample.split == "train"
            np.testing.assert_allclose(sample.vertices, own.vertices[index], atol=METRE)
            np.testing.assert_allclose(sample.joints, own.joints[index], atol=METRE)
            np.testing.assert_allclose(sample.pose, own.poses[index], atol=1e-6)
            pixels = project(own.joints[index], own.cameras[index])
            assert np.abs(project(sample.joints, sample.camera) - pixels).max() < PIXEL
    assert {name for name, s in samples.items() if s.split == "val"} == {
        "training/00000003",
        "training/00000004",
    }
    assert {name for name, s in samples.items() if s.split == "test"} == {
        "evaluation/00000000",
        "evaluation/00000001",
    }
    assert len(samples) == 4 * 3 + 2 + 2


def test_freihand_lists_have_the_native_shapes_and_scale(tmp_path):
    hands = _write_freihand(tmp_path)["training"]
    mano = np.array(json.loads((tmp_path / "training_mano.json").read_text()))
    scale = np.array(json.loads((tmp_path / "training_scale.json").read_text()))
    assert mano.shape == (5, 1, 61) and scale.shape == (5,)
    bones = np.linalg.norm(hands.joints[:, 9] - hands.joints[:, 10], axis=1)
    np.testing.assert_allclose(scale, bones, atol=1e-6)
    np.testing.assert_allclose(mano[:, 0, 60], bones, atol=1e-6)


def test_a_lost_freihand_image_or_list_is_one_line(tmp_path):
    _write_freihand(tmp_path)
    freihand.image_path(tmp_path, "training", 7).unlink()
    with pytest.raises(UserError, match="19 images for 5 samples"):
        list(freihand.read(tmp_path, held_out=1))
    _write_freihand(tmp_path)
    (tmp_path / "training_xyz.json").write_text("[[1, 2], [3]]")
    with pytest.raises(UserError, match=r"training_xyz\.json"):
        list(freihand.read(tmp_path, held_out=1))


# Crops -----------------------------------------------------------------------------------------


def _centre_of_light(image: Image.Image) -> np.ndarray:
    """Continuous pixel position of the brightness' centre."""
    light = np.asarray(image.convert("L"), float)
    y, x = np.indices(light.shape) + 0.5
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


@settings(max_examples=25, deadline=None)
@given(
    point=st.tuples(st.floats(200, 430), st.floats(200, 430)),
    offset=st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25)),
    side=st.floats(150, 1400),
    size=st.sampled_from([56, 112, 224]),
)
def test_a_crop_shows_a_point_where_its_camera_projects_it(
    tmp_path_factory, point, offset, side, size
):
    # A soft blob in a frame of odd size, so that a reduced decoding has a rest.
    y, x = np.indices((641, 643)) + 0.5
    blob = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (side / 30) ** 2))
    path = tmp_path_factory.mktemp("blob") / "image.jpg"
    Image.fromarray(blob.astype(np.uint8)).convert("RGB").save(path, quality=98)
    left, top = (p - side * (0.5 + o) for p, o in zip(point, offset, strict=True))
    square = Square(left, top, side)
    camera = crop_camera(intrinsics(500.0, (321.5, 320.5)), square, size)
    ray = np.array([[(point[0] - 321.5) / 500, (point[1] - 320.5) / 500, 1.0]])
    seen = _centre_of_light(crop_image(path, square, size))
    assert np.abs(seen - project(ray * 3, camera)[0]).max() < PIXEL


def test_beyond_the_border_a_crop_is_black(tmp_path):
    path = tmp_path / "white.png"
    Image.new("RGB", (100, 80), "white").save(path)
    crop = np.asarray(crop_image(path, Square(-50, 0, 100), 100))
    assert crop[10:70, 55:95].min() == 255
    assert crop[:, :49].max() == 0 and crop[82:].max() == 0


def test_the_3dpw_crop_is_the_published_one():
    square = square_about(np.array([100.0, 50, 40, 100]), PARAMS.datasets["3dpw"].crop)
    assert (square.left + square.side / 2, square.top + square.side / 2) == (120, 100)
    assert square.side == pytest.approx(1.2 * 1.2 * 100)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff\xe0 no image"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "lost.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"lost\.jpg"):
        crop_image(path, Square(0, 0, 10), 10)


@pytest.mark.parametrize(
    "square",
    [Square(0, 0, 0), Square(0, 0, -5), Square(np.nan, 0, 9), Square(0, 0, np.inf),
     Square(0, 0, 1e9)],
)  # fmt: skip
def test_a_square_that_cannot_be_cut_is_one_line_that_names_the_image(tmp_path, square):
    path = tmp_path / "frame.jpg"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(UserError, match=r"frame\.jpg: its box .*put back the annotations"):
        crop_image(path, square, 8)


def test_a_thin_image_in_a_large_square_is_cut(tmp_path):
    path = tmp_path / "thin.jpg"
    Image.new("RGB", (100, 1), "white").save(path)
    assert crop_image(path, Square(0, -450, 900), 56).size == (56, 56)


def test_a_cut_image_is_named_and_not_padded(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        crop_image(path, Square(0, 0, 200), 56)


# Placed copies and stand-ins -------------------------------------------------------------------


def test_a_readme_alone_is_not_a_placed_copy(tmp_path):
    assert not is_placed(tmp_path / "nowhere")
    (tmp_path / "README.md").write_text("place it here")
    (tmp_path / ".gitkeep").touch()
    assert not is_placed(tmp_path)
    (tmp_path / "images").mkdir()
    assert is_placed(tmp_path)


def test_a_placed_copy_is_linked_and_its_linked_files_are_followed(tmp_path):
    disk, placed, out = (tmp_path / name for name in ("disk", "placed", "out"))
    for folder in (disk, placed / "a", placed / "images", out):
        folder.mkdir(parents=True)
    (placed / "README.md").write_text("ours")
    (placed / "a" / "x.json").write_text("[]")
    (disk / "y.jpg").write_bytes(b"y")
    (placed / "images" / "y.jpg").symlink_to(disk / "y.jpg")
    take(placed, out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "a/x.json",
        "images/y.jpg",
    ]
    assert (out / "a" / "x.json").samefile(placed / "a" / "x.json")
    assert not (out / "images" / "y.jpg").is_symlink()


def test_a_linked_folder_is_refused_for_dvc_does_not_look_behind_it(tmp_path):
    disk, placed, out = (tmp_path / name for name in ("disk", "placed", "out"))
    for folder in (disk, placed, out):
        folder.mkdir()
    (placed / "images").symlink_to(disk)
    with pytest.raises(UserError, match=r"images: a linked folder.*cp -rs"):
        take(placed, out)


def test_a_link_to_nowhere_is_refused_by_name(tmp_path):
    (tmp_path / "placed").mkdir()
    (tmp_path / "placed" / "y.jpg").symlink_to(tmp_path / "lost.jpg")
    with pytest.raises(UserError, match=r"y\.jpg: a link to nowhere"):
        take(tmp_path / "placed", tmp_path / "out")


@given(total=st.integers(1, 500), longest=st.integers(1, 60))
def test_parts_are_as_few_and_as_even_as_can_be(total, longest):
    parts = split_evenly(total, longest)
    assert sum(parts) == total and max(parts) <= longest
    assert max(parts) - min(parts) <= 1 and (len(parts) - 1) * longest < total


@given(
    position=st.tuples(*[st.floats(-5, 5)] * 2, st.floats(1, 5)),
    roll=st.floats(-0.5, 0.5),
)
def test_a_camera_sees_its_target_in_the_middle_and_up_is_up(position, roll):
    target = np.array([0.3, 0.2, -0.5])
    rotation, move = look_at(np.array(position), target, np.array([0.0, 1, 0]), roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    seen = rotation @ target + move
    np.testing.assert_allclose(seen[:2], 0, atol=1e-9)
    assert seen[2] == pytest.approx(np.linalg.norm(np.array(position) - target))
    assert (rotation @ [0, 1, 0])[1] < 0  # the world's up is up in the picture, y down


def test_a_tight_box_touches_its_points():
    np.testing.assert_array_equal(tight_box(np.array([[3.0, 9], [5, 1], [4, 4]])), [3, 1, 2, 8])
