"""What is written in a native layout comes back through its reader and the prepared file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_bodies import write_toy_model
from toy_layouts import WILD, WRITERS, noise_image
from toys import checkpoint_params

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.camera import intrinsics, project
from hmdiff.datasets.crop import Square, crop_camera
from hmdiff.datasets.meshes import camera_vertices
from hmdiff.datasets.preparation import BATCH, records
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.datasets.writer import write_prepared
from hmdiff.errors import UserError
from hmdiff.kinds import BODY, KINDS
from hmdiff.params import load_params
from hmdiff.stages import prepare

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PARAMS = PARAMS.model_copy(update={"checkpoint": checkpoint_params()})
HELD_OUT = PARAMS.datasets["freihand"].model_copy(update={"held_out": 2})
SETTINGS = PARAMS.datasets | WILD | {"freihand": HELD_OUT}
METRES, PIXELS = 1e-4, 0.5


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("toy")
    return {name: write_toy_model(place / name, kind) for name, kind in KINDS.items()}


@pytest.mark.parametrize("layout", WRITERS)
def test_vertices_joints_and_projections_survive_reader_and_prepared_file(
    tmp_path, folders, layout
):
    settings = SETTINGS[layout]
    body = BodyModel.load(folders[settings.kind])
    raw, out = tmp_path / "raw of it", tmp_path / "prepared.h5"
    known = WRITERS[layout](raw, layout, body)
    samples = list(LAYOUTS[layout].read(raw, body, settings, Tally()))
    assert len(samples) == len(known)
    (raw / "manifest.json").write_text(json.dumps({"source": "rendered"}))
    params = PARAMS.model_copy(update={"datasets": SETTINGS})
    prepare.run(layout, raw, folders[settings.kind], out, params)
    with PreparedFile(out) as file:
        assert file.sample_ids() == [sample.sample_id for sample in samples]
        roots, joints = file.array("root"), file.array("joints")
        valid_mesh, valid = file.array("valid_mesh"), file.array("valid_joints")
        cameras, posed = file.array("camera"), camera_vertices(samples, body)
        for row, (sample, truth) in enumerate(zip(samples, known, strict=True)):
            assert valid_mesh[row] == (truth.vertices is not None)
            np.testing.assert_array_equal(valid[row], np.isfinite(truth.joints).all(1))
            seen = joints[row][valid[row]] + roots[row]
            wanted = truth.joints[valid[row]]
            np.testing.assert_allclose(seen, wanted, atol=METRES)
            square = LAYOUTS[layout].square(sample, settings)
            crop = crop_camera(truth.camera, square, PARAMS.prepare.size)
            assert np.abs(project(seen, cameras[row]) - project(wanted, crop)).max() < PIXELS
            full = project(wanted, truth.camera)
            assert np.abs(project(seen, sample.camera) - full).max() < PIXELS
            if truth.vertices is not None:
                np.testing.assert_allclose(posed[row], truth.vertices, atol=METRES)
                own = body.regressor[body.kind.root].double().numpy() @ truth.vertices
                found = file.meshes(np.array([row]), body)[0]
                np.testing.assert_allclose(found + own, truth.vertices, atol=METRES)


# Samples that lack labels ------------------------------------------------------------------------


def _sample(folder: Path, index: int, body: BodyModel, **changes) -> Sample:
    rng = np.random.default_rng(index)
    sample = Sample(
        sample_id=f"toy/{index}",
        image=folder / "frame.png",
        split="train",
        bbox=np.array([30.0, 20, 60, 120]),
        camera=intrinsics(400.0, (150.0, 100.0)),
        pose=rng.normal(0, 0.5, 72),
        betas=rng.normal(size=10),
        translation=np.array([0.1, 0.2, 4.0]),
        joints=rng.normal(size=(17, 3)) + np.array([0, 0, 4]),
    )
    return replace(sample, **changes)


def _prepare(path: Path, samples, body: BodyModel, tally: Tally) -> PreparedFile:
    noise_image(path.parent / "frame.png")
    rows = records(samples, lambda _: Square(20.0, 10.0, 150.0), body, PARAMS.prepare, tally)
    write_prepared(path, rows, BODY, {"dataset": "toy", "source": "rendered"})
    return PreparedFile(path)


def test_unknown_joints_are_masked_and_a_root_comes_from_the_mesh_or_not_at_all(tmp_path, folders):
    body, tally = BodyModel.load(folders["body"]), Tally()
    whole = _sample(tmp_path, 0, body)
    holes = whole.joints.copy()
    holes[[8, 9]] = np.nan
    rootless = holes.copy()
    rootless[BODY.root] = np.nan
    lost = {"pose": None, "betas": None, "translation": None, "joints": rootless}
    samples = [
        whole,
        _sample(tmp_path, 1, body, joints=holes),
        _sample(tmp_path, 2, body, joints=rootless),
        _sample(tmp_path, 3, body, **lost),
    ]
    with _prepare(tmp_path / "a.h5", samples, body, tally) as file:
        assert file.sample_ids() == ["toy/0", "toy/1", "toy/2"]
        valid = file.array("valid_joints")
        assert [np.flatnonzero(~row).tolist() for row in valid] == [[], [8, 9], [8, 9]]
        joints = file.array("joints")
        assert np.isfinite(joints[valid]).all() and np.isnan(joints[~valid]).all()
        mesh = camera_vertices(samples[2:3], body)[0]
        own = body.regressor[BODY.root].numpy() @ mesh
        np.testing.assert_allclose(file.array("root")[2], own, atol=1e-5)
        rest = valid[2] & (np.arange(17) != BODY.root)
        np.testing.assert_allclose(joints[2][rest], (holes - own)[rest], atol=1e-5)
    assert tally.as_json() == json.dumps({"unknown root": {"count": 1, "first": ["toy/3"]}})


def test_an_infinite_joint_or_a_mesh_that_is_not_finite_is_refused(tmp_path, folders):
    body = BodyModel.load(folders["body"])
    joints = _sample(tmp_path, 0, body).joints.copy()
    joints[4, 1] = np.inf
    with pytest.raises(UserError, match="sample toy/0: joints not finite"):
        _prepare(tmp_path / "a.h5", [_sample(tmp_path, 0, body, joints=joints)], body, Tally())
    pose = np.full(72, np.nan)
    with pytest.raises(UserError, match="sample toy/0: pose not finite"):
        _prepare(tmp_path / "a.h5", [_sample(tmp_path, 0, body, pose=pose)], body, Tally())
    assert not (tmp_path / "a.h5").exists()


# Streaming ---------------------------------------------------------------------------------------


def test_samples_are_drawn_no_more_than_a_batch_ahead(tmp_path, folders):
    body, drawn, tally = BodyModel.load(folders["body"]), [], Tally()
    noise_image(tmp_path / "frame.png")

    def endless():
        index = 0
        while True:
            drawn.append(index)
            yield _sample(tmp_path, index, body)
            index += 1

    rows = records(endless(), lambda _: Square(20.0, 10.0, 150.0), body, PARAMS.prepare, tally)
    for number, row in zip(range(2 * BATCH + 5), rows, strict=False):
        assert row.sample.sample_id == f"toy/{number}"
        assert len(drawn) <= (number // BATCH + 1) * BATCH
    assert tally.read == len(drawn) == 3 * BATCH


def test_a_missing_folder_of_images_is_found_out_early(tmp_path, folders):
    body, tally = BodyModel.load(folders["body"]), Tally()
    samples = (_sample(tmp_path / "nowhere", index, body) for index in range(10_000))
    rows = records(samples, lambda _: Square(20.0, 10.0, 150.0), body, PARAMS.prepare, tally)
    with pytest.raises(UserError, match=r"frame\.png: no such image.*prepare\.skip_limit"):
        next(rows)
    assert tally.read < 300


@pytest.mark.parametrize(
    ("layout", "last"),
    [
        ("3dpw", "sequenceFiles/test/walk_test.pkl"),
        ("human36m", "annotations/Human36M_subject11_joint_3d.json"),
        ("freihand", "evaluation_verts.json"),
    ],
)
def test_readers_hand_out_samples_before_they_open_the_last_file(tmp_path, folders, layout, last):
    settings = SETTINGS[layout]
    body = BodyModel.load(folders[settings.kind])
    WRITERS[layout](tmp_path, layout, body)
    path = tmp_path / last
    path.write_bytes(path.read_bytes()[:-40])
    reader = LAYOUTS[layout].read(tmp_path, body, settings, Tally())
    assert next(reader).sample_id
    with pytest.raises(UserError, match=path.name):
        list(reader)


def test_a_prepared_file_does_not_depend_on_how_many_rows_were_expected(tmp_path, folders):
    body = BodyModel.load(folders["body"])
    count = 2 * BATCH + 3
    samples = [_sample(tmp_path, index, body) for index in range(count)]
    with _prepare(tmp_path / "a.h5", iter(samples), body, Tally()) as file:
        assert len(file) == count and file.array("joints").shape == (count, 17, 3)
    with h5py.File(tmp_path / "a.h5") as file:
        assert {len(dataset) for dataset in file.values()} == {count}
