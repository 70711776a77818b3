"""UP-3D, MuCo, COCO and MPII: native layouts, what is left out, what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from scipy.spatial.transform import Rotation
from toy_bodies import write_toy_model
from toy_layouts import SIZE, WILD, make_shots, mesh, sampled, write_shots
from toys import checkpoint_params

from hmdiff.acquisition.catalogue import find
from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import coco, mpii, muco, up3d
from hmdiff.datasets.camera import project, tight_box
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.standin_wild import NATIVES
from hmdiff.datasets.tally import Tally
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.params import Params, load_params
from hmdiff.params.data import WildStandIn
from hmdiff.stages import acquire, prepare

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PARAMS = PARAMS.model_copy(update={"checkpoint": checkpoint_params()})
every_layout = pytest.mark.parametrize("layout", WILD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("toy") / "body", BODY)


@pytest.fixture(scope="module")
def body(folder) -> BodyModel:
    return BodyModel.load(folder)


def _read(root: Path, layout: str, body: BodyModel, **changes) -> tuple[list[Sample], Tally]:
    tally = Tally()
    settings = WILD[layout].model_copy(update=changes)
    return list(LAYOUTS[layout].read(root, body, settings, tally)), tally


@every_layout
def test_people_come_back_in_the_camera_frame(tmp_path, body, layout):
    shots = make_shots(body)
    write_shots(tmp_path, layout, shots)
    samples, tally = _read(tmp_path, layout, body)
    expected = sampled(layout, shots)
    assert len(samples) == len(expected) and str(tally) == "nobody"
    assert len({sample.sample_id for sample in samples}) == len(samples)
    meshes = camera_vertices(samples, body)
    for sample, found, (shot, person) in zip(samples, meshes, expected, strict=True):
        wanted = mesh(body, person.pose, person.betas, person.translation)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert np.abs(project(found, sample.camera) - project(wanted, shot.camera)).max() < 0.5
        np.testing.assert_allclose(sample.bbox, person.bbox, atol=0.5)
        assert sample.image == NATIVES[layout].image_path(tmp_path, shot.number)
        assert sample.image.exists() and sample.split == "train"


def test_muco_knows_fourteen_of_the_joints_and_they_are_where_they_were(tmp_path, body):
    shots = make_shots(body)
    write_shots(tmp_path, "muco", shots)
    samples, _ = _read(tmp_path, "muco", body)
    unknown = {name for i, name in enumerate(BODY.joints) if i not in muco.KNOWN}
    assert unknown == {"Torso", "Neck", "Nose"}
    for sample, (_, person) in zip(samples, sampled("muco", shots), strict=True):
        known = np.isfinite(sample.joints).all(1)
        assert {BODY.joints[i] for i in np.flatnonzero(~known)} == unknown
        np.testing.assert_allclose(sample.joints[known], person.joints[known], atol=1e-4)


def test_muco_names_its_joints_in_the_published_order():
    stored = dict(zip(muco.KNOWN, muco.TO_KIND, strict=True))
    places = {BODY.joints[kind]: place for kind, place in stored.items()}
    assert places == {
        "Head": 0, "R_Shoulder": 2, "R_Elbow": 3, "R_Wrist": 4, "L_Shoulder": 5, "L_Elbow": 6,
        "L_Wrist": 7, "R_Hip": 8, "R_Knee": 9, "R_Ankle": 10, "L_Hip": 11, "L_Knee": 12,
        "L_Ankle": 13, "Pelvis": 14,
    }  # fmt: skip


def test_muco_without_a_fit_has_joints_alone(tmp_path, body):
    write_shots(tmp_path, "muco", make_shots(body))
    path = tmp_path / "annotations/smpl_param.json"
    fits = json.loads(path.read_text())
    del fits["3"]  # of the second image's nearer person
    path.write_text(json.dumps(fits))
    samples, _ = _read(tmp_path, "muco", body)
    assert [sample.valid_mesh for sample in samples] == [True, False, True]


def test_up3ds_camera_turns_and_moves_the_world(tmp_path, body):
    shots = make_shots(body, 1)
    write_shots(tmp_path, "up3d", shots)
    path = tmp_path / "up-3d/00001_body.pkl"
    content = pickle.loads(path.read_bytes())
    content |= {"rt": np.array([0.2, -0.4, 0.1]), "trans": np.array([0.1, 0.2, 0.3]), "f": 300.0}
    path.write_bytes(pickle.dumps(content, protocol=2))
    samples, _ = _read(tmp_path, "up3d", body)
    person = shots[0].people[0]
    world = mesh(body, person.pose, person.betas, content["trans"])
    seen = Rotation.from_rotvec(content["rt"]).apply(world) + content["t"]
    np.testing.assert_allclose(camera_vertices(samples, body)[0], seen, atol=1e-4)
    pixels = 300 * seen[:, :2] / seen[:, 2:] + np.array(SIZE) / 2
    np.testing.assert_allclose(samples[0].bbox, tight_box(pixels), atol=0.01)


@pytest.mark.parametrize("layout", ["coco", "mpii"])
def test_crowds_small_and_unfitted_people_are_left_out_and_counted(tmp_path, body, layout):
    write_shots(tmp_path, layout, make_shots(body))
    module = {"coco": coco, "mpii": mpii}[layout]
    path = tmp_path / "annotations" / module.PEOPLE
    content = json.loads(path.read_text())
    notes = content["annotations"]
    notes[0]["iscrowd"] = 1
    notes[1]["num_keypoints"] = 5
    notes[2]["bbox"] = [3, 4, 19, 18]
    path.write_text(json.dumps(content))
    fits = tmp_path / "annotations" / module.FITS[0]
    fitted = json.loads(fits.read_text())
    del fitted["4"]
    fits.write_text(json.dumps(fitted))
    samples, tally = _read(tmp_path, layout, body)
    assert [sample.sample_id.split("/")[1] for sample in samples] == ["5", "6"]
    assert json.loads(tally.as_json()) == {
        "crowd": {"count": 1, "first": ["1"]},
        "few keypoints": {"count": 1, "first": ["2"]},
        "no fit": {"count": 1, "first": ["4"]},
        "small box": {"count": 1, "first": ["3"]},
    }


def test_coco_takes_neuralannots_fits_before_smplify_x_and_names_them(tmp_path, body):
    write_shots(tmp_path, "coco", make_shots(body))
    first, second = (tmp_path / "annotations" / name for name in coco.FITS)
    second.write_text("{}")
    assert "pseudo-fits MSCOCO_train_SMPL_NeuralAnnot" in LAYOUTS["coco"].protocol(
        tmp_path, WILD["coco"]
    )
    first.replace(second)
    assert len(_read(tmp_path, "coco", body)[0]) == 6
    assert "pseudo-fits coco_smplifyx_train" in LAYOUTS["coco"].protocol(tmp_path, WILD["coco"])
    second.unlink()
    with pytest.raises(UserError, match=r"no MSCOCO_train_SMPL_NeuralAnnot\.json or coco_smpl"):
        _read(tmp_path, "coco", body)


def test_mpiis_images_may_be_named_with_or_without_their_folder(tmp_path, body):
    write_shots(tmp_path, "mpii", make_shots(body))
    path = tmp_path / "annotations/train.json"
    path.write_text(path.read_text().replace("images/00", "00"))
    assert all(sample.image.exists() for sample in _read(tmp_path, "mpii", body)[0])


# Damage ------------------------------------------------------------------------------------------


def _lose(content: dict, *keys) -> None:
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


@pytest.mark.parametrize(
    ("layout", "file", "keys"),
    [
        ("coco", coco.PEOPLE, ("images",)),
        ("coco", coco.PEOPLE, ("images", 1, "file_name")),
        ("coco", coco.PEOPLE, ("annotations", 1, "bbox")),
        ("coco", coco.PEOPLE, ("annotations", 2, "image_id")),
        ("mpii", mpii.FITS[0], ("2", "smpl_param", "trans")),
        ("mpii", mpii.FITS[0], ("2", "cam_param")),
        ("muco", muco.PEOPLE, ("annotations",)),
        ("muco", muco.PEOPLE, ("annotations", 0, "keypoints_cam")),
        ("muco", muco.PEOPLE, ("images", 0, "f")),
        ("muco", muco.FITS, ("1", "pose")),
    ],
)
def test_json_that_lacks_a_key_is_one_line_that_names_it(tmp_path, body, layout, file, keys):
    write_shots(tmp_path, layout, make_shots(body))
    path = tmp_path / "annotations" / file
    content = json.loads(path.read_text())
    _lose(content, *keys)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        _read(tmp_path, layout, body)
    line = str(caught.value)
    assert str(path) in line and str(keys[-1]) in line and "put" in line and "\n" not in line


@pytest.mark.parametrize(
    ("layout", "file", "old"),
    [
        ("coco", coco.FITS[0], '"pose": '),
        ("mpii", mpii.PEOPLE, '"file_name": '),
        ("muco", muco.PEOPLE, '"keypoints_cam": '),
    ],
)
def test_json_that_is_nested_endlessly_is_one_line_that_names_it(tmp_path, body, layout, file, old):
    write_shots(tmp_path, layout, make_shots(body))
    path = tmp_path / "annotations" / file
    endless = "[" * 20_000 + "]" * 20_000
    path.write_text(path.read_text().replace(old, f'{old}{endless}, "other": ', 1))
    with pytest.raises(UserError) as caught:
        _read(tmp_path, layout, body)
    assert str(path) in str(caught.value) and ";" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1", "[1]", '{"images": 3}', "\x00"])
@pytest.mark.parametrize("layout", ["coco", "mpii", "muco"])
def test_json_that_is_cut_or_of_another_form_is_one_line(tmp_path, body, layout, content):
    write_shots(tmp_path, layout, make_shots(body))
    for path in (tmp_path / "annotations").iterdir():
        whole = path.read_text()
        path.write_text(content)
        with pytest.raises(UserError) as caught:
            _read(tmp_path, layout, body)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        path.write_text(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("t"), "'t'"),
        (lambda c: c.update(pose=np.zeros(71)), "pose"),
        (lambda c: c.update(betas=np.full(10, np.nan)), "betas"),
        (lambda c: c.update(f=-1.0), "f is not positive"),
        (lambda c: c.update(rt="none"), "rt"),
        (lambda c: c.update(rt=np.full(3, 1e300)), "rt"),
        (lambda c: c.update(pose=np.full(72, 1e300)), "pose"),
    ],
)
def test_a_damaged_fit_of_up3d_is_one_line(tmp_path, body, change, named):
    write_shots(tmp_path, "up3d", make_shots(body))
    path = tmp_path / "up-3d/00002_body.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError) as caught:
        _read(tmp_path, "up3d", body)
    assert str(path) in str(caught.value) and named in str(caught.value)


# Stages ------------------------------------------------------------------------------------------


def _params(layout: str, **changes) -> Params:
    standin = WildStandIn(layout=layout, train=5, frame=128, yaw=60, pairs=0.5, workers=1)
    prepared = PARAMS.prepare.model_copy(update=changes)
    return PARAMS.model_copy(
        update={"standins": {layout: standin}, "datasets": WILD, "prepare": prepared}
    )


@every_layout
def test_a_stand_in_goes_through_the_reader_of_the_real_data(tmp_path, folder, body, layout):
    params, raw, out = _params(layout), tmp_path / "raw", tmp_path / "prepared.h5"
    acquire.run(layout, folder, tmp_path / "none", raw, params)
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["persons"] == {"train": 5, "val": 0, "test": 0} and manifest["annotations"]
    assert 2 <= manifest["images"] <= 5
    assert find(layout).lacking(raw) == []
    prepare.run(layout, raw, folder, out, params)
    with PreparedFile(out) as file:
        assert len(file.indices("train")) == len(file) == 5
        assert file.attrs["source"] == "rendered" and "fits" in file.attrs["protocol"]
        assert json.loads(file.attrs["skipped"]) == {}
        rows = np.arange(5)
        meshes, valid = file.meshes(rows, body), file.array("valid_joints")
        assert valid.sum(1).tolist() == [14 if layout == "muco" else 17] * 5
        regressed = body.joints(torch.from_numpy(meshes)).numpy()
        np.testing.assert_allclose(regressed[valid], file.array("joints")[valid], atol=1e-4)
        inside = project(meshes + file.array("root")[rows, None], file.array("camera"))
        assert (np.abs(inside.mean(1) - 112) < 60).all()


@pytest.mark.parametrize("damage", ["missing", "text", "cut"])
def test_an_unreadable_image_is_left_out_and_counted_up_to_the_limit(
    tmp_path, folder, body, damage
):
    params = _params("up3d", skip_limit=0.25)
    acquire.run("up3d", folder, tmp_path / "none", tmp_path / "raw", params)
    path = up3d.image_path(tmp_path / "raw", 2)
    content = {"missing": None, "text": b"none", "cut": path.read_bytes()[:-3000]}[damage]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    prepare.run("up3d", tmp_path / "raw", folder, tmp_path / "a.h5", params)
    with PreparedFile(tmp_path / "a.h5") as file:
        assert file.sample_ids() == ["00001", "00003", "00004", "00005"]
        skipped = json.loads(file.attrs["skipped"])["unreadable image"]
        assert skipped["count"] == 1 and str(path) in skipped["first"][0]
    strict = _params("up3d", skip_limit=0.19)
    with pytest.raises(UserError, match=r"00002_image\.png.*1 of 5 .* prepare\.skip_limit"):
        prepare.run("up3d", tmp_path / "raw", folder, tmp_path / "b.h5", strict)
    assert not (tmp_path / "b.h5").exists()


def test_params_yaml_takes_the_new_data_sets_and_refuses_unknown_keys(tmp_path):
    yaml = YAML(typ="safe")
    raw = yaml.load((Path(__file__).parents[1] / "params.yaml").read_text())
    standin = {"train": 4, "frame": 128, "yaw": 60, "pairs": 0.3, "workers": 1}
    for name, record in WILD.items():
        raw["datasets"][name] = record.model_dump()
        raw["standins"][name] = standin | {"layout": name}
    path = tmp_path / "params.yaml"
    yaml.dump(raw, path)
    params = load_params(path)
    assert {name: params.datasets[name] for name in WILD} == WILD
    raw["datasets"]["up3d"]["keypoints"] = 6
    yaml.dump(raw, path)
    with pytest.raises(UserError, match=r"datasets\.up3d\.up3d\.keypoints"):
        load_params(path)
