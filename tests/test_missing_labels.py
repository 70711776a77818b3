"""A joint that nobody knows is NaN in the files, and reaches no loss, feature or metric."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from toy_bodies import write_toy_model
from toys import (
    checkpoint_params,
    make_body,
    make_features,
    make_model,
    make_sampling,
    training_params,
)

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.evaluation.protocols import load_protocol, score
from hmdiff.evaluation.recovery import scorable
from hmdiff.extractor.features import read_features
from hmdiff.kinds import BODY, HAND
from hmdiff.params import load_params
from hmdiff.stages import extract_features, pretrain_extractor
from hmdiff.training.loop import train

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
UNKNOWN = [3, 9]  # of the joints; never the root


def test_extractor_and_features_never_see_them(tmp_path):
    body = BodyModel.load(write_toy_model(tmp_path / "hand", HAND))
    kept = np.arange(0, 4 * 194 + 1, 4)
    down = sp.csr_matrix((np.ones(195), (np.arange(195), kept)), (195, 778))
    faces = [body.faces, np.array([[0, 1, 2]])]
    MeshSampling(faces, [down], [sp.csr_matrix(down.T)]).save(tmp_path / "hand.npz")
    rng, records = np.random.default_rng(0), []
    for row in range(8):
        joints = rng.normal(0, 0.05, (21, 3))
        joints[UNKNOWN] = np.nan
        split = ("train", "train", "val", "test")[row % 4]
        sample = Sample(f"s{row}", Path("x"), split, np.zeros(4), np.eye(3), joints=joints)
        pixels = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        records.append(Record(sample, encode_jpeg(pixels, 90, "4:4:4"), np.eye(3), joints))
    attrs = {"dataset": "freihand", "source": "rendered"}
    write_prepared(tmp_path / "prepared/freihand.h5", records, HAND, attrs)
    augmentation = PARAMS.extractor["hand"].augmentation.model_copy(update={"mirror": 1.0})
    small = {"image_size": 56, "samples": 8, "batch": 4, "validations": 1}
    settings = PARAMS.extractor["hand"].model_copy(update={**small, "augmentation": augmentation})
    compute = PARAMS.compute.model_copy(update={"threads": 1, "workers": 0})
    changes = {"extractor": {"hand": settings}, "compute": compute}
    params = PARAMS.model_copy(update={**changes, "checkpoint": checkpoint_params()})
    pretrain_extractor.run("hand", tmp_path / "prepared", tmp_path / "extractor", params)
    with open(tmp_path / "extractor/curve.csv", newline="") as file:
        assert all(
            np.isfinite(float(value)) for row in csv.DictReader(file) for value in row.values()
        )
    extract_features.run(
        tmp_path / "prepared/freihand.h5", tmp_path / "extractor", tmp_path / "hand",
        tmp_path / "hand.npz", tmp_path / "toy.h5", params,
    )  # fmt: skip
    features = read_features(tmp_path / "toy.h5", "train")
    assert (~features.valid_joints).sum(1).tolist() == [2] * 4
    for name in ("image_feature", "draws", "centre", "peak", "spread"):
        assert getattr(features, name).isfinite().all()


@pytest.mark.parametrize("model", ["diffusion", "direct"])
def test_training_is_the_same_whatever_stands_in_for_them(model):
    weights = []
    for filler in (torch.nan, 0.0, 5.0):
        features = make_features(16)
        features.valid_joints[::2, 2] = False
        features.joints[::2, 2] = filler
        features.valid_mesh[1::4] = False
        features.coarse[1::4] = filler
        network = make_model(vertices=12, joints=4, model=model)
        sampling = make_sampling()
        trained, curve = train(
            network,
            features,
            torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy())),
            torch.as_tensor(sampling.coarse_faces).long(),
            training_params(samples=32),
            seed=0,
            device=torch.device("cpu"),
            precision="fp32",
        )
        assert all(np.isfinite(value) for row in curve for value in row.values())
        weights.append(torch.cat([parameter.flatten() for parameter in trained.parameters()]))
    assert weights[0].isfinite().all()
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


def test_metrics_do_not_see_joints_that_their_protocol_does_not_name():
    protocol = load_protocol("3dpw")
    unneeded = [i for i in range(BODY.joint_count) if i not in protocol.needed_joints]
    assert unneeded
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(0, 0.3, (2, 3, 40, 3))
    regressor = rng.dirichlet(np.ones(40), BODY.joint_count)
    joints = regressor @ truth
    whole = score(protocol, predicted, truth, joints, regressor)
    joints[:, unneeded] = np.nan
    holes = score(protocol, predicted, truth, joints, regressor)
    np.testing.assert_array_equal(whole.to_numpy(), holes.to_numpy())
    assert np.isfinite(holes.to_numpy()).all()


def test_a_row_that_lacks_a_joint_of_the_protocol_is_not_scored():
    protocol, features = load_protocol("3dpw"), make_features(4)
    valid = torch.ones(4, BODY.joint_count, dtype=torch.bool)
    valid[1, protocol.needed_joints[0]] = False
    stored = {"valid_joints": valid, "valid_mesh": features.valid_mesh}
    files = SimpleNamespace(read=stored.get, restricted=torch.Tensor.tolist)
    assert scorable(files, protocol, None) == [0, 2, 3]
