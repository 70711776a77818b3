"""Prepared files: what goes in comes out, and what is not one is refused; the two stages."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from toy_bodies import write_toy_model
from toys import checkpoint_params

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import freihand, threedpw
from hmdiff.datasets.camera import intrinsics, project
from hmdiff.datasets.crop import Square, central_square, encode_jpeg
from hmdiff.datasets.preparation import fits, records
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.errors import UserError
from hmdiff.kinds import BODY, HAND
from hmdiff.params import Params, load_params
from hmdiff.stages import acquire, prepare

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PARAMS = PARAMS.model_copy(update={"checkpoint": checkpoint_params()})
ATTRS = {"dataset": "toy", "source": "rendered"}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy_models")
    write_toy_model(folder / "body", BODY)
    write_toy_model(folder / "hand", HAND)
    return folder


@pytest.fixture(scope="session")
def body(models) -> BodyModel:
    return BodyModel.load(models / "body")


def _samples(folder: Path, count: int, mesh: bool = True) -> list[Sample]:
    rng = np.random.default_rng(0)
    path = folder / "frame.png"
    Image.effect_noise((300, 200), 60).convert("RGB").save(path)
    parameters = (
        {"betas": rng.normal(size=10), "translation": np.array([0.1, 0.2, 4.0])} if mesh else {}
    )
    return [
        Sample(
            sample_id=f"toy/{index}",
            image=path,
            split=("train", "val", "test")[index % 3],
            bbox=np.array([30.0, 20, 60, 120]),
            camera=intrinsics(400.0, (150.0, 100.0)),
            pose=rng.normal(0, 0.5, 72) if mesh else None,
            joints=None if mesh else rng.normal(size=(17, 3)) + np.array([0, 0, 4]),
            **parameters,
        )
        for index in range(count)
    ]


def _write(path: Path, samples: list[Sample], body: BodyModel, **changes) -> PreparedFile:
    settings = PARAMS.prepare.model_copy(update=changes)
    rows = records(samples, lambda _: Square(20.0, 10.0, 150.0), body, settings, Tally())
    write_prepared(path, rows, body.kind, ATTRS)
    return PreparedFile(path)


def test_rows_come_back_as_they_went_in(tmp_path, body):
    samples = _samples(tmp_path, 70)  # more than one block
    with _write(tmp_path / "a.h5", samples, body) as file:
        assert len(file) == 70 and file.sample_ids() == [s.sample_id for s in samples]
        np.testing.assert_array_equal(file.indices("val"), np.arange(1, 70, 3))
        np.testing.assert_allclose(file.array("pose")[5], samples[5].pose, rtol=1e-6)
        np.testing.assert_allclose(file.array("bbox")[5], samples[5].bbox)
        assert file.attrs["kind"] == "body" and list(file.attrs["splits"])[2] == "test"
        assert file.array("valid_mesh").all() and file.array("valid_joints").all()


def test_joints_are_regressed_from_the_mesh_where_the_data_have_none(tmp_path, body):
    samples = _samples(tmp_path, 3)
    poses = torch.as_tensor(np.stack([s.pose for s in samples]))
    shapes = torch.as_tensor(np.stack([s.betas for s in samples]))
    vertices = body.vertices(poses, shapes) + torch.as_tensor(samples[0].translation).float()
    expected = body.joints(vertices).numpy()
    with _write(tmp_path / "a.h5", samples, body) as file:
        found = file.array("joints") + file.array("root")[:, None]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert not file.array("joints")[:, BODY.root].any()
        meshes = file.meshes(np.array([2, 0]), body)
        own = expected[[2, 0], BODY.root, None]
        np.testing.assert_allclose(meshes, vertices.numpy()[[2, 0]] - own, atol=1e-5)


def test_the_crops_camera_projects_into_the_crop(tmp_path, body):
    samples = _samples(tmp_path, 2)
    with _write(tmp_path / "a.h5", samples, body) as file:
        joints = file.array("joints") + file.array("root")[:, None]
        full = project(joints, samples[0].camera)
        size = PARAMS.prepare.size
        expected = (full - [20, 10]) * size / 150
        assert np.abs(project(joints, file.array("camera")) - expected).max() < 0.01


def test_samples_without_a_mesh_keep_their_own_joints_and_refuse_meshes(tmp_path, body):
    samples = _samples(tmp_path, 2, mesh=False)
    with _write(tmp_path / "a.h5", samples, body) as file:
        assert not file.array("valid_mesh").any() and np.isnan(file.array("pose")).all()
        root = samples[1].joints[BODY.root]
        np.testing.assert_allclose(file.array("joints")[1], samples[1].joints - root, atol=1e-6)
        with pytest.raises(ValueError, match="row 1 has no mesh"):
            file.meshes(np.array([1]), body)


def test_a_bad_fit_is_left_out_and_a_good_one_kept(tmp_path, body):
    samples = _samples(tmp_path, 4)
    poses = torch.as_tensor(np.stack([s.pose for s in samples]))
    shapes = torch.as_tensor(np.stack([s.betas for s in samples]))
    vertices = body.vertices(poses, shapes).numpy() + samples[0].translation
    regressor = body.regressor.numpy()
    own = [replace(s, joints=regressor @ v) for s, v in zip(samples, vertices, strict=True)]
    shift = np.zeros((17, 3))
    shift[3] = [0, 17 * 0.06, 0]  # one joint far off: 60 mm on average, less what the mean takes
    own[1] = replace(own[1], joints=own[1].joints + shift)
    own[2] = replace(own[2], joints=own[2].joints + 1.0)  # a mere translation is no misfit
    limited = [replace(sample, fit_limit=0.05) for sample in own]
    assert [fits(s, v, regressor) for s, v in zip(limited, vertices, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip
    with _write(tmp_path / "a.h5", limited, body) as file:
        assert file.sample_ids() == ["toy/0", "toy/2", "toy/3"]


def test_the_same_samples_give_the_same_bytes_whatever_the_threads(tmp_path, body):
    samples = _samples(tmp_path, 20)
    _write(tmp_path / "one.h5", samples, body, workers=1)
    _write(tmp_path / "two.h5", samples, body, workers=3)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_images_are_the_crops_and_shrink_on_demand(tmp_path, body):
    path = tmp_path / "a.h5"
    file = _write(path, _samples(tmp_path, 3), body)
    full = file.image(0)
    assert full.shape == (224, 224, 3) and full.dtype == np.uint8
    assert Image.fromarray(full).size == (224, 224)
    half = file.image(0, 112)
    means = full.astype(float).reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert np.abs(half - means).mean() < 6
    assert file.image(0, 96).shape == (96, 96, 3)
    image, joints, valid = PreparedImages(path, [2, 0], 56)[1]
    assert image.shape == (3, 56, 56) and image.dtype == torch.uint8
    np.testing.assert_array_equal(joints.numpy(), file.array("joints")[0])
    assert valid.all() and valid.shape == (17,)


def _mean_in_child(file: PreparedFile, queue) -> None:
    queue.put(file.image(0).mean())


def test_an_open_file_can_be_read_in_a_forked_and_a_pickled_copy(tmp_path, body):
    file = _write(tmp_path / "a.h5", _samples(tmp_path, 3), body)
    mean = file.image(0).mean()
    assert pickle.loads(pickle.dumps(file)).image(0).mean() == mean
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_mean_in_child, args=(file, queue))
    child.start()
    assert queue.get(timeout=30) == mean
    child.join()
    assert file.image(1).shape == (224, 224, 3)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign", "missing"])
def test_what_is_no_prepared_file_is_one_line_with_the_remedy(tmp_path, body, damage):
    path = tmp_path / "3dpw.h5"
    _write(path, _samples(tmp_path, 3), body)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "missing":
        path.unlink()
    elif damage == "foreign":
        with h5py.File(path, "w") as file:
            file["numbers"] = np.arange(3)
    else:
        path.write_bytes(b"" if damage == "empty" else b"no HDF5")
    with pytest.raises(UserError) as caught:
        len(PreparedFile(path))
    assert str(path) in str(caught.value) and "run prepare@3dpw" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sample_id", "valid_joints", "pose", "camera", "vertices"])
def test_a_prepared_file_that_lacks_what_is_read_is_one_line(tmp_path, body, name):
    path = tmp_path / "3dpw.h5"
    _write(path, _samples(tmp_path, 3), body)
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
    with pytest.raises(UserError, match=f"{name}.*delete .*run prepare@3dpw"):
        PreparedFile(path).array(name)


def test_what_does_not_read_back_is_reported_under_its_own_name(tmp_path):
    sample = _samples(tmp_path, 1)[0]
    row = Record(sample, b"no image", np.eye(3), np.zeros((17, 3)))
    with pytest.raises(UserError, match=r"/a\.h5: does not read back") as caught:
        write_prepared(tmp_path / "a.h5", [row], BODY, ATTRS)
    assert ".partial" not in str(caught.value)


def test_a_failing_preparation_leaves_no_file(tmp_path, body):
    samples = _samples(tmp_path, 3)
    samples[2] = replace(samples[2], image=tmp_path / "lost.jpg")
    with pytest.raises(UserError, match=r"lost\.jpg"):
        _write(tmp_path / "out" / "a.h5", samples, body)
    assert list((tmp_path / "out").iterdir()) == []


def test_rows_that_are_not_finite_or_double_are_refused(tmp_path, body):
    sample = _samples(tmp_path, 1)[0]
    jpeg = encode_jpeg(Image.new("RGB", (8, 8)), 90, "4:4:4")
    row = Record(sample, jpeg, np.eye(3), np.zeros((17, 3)))
    unknown = replace(row, joints=np.full((17, 3), np.nan))
    posed = replace(row, sample=replace(sample, pose=np.full(72, np.inf)))
    for rows, reason in (
        ([row, row], "is there twice"),
        ([unknown], "joints not finite"),
        ([posed], "pose not finite"),
    ):
        with pytest.raises(UserError, match=rf"a\.h5: sample toy/0: {reason}; put back"):
            write_prepared(tmp_path / "a.h5", rows, BODY, ATTRS)
    with pytest.raises(UserError, match="no sample"):
        write_prepared(tmp_path / "a.h5", [], BODY, ATTRS)
    assert not (tmp_path / "a.h5").exists()


# Stages ----------------------------------------------------------------------------------------


def _tiny(**standins) -> Params:
    """15 images a data set; ``standins`` changes all three."""
    hand = {"train": 9, "test": 3, "workers": 1} | standins
    of_body = {"val": 3, "frame": 96} | hand
    changed = {
        name: record.model_copy(update=hand if name == "freihand" else of_body)
        for name, record in PARAMS.standins.items()
    }
    hands = PARAMS.datasets["freihand"].model_copy(update={"held_out": 3})
    return PARAMS.model_copy(
        update={"standins": changed, "datasets": PARAMS.datasets | {"freihand": hands}}
    )


def _acquire(dataset: str, models: Path, folder: Path, params: Params) -> Path:
    raw = folder / "raw" / dataset
    kind = params.datasets[dataset].kind
    acquire.run(dataset, models / kind, folder / "placed" / dataset, raw, params)
    return raw


@pytest.mark.parametrize("dataset", ["human36m", "3dpw", "freihand"])
def test_a_stand_in_goes_through_the_reader_of_the_real_data(tmp_path, models, dataset):
    params = _tiny()
    kind = params.datasets[dataset].kind
    raw = _acquire(dataset, models, tmp_path, params)
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["source"] == "rendered" and manifest["credits"]
    assert manifest["persons"] == {"train": 9, "val": 3, "test": 3}
    out = tmp_path / f"{dataset}.h5"
    prepare.run(dataset, raw, models / kind, out, params)
    with PreparedFile(out) as file:
        assert [len(file.indices(split)) for split in ("train", "val", "test")] == [9, 3, 3]
        assert file.attrs["source"] == "rendered" and file.attrs["dataset"] == dataset
        rows = np.flatnonzero(file.array("valid_mesh"))
        body = BodyModel.load(models / kind)
        meshes = file.meshes(rows, body)
        regressed = body.joints(torch.from_numpy(meshes)).numpy()
        np.testing.assert_allclose(regressed, file.array("joints")[rows], atol=1e-4)
        # The subject, and not some background, is where the ground truth says.
        inside = project(meshes + file.array("root")[rows, None], file.array("camera")[rows])
        assert (np.abs(inside.mean(1) - 112) < 60).all()


def test_a_stand_in_is_the_same_for_any_number_of_workers(tmp_path, models):
    def content(folder: Path, workers: int) -> dict[str, bytes]:
        raw = _acquire("freihand", models, folder, _tiny(workers=workers))
        return {p.relative_to(raw).as_posix(): p.read_bytes() for p in raw.rglob("*.*")}

    assert content(tmp_path / "one", 1) == content(tmp_path / "two", 2)


def test_another_seed_is_another_stand_in(tmp_path, models):
    params = _tiny()
    one = _acquire("freihand", models, tmp_path / "one", params)
    two = _acquire("freihand", models, tmp_path / "two", params.model_copy(update={"seed": 1}))
    name = "training_xyz.json"
    assert (one / name).read_bytes() != (two / name).read_bytes()


def test_no_subject_of_a_stand_in_is_in_two_splits(tmp_path, models, body):
    params = _tiny()
    raw = _acquire("3dpw", models, tmp_path, params)
    shapes = {
        split: {s.betas.tobytes() for s in threedpw.read(raw, body) if s.split == split}
        for split in ("train", "val", "test")
    }
    assert not shapes["train"] & shapes["test"] and not shapes["train"] & shapes["val"]
    assert not shapes["val"] & shapes["test"]


def test_a_placed_copy_is_taken_as_real(tmp_path, models):
    params = _tiny()
    copy = _acquire("freihand", models, tmp_path, params)
    (copy / "manifest.json").unlink()
    placed = tmp_path / "placed" / "freihand"
    placed.parent.mkdir()
    copy.rename(placed)
    raw = _acquire("freihand", models, tmp_path, params)
    manifest = json.loads((raw / "manifest.json").read_text())
    assert manifest["source"] == "real" and manifest["images"] == 15
    assert "training_xyz.json" in manifest["annotations"]
    with pytest.raises(UserError, match=r"a stand-in, but freihand is real and made for MANO"):
        prepare.run("freihand", raw, models / "hand", tmp_path / "real.h5", params)
    licensed = tmp_path / "licensed"
    shutil.copytree(models / "hand", licensed)
    facts = json.loads((licensed / "model.json").read_text())
    (licensed / "model.json").write_text(json.dumps(facts | {"source": "licensed"}))
    prepare.run("freihand", raw, licensed, tmp_path / "real.h5", params)
    assert PreparedFile(tmp_path / "real.h5").attrs["source"] == "real"


@pytest.mark.parametrize("content", ["[]", "{}", '{"source": "found"}'])
def test_a_manifest_of_unknown_source_is_one_line(tmp_path, models, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: source: .*run acquire@3dpw"):
        prepare.run("3dpw", tmp_path, models / "body", tmp_path / "x.h5", PARAMS)


@pytest.mark.parametrize("content", ["[]", '{"model": "smpl"}', '{"model": ["smpl"]}'])
def test_a_model_json_of_the_wrong_form_is_one_line(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.json: lacks"):
        BodyModel.load(tmp_path)


def test_a_stand_in_without_validation_subjects_has_no_validation_persons(tmp_path, models):
    params = _tiny()
    record = params.datasets["human36m"].model_copy(update={"val_subjects": ()})
    datasets = params.datasets | {"human36m": record}
    raw = _acquire("human36m", models, tmp_path, params.model_copy(update={"datasets": datasets}))
    persons = json.loads((raw / "manifest.json").read_text())["persons"]
    assert persons == {"train": 9, "val": 0, "test": 3}


@pytest.mark.parametrize(
    ("dataset", "lost"),
    [
        ("human36m", "annotations/Human36M_subject1_data.json"),
        ("3dpw", "sequenceFiles/train/*.pkl"),
        ("freihand", "training_K.json"),
    ],
)
def test_an_incomplete_placed_copy_is_refused_by_name(tmp_path, models, dataset, lost):
    placed = tmp_path / "placed" / dataset
    (placed / "something").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        _acquire(dataset, models, tmp_path, _tiny())
    assert lost in str(caught.value) and str(placed) in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_unknown_data_sets_and_the_wrong_model_are_one_line(tmp_path, models):
    with pytest.raises(UserError, match="no such data set; params"):
        acquire.run("coco", models / "body", tmp_path, tmp_path / "raw", PARAMS)
    (tmp_path / "manifest.json").write_text('{"source": "rendered"}')
    with pytest.raises(UserError, match="a hand model"):
        prepare.run("3dpw", tmp_path, models / "hand", tmp_path / "x.h5", PARAMS)


def test_freihand_is_cropped_to_the_published_180_pixels():
    sample = Sample("a", Path("a"), "test", np.zeros(4), np.eye(3), joints=np.zeros((21, 3)))
    square = LAYOUTS["freihand"].square(sample, PARAMS.datasets["freihand"])
    assert square.side == pytest.approx(180, abs=1e-3)
    assert square.left == square.top == pytest.approx(22, abs=1e-3)
    assert central_square(freihand.FRAME, 224.0) == Square(0, 0, 224)
