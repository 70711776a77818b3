"""The stages select_steps and evaluate, on a toy hand whose answers are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from toy_hand import COUNT, PARAMS, run_evaluate, stage_inputs, write_toy_hand
from toys import Stopped, checkpoint_params, stop_after

from hmdiff.bodies.sampling import MeshSampling
from hmdiff.errors import UserError
from hmdiff.evaluation import recovery
from hmdiff.stages import select_steps


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_hand(tmp_path_factory.mktemp("toy_hand"))


def test_an_evaluation_is_the_mean_of_its_rows_and_its_rows_are_right(toy, tmp_path):
    """The constant mesh, compared with each true one by scipy's Procrustes (it may mirror)."""
    summary = run_evaluate(toy, tmp_path / "out")
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
    run_evaluate(toy, tmp_path / "out", params=params)
    samples = pd.read_csv(tmp_path / "out" / "samples.csv")
    assert set(samples["sample_id"]) == {f"hand/{i}" for i in range(1, COUNT)}


def test_a_run_with_dat_says_when_it_was_active(toy, tmp_path):
    guided, alone = run_evaluate(toy, tmp_path / "a", "dat"), run_evaluate(toy, tmp_path / "b")
    samples = pd.read_csv(tmp_path / "a" / "samples.csv")
    assert guided["active_steps"] == pytest.approx(samples["active_steps"].mean())
    assert guided["active_steps"] > 0 and guided["ratio"] > 0
    assert (guided["steps"], guided["chains"], guided["guidance"]) == (2, 2, "dat")
    assert (alone["active_steps"], alone["ratio"], alone["chains"]) == (0, None, 1)


@pytest.mark.parametrize("row", ["linear", "dat"])
def test_the_same_seed_gives_the_same_bytes(toy, tmp_path, row, monkeypatch):
    """Whatever the clock says; a later seed gives others where there is noise."""
    run_evaluate(toy, tmp_path / "a", row)
    monkeypatch.setattr("time.time", lambda: 2e9)
    run_evaluate(toy, tmp_path / "b", row)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["predictions.npz", "samples.csv", "summary.json"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    run_evaluate(toy, tmp_path / "c", row, params=PARAMS.model_copy(update={"seed": 1}))
    first, other = (pd.read_csv(tmp_path / out / "samples.csv") for out in "ac")
    assert (set(first["seed"]), set(other["seed"])) == ({0}, {1})
    assert first.drop(columns="seed").equals(other.drop(columns="seed")) == (row == "linear")


def test_every_training_is_evaluated_with_its_own_seed(toy, tmp_path):
    """The second of two equal trainings differs by its noise alone."""
    shutil.copytree(toy, tmp_path / "toy")
    model = stage_inputs(tmp_path / "toy", "hand")["model"]
    shutil.copytree(model, tmp_path / "once")
    (model / "repeats").mkdir()
    (tmp_path / "once").rename(model / "repeats/1")
    summary = run_evaluate(tmp_path / "toy", tmp_path / "out", "dat")
    samples = pd.read_csv(tmp_path / "out/samples.csv")
    assert summary["seeds"] == [0, 1] and summary["n"] == 4 and len(samples) == 8
    params = PARAMS.model_copy(update={"seed": 1})
    for seed, how in ((0, {}), (1, {"params": params})):
        run_evaluate(toy, tmp_path / str(seed), "dat", **how)
        alone = pd.read_csv(tmp_path / str(seed) / "samples.csv")
        mine = samples[samples["seed"] == seed].reset_index(drop=True)
        assert mine.equals(alone)
    for metric, figure in summary["means"].items():
        assert figure["mean"] == pytest.approx(samples[metric].mean(), rel=1e-12)
    kept, first = (np.load(tmp_path / out / "predictions.npz")["coarse"] for out in ("out", "0"))
    assert np.array_equal(kept, first)


def test_the_cost_of_an_image_is_counted_with_dat_s_backward_passes(toy, tmp_path):
    """Of two chains of two steps; a backward pass costs more than a forward one, not thrice it."""
    guided, linear = run_evaluate(toy, tmp_path / "a", "dat"), run_evaluate(toy, tmp_path / "b")
    unguided = {"guidance": "none"}
    params = PARAMS.model_copy(
        update={
            "methods": {"hand": PARAMS.methods["hand"].model_copy(update=unguided)},
            "evaluations": {
                "freihand_dat": PARAMS.evaluations["freihand_dat"].model_copy(update=unguided)
            },
        }
    )
    plain = run_evaluate(toy, tmp_path / "c", "dat", params=params)
    assert 0 <= linear["gflop"] < plain["gflop"]
    assert 1.8 * plain["gflop"] < guided["gflop"] < 4 * plain["gflop"]


def test_how_many_images_are_recovered_at_once_does_not_matter(toy, tmp_path, monkeypatch):
    whole = run_evaluate(toy, tmp_path / "a", "dat")["means"]
    monkeypatch.setattr("hmdiff.evaluation.recovery.CHUNK", 3)
    parts = run_evaluate(toy, tmp_path / "b", "dat")["means"]
    for metric, figure in whole.items():
        assert parts[metric]["mean"] == pytest.approx(figure["mean"], rel=1e-4)


def test_an_evaluation_that_was_stopped_goes_on_to_the_same_bytes(
    toy, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(recovery, "CHUNK", 1)
    params = PARAMS.model_copy(update={"checkpoint": checkpoint_params(seconds=0)})
    run_evaluate(toy, tmp_path / "whole", "dat", params=params)
    whole = recovery.score
    for calls in (1, 1):  # of four
        monkeypatch.setattr(recovery, "score", stop_after(calls, whole))
        with pytest.raises(Stopped):
            run_evaluate(toy, tmp_path / "out", "dat", params=params)
    monkeypatch.setattr(recovery, "score", stop_after(2, whole))
    run_evaluate(toy, tmp_path / "out", "dat", params=params)
    assert "goes on after step 2" in capfd.readouterr().err
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_steps_are_chosen_on_validation_images(toy, tmp_path):
    """The test images are spoilt: they must not be looked at."""
    spoilt = tmp_path / "features.h5"
    shutil.copy(toy / "features.h5", spoilt)
    with h5py.File(spoilt, "r+") as file:
        for row in np.flatnonzero(file["split"][:] == 2):
            file["image_feature"][row] = np.nan
    for features, out in ((toy / "features.h5", "a.json"), (spoilt, "b.json")):
        paths = stage_inputs(toy, "hand", features=features)
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
    missing = stage_inputs(tmp_path / "nowhere", "hand_linear")
    select_steps.run("hand_linear", out=tmp_path / "steps.json", params=PARAMS, **missing)
    found = json.loads((tmp_path / "steps.json").read_text())
    assert (found["steps"], found["n"], found["candidates"]) == (1, 0, [])


def test_a_methods_own_values_of_the_reverse_process_reach_its_evaluations(toy, tmp_path):
    method = PARAMS.methods["hand"].model_copy(
        update={"candidates": (2,), "reverse": {"chains": 1, "solver": "dpmpp_2m"}}
    )
    params = PARAMS.model_copy(update={"methods": PARAMS.methods | {"hand": method}})
    steps = tmp_path / "steps.json"
    select_steps.run("hand", out=steps, params=params, **stage_inputs(toy, "hand"))
    run_evaluate(toy, tmp_path / "out", "dat", steps=steps, params=params)
    found = json.loads((tmp_path / "out/summary.json").read_text())
    assert (found["steps"], found["chains"], found["reverse"]["solver"]) == (2, 1, "dpmpp_2m")
    assert found["reverse"]["gamma"] == PARAMS.reverse.gamma


def test_steps_are_not_chosen_with_the_model_of_another_experiment(toy, tmp_path):
    paths = stage_inputs(toy, "hand", model=toy / "hand_linear")
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
            run_evaluate(toy, tmp_path / "out", **changes)
        assert "\n" not in str(line.value)
        assert not (tmp_path / "out").exists()


def test_features_without_any_truth_are_one_clear_line(toy, tmp_path):
    blind = tmp_path / "features.h5"
    shutil.copy(toy / "features.h5", blind)
    with h5py.File(blind, "r+") as file:
        file["valid_mesh"][...] = False
    with pytest.raises(UserError, match=r"freihand: valid_mesh.*no image has the truth") as line:
        run_evaluate(toy, tmp_path / "out", features=blind)
    assert "\n" not in str(line.value)
