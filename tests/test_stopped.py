"""A training that SIGTERM stops has one run in MLflow: KILLED, then FINISHED, then complete."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from toy_trainings import server

from hmdiff.files import sha256, write_json
from hmdiff.tracking import Input, Run, StoppedTraining, log_run
from hmdiff.tracking.stopped import EXPERIMENT, IDENTITY, RECORD


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    """One store for all tests: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def client(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    yield client
    for run in runs(client):
        client.delete_run(run.info.run_id)


def runs(client) -> list:
    found = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([found.experiment_id]) if found else []


def training(tmp_path: Path) -> StoppedTraining:
    weights = tmp_path / "weights.safetensors"
    weights.write_text("weights")
    return StoppedTraining("train@toy", weights, {"stage": "train", "seed": 0})


def test_stopped_twice_and_ended_it_is_one_run_which_the_report_completes(client, tmp_path):
    toy = training(tmp_path)
    for step in (2, 4):
        toy.stopped(tmp_path, lambda: "key", f"SIGTERM after step {step} of 6")
        (run,) = runs(client)
        assert (run.info.status, run.info.run_name) == ("KILLED", "train@toy")
        assert run.data.tags["stopped"] == f"SIGTERM after step {step} of 6"
        assert run.info.end_time >= run.info.start_time
    toy.ended(tmp_path, lambda: "key")
    (ended,) = runs(client)
    digest = sha256(toy.weights)
    assert (ended.info.run_id, ended.info.status) == (run.info.run_id, "FINISHED")
    assert ended.data.tags[IDENTITY] == digest

    child = Run(
        "train@toy (rendered)", {"lr": 1}, {"minutes": 2.0}, {"loss": [(16, 1.0)]},
        {"stage": "train", IDENTITY: digest}, "A *toy*.",
        [Input("toy", "ab12", Path("toy.h5"), "training")], [toy.weights], identity=IDENTITY,
    )  # fmt: skip
    for _ in range(2):  # the second time there is nothing to add
        assert log_run(EXPERIMENT, Run("parent", children=[child]))
        parent, whole = sorted(runs(client), key=lambda run: run.info.run_name)
        assert whole.info.run_id == run.info.run_id
        assert (whole.info.status, whole.info.run_name) == ("FINISHED", child.name)
        assert whole.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert whole.data.tags["stopped"] == "SIGTERM after step 4 of 6"
        assert (whole.data.params, whole.data.metrics) == ({"lr": "1"}, {"minutes": 2, "loss": 1})
        assert len(whole.inputs.dataset_inputs) == 1
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == [toy.weights.name]


def test_snapshots_of_other_settings_or_of_another_store_have_another_run(client, tmp_path):
    toy = training(tmp_path)
    toy.stopped(tmp_path, lambda: "key", "SIGTERM")
    toy.stopped(tmp_path, lambda: "other", "SIGTERM")
    toy.ended(tmp_path, lambda: "key")
    assert [run.info.status for run in runs(client)] == ["KILLED", "KILLED"]
    record = json.loads((tmp_path / RECORD).read_text())
    write_json(tmp_path / RECORD, record | {"store": "sqlite:///elsewhere.db"})
    toy.ended(tmp_path, lambda: "other")
    assert [run.info.status for run in runs(client)] == ["KILLED", "KILLED"]


def test_what_was_never_stopped_asks_nobody(tmp_path, monkeypatch):
    """Neither for the store nor for the key, which reads all inputs."""
    monkeypatch.setattr("hmdiff.tracking.stopped.attempted", None)
    training(tmp_path).ended(tmp_path, None)


def test_a_lost_store_is_one_warning(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    training(tmp_path).stopped(tmp_path, lambda: "key", "SIGTERM")
    assert not (tmp_path / RECORD).exists()
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "MLflow: train@toy was not recorded" in err


def test_a_stage_that_is_asked_to_stop_is_killed_and_run_again_finished(client, uri, tmp_path):
    for name in ("toy.h5", "body", "sampling"):
        (tmp_path / name).write_text(name)
    found = []
    with server(env=os.environ | {"MLFLOW_TRACKING_URI": uri}, cwd=tmp_path) as forks:
        for fault in ("term:2", "term:2", ""):
            code = forks(tmp_path, "train", fault, tracked=True)
            (run,) = runs(client)
            found.append((code, run.info.status, run.data.tags["stopped"], run.info.run_id))
    assert "warning" not in (tmp_path / "log").read_text()
    (id_,) = {id_ for *_, id_ in found}
    assert found == [
        (143, "KILLED", "SIGTERM after step 2 of 6", id_),
        (143, "KILLED", "SIGTERM after step 4 of 6", id_),
        (0, "FINISHED", "SIGTERM after step 4 of 6", id_),
    ]
    assert run.data.tags[IDENTITY] == sha256(tmp_path / "out/weights.safetensors")
    assert run.data.tags["stage"] == "train" and run.data.tags["seed"] == "0"
    assert run.data.tags["checkpoint"] == str(tmp_path / "out/weights.safetensors")
    assert not list((tmp_path / "checkpoints").iterdir())
