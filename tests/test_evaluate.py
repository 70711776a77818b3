"""The stages select_steps and evaluate, on a toy hand whose answers are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import procrustes as scipy_procrustes
from toy_bodies import write_toy_model
from toy_project import write_models, write_sampling

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.errors import UserError
from hmdiff.extractor.features import features_writer
from hmdiff.kinds import HAND
from hmdiff.params import Params, load_params
from hmdiff.stages import evaluate, select_steps

COUNT = 9  # of test images; the others are validation images


def _params() -> Params:
    committed = load_params(Path(__file__).parents[1] / "params.yaml")
    methods = dict(committed.methods)
    methods["hand"] = methods["hand"].model_copy(update={"candidates": (1, 2, 3)})
    return committed.model_copy(
        update={
            "methods": methods,
            "compute": committed.compute.model_copy(
                update={"device": "cpu", "precision": "fp32", "threads": 1}
            ),
            "reverse": committed.reverse.model_copy(update={"chains": 2}),
            "evaluation": committed.evaluation.model_copy(
                update={"samples": 4, "selection_samples": 3, "bootstrap": 200}
            ),
        }
    )


PARAMS = _params()


def _write_data(folder: Path, body: BodyModel, sampling: MeshSampling) -> None:
    """Meshes that U can represent; U's draws and f_I are noise. Row 0 of test has no mesh."""
    count = COUNT + 6
    random = np.random.default_rng(0)
    coarse = 0.08 * random.normal(size=(count, HAND.coarse, 3))
    regressor = body.regressor.numpy().astype(np.float64)
    full = np.stack([sampling.up @ mesh for mesh in coarse])
    roots = (regressor[HAND.root] @ full)[:, None]
    full, coarse = (full - roots).astype(np.float32), (coarse - roots).astype(np.float32)
    joints = regressor @ full
    image = encode_jpeg(Image.new("RGB", (56, 56)), 90, "4:4:4")
    splits = ["test"] * COUNT + ["val"] * 6
    samples = [
        Sample(f"hand/{i}", Path("x"), split, np.ones(4), np.eye(3), vertices=full[i])
        for i, split in enumerate(splits)
    ]
    attrs = {"dataset": "freihand", "source": "rendered"}
    records = [Record(sample, image, np.eye(3), joints[i]) for i, sample in enumerate(samples)]
    write_prepared(folder / "prepared.h5", records, HAND, attrs, count)
    valid = np.ones(count, bool)
    valid[0] = False
    order = random.permutation(count)  # features need not be in the order of the prepared file
    block = {
        "image_feature": random.normal(size=(count, 49, 128)).astype(np.float16),
        "draws": joints[:, None] + random.normal(0, 0.01, (count, 5, 21, 3)),
        "centre": joints + random.normal(0, 0.01, joints.shape),
        "peak": joints,
        "spread": np.full(joints.shape, 0.01),
        "coarse": coarse,
        "joints": joints,
        "valid_mesh": valid,
        "valid_joints": np.ones((count, 21), bool),
        "split": np.array([{"test": 2, "val": 1}[split] for split in splits], np.uint8),
        "sample_id": np.array([sample.sample_id for sample in samples]),
    }
    block = {
        name: values[order].astype(np.float32 if values.dtype == float else values.dtype)
        for name, values in block.items()
    }
    block["sample_id"] = block["sample_id"].tolist()
    with features_writer(folder / "features.h5", count, attrs | {"kind": "hand"}) as writer:
        writer.append(block)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy_hand")
    body = BodyModel.load(write_toy_model(folder / "body", HAND))
    sampling = write_sampling(folder / "sampling.npz", body)
    _write_data(folder, body, sampling)
    write_models(folder, sampling)
    return folder


def _paths(toy: Path, experiment: str, **changes: Path) -> dict[str, Path]:
    return {
        "model": toy / experiment,
        "features": toy / "features.h5",
        "prepared": toy / "prepared.h5",
        "body": toy / "body",
        "sampling": toy / "sampling.npz",
    } | changes


def _evaluate(toy: Path, out: Path, row: str = "linear", **changes) -> dict:
    method, name = {"linear": ("hand_linear", "freihand_linear"), "dat": ("hand", "freihand_dat")}[
        row
    ]
    steps = out.parent / f"{method}.json"
    steps.parent.mkdir(parents=True, exist_ok=True)
    steps.write_text(json.dumps({"method": method, "steps": 2 if row == "dat" else 1}))
    params = changes.pop("params", PARAMS)
    arguments = _paths(toy, method) | {"steps": steps} | changes
    evaluate.run(name, out=out, params=params, **arguments)
    return json.loads((out / "summary.json").read_text())


def test_an_evaluation_is_the_mean_of_its_rows_and_its_rows_are_right(toy, tmp_path):
    """The constant mesh, compared with each true one by scipy's Procrustes (it may mirror)."""
    summary = _evaluate(toy, tmp_path / "out")
    samples = pd.read_csv(tmp_path / "out" / "samples.csv")
    predictions = np.load(tmp_path / "out" / "predictions.npz")
    assert summary["n"] == len(samples) == 4
    assert list(predictions["sample_id"]) == list(samples["sample_id"])
    assert summary["source"] == "rendered" and summary["dataset"] == "freihand"
    with h5py.File(toy / "prepared.h5") as file:
        row_of = {name: row for row, name in enumerate(file["sample_id"].asstr()[:])}
        truths = file["vertices"][:]
    up = MeshSampling.load(toy / "sampling.npz").up
    for name, found, coarse in zip(
        samples["sample_id"], samples["PA-MPVPE"], predictions["coarse"], strict=True
    ):
        truth = truths[row_of[name]].astype(np.float64)
        standard, moved, _ = scipy_procrustes(truth, up @ coarse.astype(np.float64))
        size = np.linalg.norm(truth - truth.mean(0))
        wanted = 1000 * size * np.linalg.norm(standard - moved, axis=1).mean()
        assert found == pytest.approx(wanted, rel=1e-4)
    assert set(summary["means"]) == {"PA-MPVPE", "PA-MPJPE", "F@5", "F@15"}
    for metric, figure in summary["means"].items():
        assert figure["mean"] == pytest.approx(samples[metric].mean(), rel=1e-12)
        assert figure["low"] <= figure["mean"] <= figure["high"]
        assert figure["unit"] == ("1" if metric.startswith("F") else "mm")


def test_only_test_images_with_a_true_mesh_are_scored(toy, tmp_path):
    every = PARAMS.evaluation.model_copy(update={"samples": None})
    params = PARAMS.model_copy(update={"evaluation": every})
    _evaluate(toy, tmp_path / "out", params=params)
    samples = pd.read_csv(tmp_path / "out" / "samples.csv")
    assert set(samples["sample_id"]) == {f"hand/{i}" for i in range(1, COUNT)}


def test_a_run_with_dat_says_when_it_was_active(toy, tmp_path):
    guided, alone = _evaluate(toy, tmp_path / "a", "dat"), _evaluate(toy, tmp_path / "b")
    samples = pd.read_csv(tmp_path / "a" / "samples.csv")
    assert guided["active_steps"] == pytest.approx(samples["active_steps"].mean())
    assert guided["active_steps"] > 0 and guided["ratio"] > 0
    assert (guided["steps"], guided["chains"], guided["guidance"]) == (2, 2, "dat")
    assert (alone["active_steps"], alone["ratio"], alone["chains"]) == (0, None, 1)


@pytest.mark.parametrize("row", ["linear", "dat"])
def test_the_same_seed_gives_the_same_bytes(toy, tmp_path, row, monkeypatch):
    """Whatever the clock says; a later seed gives others where there is noise."""
    _evaluate(toy, tmp_path / "a", row)
    monkeypatch.setattr("time.time", lambda: 2e9)
    _evaluate(toy, tmp_path / "b", row)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["predictions.npz", "samples.csv", "summary.json"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    _evaluate(toy, tmp_path / "c", row, params=PARAMS.model_copy(update={"seed": 1}))
    same = (tmp_path / "c/samples.csv").read_bytes() == (tmp_path / "a/samples.csv").read_bytes()
    assert same == (row == "linear")


def test_how_many_images_are_recovered_at_once_does_not_matter(toy, tmp_path, monkeypatch):
    whole = _evaluate(toy, tmp_path / "a", "dat")["means"]
    monkeypatch.setattr("hmdiff.evaluation.recovery.CHUNK", 3)
    parts = _evaluate(toy, tmp_path / "b", "dat")["means"]
    for metric, figure in whole.items():
        assert parts[metric]["mean"] == pytest.approx(figure["mean"], rel=1e-4)


def test_steps_are_chosen_on_validation_images(toy, tmp_path):
    """The test images are spoilt: they must not be looked at."""
    spoilt = tmp_path / "features.h5"
    shutil.copy(toy / "features.h5", spoilt)
    with h5py.File(spoilt, "r+") as file:
        for row in np.flatnonzero(file["split"][:] == 2):
            file["image_feature"][row] = np.nan
    for features, out in ((toy / "features.h5", "a.json"), (spoilt, "b.json")):
        paths = _paths(toy, "hand", features=features)
        select_steps.run("hand", out=tmp_path / out, params=PARAMS, **paths)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    found = json.loads((tmp_path / "a.json").read_text())
    assert [tried["steps"] for tried in found["candidates"]] == [1, 2, 3]
    assert found["method"] == "hand" and found["n"] == 3
    errors = {tried["steps"]: tried["pa-mpvpe"] for tried in found["candidates"]}
    assert len(set(errors.values())) == 3
    near = [steps for steps, error in errors.items() if error <= 1.01 * min(errors.values())]
    assert found["steps"] == min(near)


def test_a_single_candidate_needs_no_search(tmp_path):
    """Nothing is read, so the inputs may be missing."""
    missing = _paths(tmp_path / "nowhere", "hand_linear")
    select_steps.run("hand_linear", out=tmp_path / "steps.json", params=PARAMS, **missing)
    found = json.loads((tmp_path / "steps.json").read_text())
    assert (found["steps"], found["n"], found["candidates"]) == (1, 0, [])


def test_steps_are_not_chosen_with_the_model_of_another_experiment(toy, tmp_path):
    paths = _paths(toy, "hand", model=toy / "hand_linear")
    with pytest.raises(UserError, match=r"model\.json: name: 'hand_linear', not 'hand'") as line:
        select_steps.run("hand", out=tmp_path / "steps.json", params=PARAMS, **paths)
    assert "\n" not in str(line.value)
    assert not (tmp_path / "steps.json").exists()


def test_inputs_of_another_row_are_one_clear_line(toy, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"method": "hand", "steps": 3}')
    no_steps = tmp_path / "none.json"
    no_steps.write_text('{"method": "hand_linear", "steps": 0}')
    no_ids = tmp_path / "prepared.h5"
    shutil.copy(toy / "prepared.h5", no_ids)
    with h5py.File(no_ids, "r+") as file:
        file["sample_id"][...] = [f"foot/{i}" for i in range(len(file["sample_id"]))]
    for changes, message in (
        ({"steps": other}, r"other\.json: method: 'hand', not 'hand_linear'"),
        ({"steps": no_steps}, r"none\.json: steps: not a positive"),
        ({"model": toy / "hand"}, r"model\.json: name: 'hand', not 'hand_linear'"),
        ({"prepared": no_ids}, r"prepared\.h5: sample_id: has no 'hand/\d'"),
    ):
        with pytest.raises(UserError, match=message) as line:
            _evaluate(toy, tmp_path / "out", **changes)
        assert "\n" not in str(line.value)
        assert not (tmp_path / "out").exists()


def test_features_without_any_truth_are_one_clear_line(toy, tmp_path):
    blind = tmp_path / "features.h5"
    shutil.copy(toy / "features.h5", blind)
    with h5py.File(blind, "r+") as file:
        file["valid_mesh"][...] = False
    with pytest.raises(UserError, match=r"freihand: valid_mesh.*no image has the truth") as line:
        _evaluate(toy, tmp_path / "out", features=blind)
    assert "\n" not in str(line.value)
