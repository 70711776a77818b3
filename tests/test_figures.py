"""Figures 2 and 3: what they draw is what the models did, and equal numbers are equal files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits
from toy_hand import PARAMS, stage_inputs, write_toy_hand
from toys import make_body, make_features, make_sampling, make_trained, reverse_params

from hmdiff.figures import predictions, record
from hmdiff.figures.drawing import PLAIN, draw_mesh, side_view
from hmdiff.figures.predictions import Shown, numbers
from hmdiff.figures.process import PROCESSES, curves, embedding, trace
from hmdiff.inference import Predictor
from hmdiff.stages import figure2, figure3

STEPS, CHAINS = 5, 3
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
CAMERA = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])


@pytest.fixture(scope="module")
def traced():
    features = make_features(2)
    predictor = Predictor(make_trained(features), make_body(), make_sampling())
    reverse = reverse_params(chains=CHAINS)
    how = {"reverse": reverse, "steps": STEPS, "seed": 0}
    return trace(predictor, features, **how), features, predictor, how


def test_the_processes_start_from_one_noise_and_end_where_the_evaluation_does(traced):
    trajectories, features, predictor, how = traced
    assert list(trajectories) == list(PROCESSES) == ["Standard", "Disrupted", "DAT"]
    for name, part in trajectories.items():
        assert list(part.k) == [50, 40, 30, 20, 10, 0]
        assert part.meshes.shape == part.estimates.shape == (STEPS + 1, 2, CHAINS, 12, 3)
        assert np.array_equal(part.meshes[0], trajectories["Standard"].meshes[0])
        prediction = predictor.predict(features, keep_chains=True, **how, **PROCESSES[name])
        assert np.allclose(part.meshes[-1], prediction.chains, atol=1e-5)
        active = np.nansum(part.active, axis=0).mean(axis=1)
        assert np.allclose(active, prediction.active_steps)


def test_the_curves_are_distances_to_the_truth_in_millimetres(traced):
    trajectories, features, *_ = traced
    truth = features.coarse.numpy()
    frame = curves(trajectories, truth)
    assert len(frame) == 3 * (STEPS + 1)
    part = trajectories["DAT"]
    last = frame[(frame["process"] == "DAT") & (frame["k"] == 0)].iloc[0]
    distance = 1000 * np.linalg.norm(part.meshes[-1] - truth[:, None], axis=-1).mean()
    assert last["distance h_k"] == last["distance h0_hat"] == pytest.approx(distance, rel=1e-5)
    variance = part.meshes[-1].var(axis=1, ddof=1).sum(-1)
    assert last["spread h_k"] == pytest.approx(1000 * np.sqrt(variance).mean(), rel=1e-5)
    standard = frame[frame["process"] == "Standard"]
    assert standard["ratio"].isna().all() and (standard["active"].dropna() == 0).all()
    guided = frame[frame["process"] == "DAT"]
    assert guided["ratio"].iloc[0] == 1 and (guided["active"].dropna() > 0).any()
    assert (frame[frame["process"] == "Disrupted"]["active"].dropna() == 1).all()


def test_one_embedding_holds_every_mesh_of_one_image_and_its_truth(traced):
    trajectories, features, *_ = traced
    truth = features.coarse[0].numpy()
    first, second = (embedding(trajectories, truth, 0) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 1 + 3 * (STEPS + 1) * CHAINS
    assert (first["process"] == "truth").sum() == 1
    assert np.isfinite(first[["x", "y"]].to_numpy()).all()


def test_an_embedding_is_made_with_one_thread_however_many_the_engine_gives(traced, monkeypatch):
    def spy(tsne, data):
        used.extend(pool["num_threads"] for pool in threadpool_info())
        return np.zeros((len(data), 2))

    used: list[int] = []
    monkeypatch.setattr("sklearn.manifold.TSNE.fit_transform", spy)
    trajectories, features, *_ = traced
    with threadpool_limits(2):
        embedding(trajectories, features.coarse[0].numpy(), 0)
    assert set(used) == {1}


def test_a_mesh_is_drawn_where_the_camera_sees_it():
    vertices = np.array([[0, 0, 3.0], [0.4, 0, 3], [0, 0.4, 3], [0.1, 0.1, 2.5]])
    white = np.full((64, 64, 3), 255, np.uint8)
    picture = draw_mesh(vertices, FACES, np.broadcast_to(PLAIN, (4, 3)), CAMERA, white)
    drawn = np.argwhere((picture != 255).any(-1))
    assert len(drawn) and drawn.min() >= 31 and drawn.max() <= 42
    assert (white == 255).all()


def test_the_side_view_is_a_turn_about_the_vertical():
    root = np.array([0.2, 0.1, 3.0])
    seen = side_view(np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]), root) - root
    assert np.allclose(seen, [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])


def test_the_numbers_say_how_spread_and_error_go_together():
    values = np.arange(5.0)
    part = {"image": None, "camera": None, "root": None, "mesh": None, "truth": None}
    shown = [
        Shown("a", **part, spread=values, error=3 * values),
        Shown("b", **part, spread=np.zeros(5), error=values),
    ]
    frame = numbers(shown)
    assert frame["correlation over vertices"][0] == 1
    assert np.isnan(frame["correlation over vertices"][1])
    assert list(frame["error (mm)"]) == [6, 2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_hand(tmp_path_factory.mktemp("toy_hand"))


def test_a_real_image_is_not_passed_on():
    pixels = np.zeros((8, 8, 3), np.uint8)
    prepared = SimpleNamespace(image=lambda index: pixels)
    for source, shown in (("rendered", 0), ("real", 255)):
        inputs = SimpleNamespace(prepared=prepared, source=source)
        assert (predictions._shareable(inputs, 0) == shown).all()


@pytest.mark.parametrize("stage", [figure2, figure3])
def test_a_stage_writes_the_same_files_each_time_and_logs_them(toy, tmp_path, monkeypatch, stage):
    name = stage.__name__.rpartition(".")[-1]
    logged = []
    monkeypatch.setattr(record, "log_run", lambda *what: logged.append(what))
    for module in (record, stage):
        monkeypatch.setattr(module, "EVALUATION", "freihand_dat")
    settings = PARAMS.figures.model_copy(
        update={"images": 2, "process_images": 2, "process_chains": 2, "process_steps": 3}
    )
    params = PARAMS.model_copy(update={"figures": settings})
    paths = stage_inputs(toy, "hand")
    if stage is figure2:
        steps = tmp_path / "steps.json"
        steps.write_text(json.dumps({"method": "hand", "steps": 2}))
        paths["steps"] = steps
    for out in ("a", "b"):
        stage.run(out=tmp_path / out, params=params, **paths)
    for suffix in (".png", ".csv", ".json"):
        first, second = ((tmp_path / out / name).with_suffix(suffix) for out in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    caption = json.loads((tmp_path / "a" / f"{name}.json").read_text())["caption"]
    assert "rendered stand-ins" in caption and "FreiHAND" in caption
    with Image.open(tmp_path / "a" / f"{name}.png") as picture:
        assert min(picture.size) > 300
    experiment, run, _ = logged[0]
    assert experiment == "figures" and len(run.artifacts) == 3
    if stage is figure3:
        assert [child.tags["process"] for child in run.children] == list(PROCESSES)
        assert len(run.children[0].history["distance h_k"]) == 4
    assert torch.get_num_threads() == 1
