"""3DPW's ground truth of either gender: models, reader, stand-in, prepared file."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from toy_bodies import write_toy_model
from toys import checkpoint_params

from hmdiff.bodies import assets
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.model_files import read_folder, write_folder
from hmdiff.datasets import threedpw
from hmdiff.datasets.camera import intrinsics
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.threedpw import CameraTrack, Person
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.params import Params, load_params
from hmdiff.params.models import BodyModelParams
from hmdiff.stages import acquire, body_models, prepare

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PARAMS = PARAMS.model_copy(update={"checkpoint": checkpoint_params()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A toy body with a man who is larger and a woman who is smaller."""
    place = tmp_path_factory.mktemp("toy") / "body"
    kind, arrays, regressor, _ = read_folder(write_toy_model(place, BODY))
    models = {
        gender: arrays | {"v_template": scale * arrays["v_template"]}
        for gender, scale in (("neutral", 1.0), ("male", 1.1), ("female", 0.9))
    }
    write_folder(place, kind, models, regressor, {"source": "stand-in"})
    return place


@pytest.fixture(scope="module")
def body(folder) -> BodyModel:
    return BodyModel.load(folder)


def _params(ground_truth: str) -> Params:
    record = PARAMS.datasets["3dpw"].model_copy(update={"ground_truth": ground_truth})
    standin = PARAMS.standins["3dpw"].model_copy(
        update={"train": 4, "val": 2, "test": 2, "frame": 96, "pairs": 1.0, "frames": 2}
    )
    return PARAMS.model_copy(
        update={
            "datasets": PARAMS.datasets | {"3dpw": record},
            "standins": PARAMS.standins | {"3dpw": standin},
        }
    )


def _write(root: Path, body: BodyModel) -> dict[str, np.ndarray]:
    """A man and a woman in front of a still camera in every split; their meshes by letter."""
    rng = np.random.default_rng(1)
    extrinsics = np.tile(np.eye(4), (2, 1, 1))
    extrinsics[:, 2, 3] = 4
    poses, betas, moves = rng.normal(0, 0.5, (2, 72)), rng.normal(size=10), rng.random((2, 3))
    shapes = torch.as_tensor(np.tile(betas, (2, 1)))
    people, meshes = [], {}
    for letter, gender in threedpw.LETTERS.items():
        own = body.of_gender(gender)
        joints = own.kinematic(torch.as_tensor(poses), shapes).double().numpy() + moves[:, None]
        people.append(Person(betas, poses, moves, joints, np.ones(2, bool), letter))
        vertices = own.vertices(torch.as_tensor(poses), shapes).double().numpy()
        meshes[letter] = vertices + moves[:, None] + [0, 0, 4]
    for split in threedpw.FOLDERS:
        camera = CameraTrack(intrinsics(300.0, 150.0), extrinsics)
        threedpw.write_sequence(root, split, f"walk_{split}", people, camera)
    return meshes


def test_each_person_has_the_body_of_its_gender(tmp_path, body):
    meshes = _write(tmp_path, body)
    samples = list(threedpw.read(tmp_path, body, gendered=True))[:4]
    assert [sample.gender for sample in samples] == ["male", "male", "female", "female"]
    wanted = [meshes["m"][0], meshes["m"][1], meshes["f"][0], meshes["f"][1]]
    for found, expected in zip(camera_vertices(samples, body), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    neutral = list(threedpw.read(tmp_path, body))[:4]
    assert {sample.gender for sample in neutral} == {"neutral"}
    gaps = [
        np.linalg.norm(found - expected, axis=1).mean()
        for found, expected in zip(camera_vertices(neutral, body), wanted, strict=True)
    ]
    assert min(gaps) > 0.01


def test_an_unknown_gender_matters_where_the_ground_truth_is_gendered(tmp_path, body):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/test/walk_test.pkl"
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(content | {"genders": ["m", "x"]}, protocol=2))
    assert len(list(threedpw.read(tmp_path, body))) == 12
    with pytest.raises(UserError, match=r"walk_test\.pkl: genders: 'x' for person 1; put back"):
        list(threedpw.read(tmp_path, body, gendered=True))


def test_a_gender_that_is_no_text_is_named_and_not_shown(tmp_path, body):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/test/walk_test.pkl"
    content = pickle.loads(path.read_bytes())
    endless = ["m"] * 10
    for _ in range(12):  # some thousand bytes that stand for 10 ** 13 texts
        endless = [endless] * 10
    for gender, named in ((np.zeros(300), "a PickledArray"), (endless, "a list")):
        path.write_bytes(pickle.dumps(content | {"genders": ["m", gender]}, protocol=2))
        with pytest.raises(UserError, match=f"genders: {named} for person 1; put back") as line:
            list(threedpw.read(tmp_path, body, gendered=True))
        assert "\n" not in str(line.value)


def test_a_shape_of_too_few_numbers_is_one_line(tmp_path, body):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/test/walk_test.pkl"
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(content | {"betas": [np.zeros(9)] * 2}, protocol=2))
    with pytest.raises(UserError, match=r"walk_test\.pkl: betas: 9 numbers, .*; put back"):
        list(threedpw.read(tmp_path, body))


@pytest.mark.parametrize("ground_truth", ["neutral", "gendered"])
def test_the_stand_in_and_its_prepared_file_agree(tmp_path, folder, body, ground_truth):
    params, out = _params(ground_truth), tmp_path / "3dpw.h5"
    acquire.run("3dpw", folder, tmp_path / "none", tmp_path / "raw", params)
    prepare.run("3dpw", tmp_path / "raw", folder, out, params)
    # The stored joints are those of the bodies that were rendered.
    paths = sorted((tmp_path / "raw/sequenceFiles/train").glob("*.pkl"))
    content = pickle.loads(paths[0].read_bytes())
    person = BodyModel.load(folder) if ground_truth == "neutral" else None
    for index, letter in enumerate(content["genders"]):
        own = person or body.of_gender(threedpw.LETTERS[letter])
        poses = torch.as_tensor(content["poses"][index])
        betas = torch.as_tensor(np.tile(content["betas"][index], (len(poses), 1)))
        joints = own.kinematic(poses, betas).numpy() + content["trans"][index][:, None]
        stored = content["jointPositions"][index].reshape(-1, 24, 3)
        np.testing.assert_allclose(joints, stored, atol=1e-4)
    with PreparedFile(out) as file:
        protocol = file.attrs["protocol"]
        assert ("neutral body" in protocol) == (ground_truth == "neutral")
        assert ("person's gender" in protocol) == (ground_truth == "gendered")
        meshes = file.meshes(np.arange(len(file)), body)
        np.testing.assert_allclose(
            body.joints(torch.from_numpy(meshes)).numpy(), file.array("joints"), atol=1e-4
        )
        posed = body.vertices(
            torch.from_numpy(file.array("pose")), torch.from_numpy(file.array("betas"))
        )
        gap = np.abs(body.root_relative(posed)[0].numpy() - meshes).max()
        assert (gap < 1e-4) == (ground_truth == "neutral")


def test_a_gender_without_a_model_is_one_line_with_the_remedy(tmp_path, folder):
    lonely = tmp_path / "body"
    shutil.copytree(folder, lonely)
    (lonely / "SMPL_FEMALE.pkl").unlink()
    body = BodyModel.load(lonely)
    _write(tmp_path, BodyModel.load(folder))
    assert len(list(threedpw.read(tmp_path, body))) == 12
    with pytest.raises(UserError) as caught:
        list(threedpw.read(tmp_path, body, gendered=True))
    line = str(caught.value)
    assert "SMPL_FEMALE.pkl: no such file" in line and "data/licensed/smpl/README.md" in line
    assert "ground_truth" in line and "\n" not in line


# Damaged camera poses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("cam_poses", lambda a: a[0].__setitem__((0, 0), np.nan)),
        ("cam_poses", lambda a: a[1].__setitem__((slice(0, 3), slice(0, 3)), 0)),
        ("cam_poses", lambda a: a[1].__setitem__((0, slice(0, 3)), -a[1][0, :3])),
        ("cam_poses", lambda a: a[1].__imul__(1.1)),
        ("poses", lambda a: a[0].__setitem__((1, 5), np.inf)),
        ("trans", lambda a: a[1].__setitem__((0, 0), np.nan)),
        ("betas", lambda a: a[0].__setitem__(3, np.nan)),
        ("jointPositions", lambda a: a[0].__setitem__((0, 0), np.nan)),
        ("cam_intrinsics", lambda a: a.__setitem__((0, 0), 0)),
    ],
)
def test_numbers_that_are_no_camera_or_pose_are_one_line(tmp_path, body, key, change):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/validation/walk_validation.pkl"
    content = pickle.loads(path.read_bytes())
    change(content[key])
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match=rf"walk_validation\.pkl: {key}: .*put back the file"):
        list(threedpw.read(tmp_path, body))


def test_what_an_untrusted_frame_holds_does_not_matter(tmp_path, body):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/train/walk_train.pkl"
    content = pickle.loads(path.read_bytes())
    content["cam_poses"][1] = np.nan
    for valid in content["campose_valid"]:
        valid[1] = 0
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert len(list(threedpw.read(tmp_path, body))) == 10
    for valid in content["campose_valid"]:
        valid[:] = 0
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert len(list(threedpw.read(tmp_path, body))) == 8


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", pickle.dumps([1]), b"\x80\x02cos\nsystem\n."]
)
def test_a_file_that_is_no_sequence_is_one_line(tmp_path, body, content):
    _write(tmp_path, body)
    path = tmp_path / "sequenceFiles/train/walk_train.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(threedpw.read(tmp_path, body))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# Models ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def standin(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("standin") / "body"
    few = BodyModelParams(
        shape_samples=24, pose_samples=16, detail=4.0, stiffness=2e-3, regressor_candidates=120
    )
    human = assets.read_makehuman()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_models, "read_makehuman", lambda: human)
        settings = PARAMS.model_copy(update={"body_models": {"smpl": few, "mano": few}})
        body_models.run("smpl", out / "no licence", out, settings)
    return out


def test_the_stand_ins_man_is_taller_and_both_load_in_unmodified_smplx(standin):
    heights = {}
    for gender in ("neutral", "male", "female"):
        layer = smplx.SMPL(str(standin), gender=gender)
        template = layer.v_template.numpy()
        heights[gender] = np.ptp(template[:, 1])
        own = BodyModel.load(standin).of_gender(gender)
        np.testing.assert_array_equal(own.template.numpy(), template)
        np.testing.assert_array_equal(own.faces, layer.faces.astype(np.int64))
        assert torch.equal(own.regressor, BodyModel.load(standin).regressor)
    assert heights["female"] < heights["neutral"] < heights["male"] < heights["female"] + 0.3


def _place(folder: Path, standin: Path, names: dict[str, str]) -> Path:
    folder.mkdir()
    for gender, name in names.items():
        shutil.copy(standin / f"SMPL_{gender.upper()}.pkl", folder / name)
    shutil.copy(standin / "regressor.npy", folder / "J_regressor_h36m.npy")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        {"neutral": "SMPL_NEUTRAL.pkl", "male": "SMPL_MALE.pkl", "female": "SMPL_FEMALE.pkl"},
        {
            "neutral": "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
            "male": "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
            "female": "basicModel_f_lbs_10_207_0_v1.0.0.pkl",
        },
    ],
)
def test_licensed_models_of_each_gender_are_found_by_their_official_names(tmp_path, standin, names):
    placed = _place(tmp_path / "licensed", standin, names)
    body_models.run("smpl", placed, tmp_path / "out", PARAMS)
    model = BodyModel.load(tmp_path / "out")
    for gender in names:
        wanted = BodyModel.load(standin, gender=gender).template
        assert torch.allclose(model.of_gender(gender).template, wanted, atol=1e-6)
        assert model.of_gender(gender).source == "licensed"


def test_a_neutral_model_alone_is_enough_but_it_is_needed(tmp_path, standin):
    alone = _place(tmp_path / "alone", standin, {"neutral": "SMPL_NEUTRAL.pkl"})
    body_models.run("smpl", alone, tmp_path / "out", PARAMS)
    with pytest.raises(UserError, match=r"SMPL_MALE\.pkl: no such file"):
        BodyModel.load(tmp_path / "out").of_gender("male")
    none = _place(tmp_path / "none", standin, {"male": "SMPL_MALE.pkl"})
    with pytest.raises(UserError, match=r"SMPL_NEUTRAL\.pkl: no such file; the neutral"):
        body_models.run("smpl", none, tmp_path / "out", PARAMS)
    shutil.copy(none / "SMPL_MALE.pkl", none / "basicmodel_m_lbs_10_207_0_v1.1.0.pkl")
    with pytest.raises(UserError, match="is a male model as well; keep one"):
        body_models.run("smpl", none, tmp_path / "out", PARAMS)
