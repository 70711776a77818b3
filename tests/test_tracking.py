"""Tracking: what is recorded, and that nothing about it can end or hold up a stage."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hmdiff.tracking import Run, log_run

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path
from hmdiff.tracking import Input, Run, log_run
Path(sys.argv[1]).write_text("a,b")
child = Run(
    "row", {"steps": 40}, {"F@5": 0.5, "nothing": float("nan")},
    {"loss": [(16, 2.0), (32, 1.0), (48, float("nan"))]}, {"dataset": "toy", "hash": sys.argv[1]},
    "A *toy*.", [Input("toy", "ab12", Path("toy.h5"), "training")], identity="hash",
    model="toy-model",
)
run = Run(sys.argv[1], tags={"table": sys.argv[1]}, artifacts=[Path(sys.argv[1])], children=[child])
sys.exit(not log_run(sys.argv[2], run, "About toys."))
"""


# Kills itself while MLflow brings a new store's tables up to date: between two of its statements.
KILLED = """
import os, signal, sqlalchemy
@sqlalchemy.event.listens_for(sqlalchemy.Engine, "after_cursor_execute")
def executed(connection, cursor, statement, *_):
    if "CREATE TABLE _alembic_tmp_runs" in statement:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def record(folder: Path, name: str, experiment: str, before: str = ""):
    """Log in a process of its own, as a stage does, once it has executed ``before``."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    return subprocess.run(
        [sys.executable, "-c", before + SCRIPT, name, experiment],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env=base | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that did not exist before four processes logged to it at once; one that was about to
    make it was killed."""
    folder = tmp_path_factory.mktemp("store")
    assert record(folder, "table0.csv", "table0", KILLED).returncode == -signal.SIGKILL
    jobs = [(f"table{i}.csv", f"table{i % 2}") for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        return folder, list(pool.map(lambda job: record(folder, *job), jobs))


def test_processes_that_start_a_store_at_once_all_succeed_in_silence(store):
    _, results = store
    assert [(result.returncode, result.stdout, result.stderr) for result in results] == [
        (0, "", "")
    ] * 4


def test_what_was_killed_while_it_made_the_store_leaves_nothing(store):
    folder, _ = store
    made = [path.name for path in folder.iterdir() if path.suffix != ".csv"]
    assert sorted(made) == ["mlflow.db", "mlflow.db.lock", "mlruns"]


def test_a_run_has_its_child_params_metrics_tags_and_files(store, monkeypatch):
    folder, _ = store
    monkeypatch.chdir(folder)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")
    experiments = [client.get_experiment_by_name(name) for name in ("table0", "table1")]
    assert all(experiments)
    runs = client.search_runs([experiment.experiment_id for experiment in experiments])
    parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    children = [run for run in runs if run.info.run_id not in parents]
    assert len(parents) == len(children) == 4
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == set(parents)
    assert all(run.info.status == "FINISHED" for run in runs)
    for child in children:
        assert child.data.params == {"steps": "40"}
        assert child.data.metrics == {"F at 5": 0.5, "loss": 1.0}
        steps = client.get_metric_history(child.info.run_id, "loss")
        assert [(point.step, point.value) for point in steps] == [(16, 2.0), (32, 1.0)]
        assert child.data.tags["dataset"] == "toy"
        assert child.data.tags["mlflow.note.content"] == "A *toy*."
        (item,) = child.inputs.dataset_inputs
        assert (item.dataset.name, item.dataset.digest) == ("toy", "ab12")
        assert [tag.value for tag in item.tags] == ["training"]
    assert all(found.tags["mlflow.note.content"] == "About toys." for found in experiments)
    versions = client.search_model_versions("name = 'toy-model'")
    assert {version.run_id for version in versions} == {child.info.run_id for child in children}
    assert {version.tags["hash"] for version in versions} == {f"table{i}.csv" for i in range(4)}
    for run_id, run in parents.items():
        assert [file.path for file in client.list_artifacts(run_id)] == [run.data.tags["table"]]


def test_what_is_recorded_already_is_not_recorded_again(store, tmp_path, monkeypatch):
    folder, _ = store
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("table1").experiment_id
    before = len(client.search_runs([experiment]))
    known = Run("again", tags={"hash": "table1.csv"}, identity="hash")
    assert log_run("table1", Run("parent", children=[known]))
    assert len(client.search_runs([experiment])) == before
    new = Run("new", tags={"hash": "ab12"}, identity="hash")
    assert log_run("table1", Run("parent", children=[known, new]))
    names = [run.info.run_name for run in client.search_runs([experiment])]
    assert len(names) == before + 2 and {"parent", "new"} <= set(names) and "again" not in names


def test_a_table_that_is_run_again_is_recorded_once_unless_something_of_it_differs(
    store, tmp_path, monkeypatch
):
    """As where it was killed after it had recorded itself, and before DVC had its outputs."""
    folder, _ = store
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    file = tmp_path / "table.csv"

    def runs(text: str, error: float) -> int:
        """How many there are when a table has recorded itself."""
        file.write_text(text)
        row = Run("row", {"steps": 40}, {"MPVE": error, "nothing": float("nan")})
        assert log_run("table9", Run("table", artifacts=[file], children=[row]))
        found = client.get_experiment_by_name("table9")
        return len(client.search_runs([found.experiment_id]))

    assert [runs("a", 1.5), runs("a", 1.5)] == [2, 2]
    assert [runs("a", 1.25), runs("b", 1.25), runs("a", 1.5)] == [4, 6, 6]


def test_a_run_that_was_killed_over_its_recording_does_not_go_on_for_ever(
    store, tmp_path, monkeypatch
):
    folder, _ = store
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("table1").experiment_id
    dead = client.create_run(experiment).info.run_id
    assert log_run("table1", Run("next"))
    assert client.get_run(dead).info.status == "KILLED"
    assert not client.search_runs([experiment], "attributes.status = 'RUNNING'")


def test_files_are_found_after_the_folder_has_moved(store, tmp_path, monkeypatch):
    folder, _ = store
    shutil.copytree(folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    (copy,) = Path("mlruns").glob("**/table1.csv")
    copy.write_text("the moved one")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")
    experiment = client.get_experiment_by_name("table1")
    (run,) = client.search_runs([experiment.experiment_id], "tags.table = 'table1.csv'")
    found = client.download_artifacts(run.info.run_id, "table1.csv")
    assert Path(found).read_text() == "the moved one"


def test_a_dead_server_is_one_warning_within_seconds(monkeypatch, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    start = time.monotonic()
    assert not log_run("table1", Run("table1"))
    assert time.monotonic() - start < 15
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "warning: MLflow: table1 was not recorded" in printed.err


def test_a_store_that_cannot_be_used_is_one_warning(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    assert not log_run("table1", Run("table1"))
    assert capfd.readouterr().err.count("\n") == 1


def test_the_named_store_is_used(store, tmp_path, monkeypatch):
    folder, _ = store
    shutil.copy(folder / "mlflow.db", tmp_path / "other.db")  # a new one takes seconds to make
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert log_run("elsewhere", Run("row", metrics={"MPVE": 1.5}))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/other.db")
    experiment = client.get_experiment_by_name("elsewhere")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"MPVE": 1.5}
    assert not (tmp_path / "mlflow.db").exists()
