"""The stages that train the extractor and run it over a data set."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from toy_bodies import write_toy_model
from toy_extractor import PARAMS, toy_augmentation, toy_settings
from toys import Stopped, checkpoint_params, stop_after

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import SPLITS, Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import turn_points
from hmdiff.extractor.features import (
    ARRAYS,
    FeatureFiles,
    Features,
    read_features,
)
from hmdiff.extractor.model import WEIGHTS, load_extractor
from hmdiff.extractor.training import split_pool
from hmdiff.kinds import HAND, KINDS
from hmdiff.params import Params
from hmdiff.params.models import FeaturesParams
from hmdiff.stages import extract_features, pretrain_extractor


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A toy hand model, its sampling, and a prepared file of 12 samples, two without a mesh."""
    folder = tmp_path_factory.mktemp("workplace")
    body = BodyModel.load(write_toy_model(folder / "hand", HAND))
    kept = np.arange(0, 4 * 194 + 1, 4)
    down = sp.csr_matrix((np.ones(195), (np.arange(195), kept)), (195, 778))
    faces = [body.faces, np.array([[0, 1, 2]])]
    MeshSampling(faces, [down], [sp.csr_matrix(down.T)]).save(folder / "hand.npz")
    rng = np.random.default_rng(0)
    records = []
    for row in range(12):
        pixels = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        pose = {
            "pose": rng.normal(0, 0.3, 48),
            "betas": rng.normal(size=10),
            "translation": np.zeros(3),
        }
        joints = rng.normal(0, 0.05, (21, 3))
        sample = Sample(
            f"s{row}",
            Path("unused.png"),
            ("train", "train", "val", "test")[row % 4],
            np.zeros(4),
            np.eye(3),
            joints=joints,
            **({} if row in (4, 9) else pose),
        )
        jpeg = encode_jpeg(pixels, PARAMS.prepare.quality, PARAMS.prepare.chroma)
        records.append(Record(sample, jpeg, np.eye(3), joints))
    attrs = {"dataset": "toy", "source": "rendered"}
    write_prepared(folder / "prepared" / "toy.h5", records, HAND, attrs)
    return folder


def _params(**changes) -> Params:
    compute = PARAMS.compute.model_copy(update={"threads": 1, "workers": 0})
    extractors = {**PARAMS.extractor, "hand": toy_settings(batch=4, samples=8, **changes)}
    changes = {"compute": compute, "extractor": extractors, "checkpoint": checkpoint_params()}
    return PARAMS.model_copy(update=changes)


@pytest.fixture(scope="module")
def trained(workplace) -> Path:
    out = workplace / "extractor"
    pretrain_extractor.run("hand", workplace / "prepared", out, _params())
    return out


def _extract(workplace: Path, trained: Path, out: Path, params: Params) -> None:
    prepared = workplace / "prepared" / "toy.h5"
    extract_features.run(prepared, trained, workplace / "hand", workplace / "hand.npz", out, params)


def test_pre_training_writes_all_its_files(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "curve.csv",
        "extractor.json",
        "weights.safetensors",
    ]
    with open(trained / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["samples"] == "8" and float(rows[-1]["val_mpjpe"]) > 0
    assert load_extractor(trained).architecture.backbone == "resnet10t"


def test_features_hold_the_truth_and_the_coarse_meshes(workplace, trained, tmp_path):
    _extract(workplace, trained, tmp_path / "toy.h5", _params())
    parts: list[Features] = [
        read_features(tmp_path / "toy.h5", split) for split in ("train", "val", "test")
    ]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert parts[0].sample_id == ["s0", "s1", "s4", "s5", "s8", "s9"]
    assert parts[0].draws.shape == (6, PARAMS.prior.draws, 21, 3)
    assert parts[0].valid_mesh.tolist() == [True, True, False, True, True, False]
    assert parts[0].coarse[[2, 5]].isnan().all() and parts[0].coarse[[0, 1, 3, 4]].isfinite().all()
    with h5py.File(workplace / "prepared" / "toy.h5") as file:
        pose, betas = (torch.from_numpy(file[name][:1]) for name in ("pose", "betas"))
        joints = file["joints"][:1]
    body = BodyModel.load(workplace / "hand")
    mesh = body.vertices(pose, betas)
    mesh = mesh - body.joints(mesh)[:, :1]
    assert torch.allclose(parts[0].coarse[0], mesh[0, ::4][:195], atol=1e-6)
    assert np.array_equal(parts[0].joints[0].numpy(), joints[0])
    with h5py.File(tmp_path / "toy.h5") as file:
        assert file.attrs["source"] == "rendered" and len(file.attrs["extractor"]) == 64


def test_copies_of_training_images_are_turned_with_their_truth(workplace, trained, tmp_path):
    turning = toy_augmentation(rotation=30, rotation_share=1.0, scale=0.2, colour_gain=0.4)
    _extract(workplace, trained, tmp_path / "one.h5", _params(augmentation=turning))
    many = _params(augmentation=turning).model_copy(update={"features": FeaturesParams(copies=3)})
    _extract(workplace, trained, tmp_path / "many.h5", many)
    for split in ("train", "val", "test"):
        plain, same = (read_features(tmp_path / f"{name}.h5", split) for name in ("one", "many"))
        assert plain.sample_id == same.sample_id
        for name in ARRAYS:
            one, other = getattr(plain, name), getattr(same, name)
            assert torch.equal(one.nan_to_num(7), other.nan_to_num(7)), name
    plain = read_features(tmp_path / "one.h5", "train")
    rows = FeatureFiles([tmp_path / "many.h5"], "train")
    assert rows.sample_id == plain.sample_id * 3
    copies = rows.select(range(6, 18))
    assert torch.equal(copies.valid_mesh, plain.valid_mesh.repeat(2))
    # Joints tell the angle; the mesh has turned by the same.
    before, after = plain.joints.repeat(2, 1, 1), copies.joints
    assert torch.equal(after[..., 2], before[..., 2])
    x, y = (torch.view_as_complex(part[:, 5, :2].contiguous()) for part in (before, after))
    angles = (y / x).angle()
    assert angles.abs().min() > 0 and len(set(angles.tolist())) == 12
    coarse = turn_points(plain.coarse.repeat(2, 1, 1), angles)
    assert torch.allclose(coarse.nan_to_num(7), copies.coarse.nan_to_num(7), atol=1e-6)
    assert not torch.equal(copies.image_feature[:6], copies.image_feature[6:])
    assert not torch.equal(copies.image_feature[:6], plain.image_feature)


def test_g_learns_only_from_images_that_the_extractor_was_not_shown(workplace, trained, tmp_path):
    prepared, weights, size = [workplace / "prepared" / "toy.h5"], [1.0], 56
    seen = split_pool(prepared, weights, "train", size, held_out=0.34).names
    params = _params(held_out=0.34)
    _extract(workplace, trained, tmp_path / "toy.h5", params)
    _extract(workplace, trained, tmp_path / "all.h5", _params())
    left, plain = (read_features(tmp_path / name, "train") for name in ("toy.h5", "all.h5"))
    assert seen == ["toy/s0", "toy/s1", "toy/s4", "toy/s5"] and left.sample_id == ["s8", "s9"]
    # Another batch rounds otherwise.
    assert torch.allclose(left.image_feature, plain.image_feature[-2:], atol=1e-2)
    assert torch.allclose(left.coarse, plain.coarse[-2:], atol=1e-6, equal_nan=True)
    for split in ("val", "test"):
        parts = [read_features(tmp_path / name, split) for name in ("toy.h5", "all.h5")]
        assert parts[0].sample_id == parts[1].sample_id
        assert torch.allclose(parts[0].coarse, parts[1].coarse, atol=1e-6, equal_nan=True)
    many = params.model_copy(update={"features": FeaturesParams(copies=2)})
    _extract(workplace, trained, tmp_path / "many.h5", many)
    assert FeatureFiles([tmp_path / "many.h5"], "train").sample_id == ["s8", "s9"] * 2


def test_an_extractor_is_trained_without_the_held_out_images(workplace, tmp_path):
    held = _params(held_out=0.9)
    pretrain_extractor.run("hand", workplace / "prepared", tmp_path / "held", held)
    shown = []
    for name, used in (("one", 1), ("all", 6)):
        shutil.copytree(workplace / "prepared", tmp_path / name)
        with h5py.File(tmp_path / name / "toy.h5", "r+") as file:
            rows = np.flatnonzero(file["split"][:] == SPLITS.index("train"))[used:]
            file["split"][rows] = SPLITS.index("test")
        pretrain_extractor.run("hand", tmp_path / name, tmp_path / f"of_{name}", _params())
        shown.append((tmp_path / f"of_{name}" / WEIGHTS).read_bytes())
    assert (tmp_path / "held" / WEIGHTS).read_bytes() == shown[0] != shown[1]


def test_features_do_not_depend_on_the_batch(workplace, trained, tmp_path):
    # What is left is rounding inside the convolutions, which may differ with the batch's size.
    found = []
    for batch in (3, 12):
        params = _params()
        settings = params.extractor["hand"].model_copy(update={"batch": batch})
        params = params.model_copy(update={"extractor": {**PARAMS.extractor, "hand": settings}})
        params = params.model_copy(
            update={"compute": params.compute.model_copy(update={"precision": "fp32"})}
        )
        _extract(workplace, trained, tmp_path / f"{batch}.h5", params)
        found.append(read_features(tmp_path / f"{batch}.h5", "train"))
    assert torch.allclose(found[0].centre, found[1].centre, atol=1e-4)
    assert ((found[0].draws - found[1].draws).norm(dim=-1) < 1e-3).float().mean() > 0.99


def test_the_same_seed_gives_the_same_feature_bytes(workplace, trained, tmp_path):
    for name in ("a.h5", "b.h5"):
        _extract(workplace, trained, tmp_path / name, _params())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_extraction_that_was_stopped_goes_on_to_the_same_bytes(
    workplace, trained, tmp_path, monkeypatch, capfd
):
    """Three blocks of plain images and two of copies; the second stop is among the copies."""
    many = _params().model_copy(update={"features": FeaturesParams(copies=2)})
    many = many.model_copy(update={"checkpoint": checkpoint_params(seconds=0)})
    _extract(workplace, trained, tmp_path / "whole/toy.h5", many)
    whole = extract_features.extract
    for calls in (2, 2):
        monkeypatch.setattr(extract_features, "extract", stop_after(calls, whole))
        with pytest.raises(Stopped):
            _extract(workplace, trained, tmp_path / "toy.h5", many)
    # The last group is cut, as by a lost disk: its block is made again.
    last = sorted(many.checkpoint.folder.glob("extract_features@toy/*.pt"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    monkeypatch.setattr(extract_features, "extract", stop_after(2, whole))
    _extract(workplace, trained, tmp_path / "toy.h5", many)
    assert "goes on after block 3" in capfd.readouterr().err
    assert (tmp_path / "toy.h5").read_bytes() == (tmp_path / "whole/toy.h5").read_bytes()


def test_a_folder_of_the_other_kind_is_one_clear_line(workplace, trained, tmp_path):
    params = _params()
    params = params.model_copy(update={"extractor": dict.fromkeys(KINDS, params.extractor["hand"])})
    with pytest.raises(UserError, match=r"toy\.h5: kind: is hand, not body"):
        pretrain_extractor.run("body", workplace / "prepared", tmp_path / "out", params)
    with pytest.raises(UserError, match=r"toy\.h5: no such file; run prepare@toy"):
        pretrain_extractor.run("hand", tmp_path, tmp_path / "out", _params())
    with pytest.raises(UserError, match=r"toy\.h5: split: no image of 'val'"):
        split_pool([_without_validation(workplace, tmp_path)], [1.0], "val", 56)


def _without_validation(workplace: Path, folder: Path) -> Path:
    path = folder / "toy.h5"
    path.write_bytes((workplace / "prepared" / "toy.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["split"][:] = 0
    return path
