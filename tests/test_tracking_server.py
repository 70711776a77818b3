"""A tracking server over HTTP, and the leader board that is read back from it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hmdiff.cli import main

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path
from hmdiff.tracking import Run, log_run
error = float(sys.argv[1])
Path("table.csv").write_text("a,b")
children = [
    Run(f"row {error + i:g}", {"preset": "toy", "seed": 0},
        {"MPVE": error + i, "MPVE low": 0, "F@5": (error + i) / 100, "learning_rate": 1},
        history={"loss/v": [(8, 2.0), (16, 1.0 / error)]},
        tags={"source": "rendered", "commit": "abc", "hash": f"{error + i:g}"}, identity="hash",
        model="toy", command="dvc repro toy", span=(1e9, 1e9 + 60))
    for i in range(2)
]
run = Run("table", artifacts=[Path("table.csv")], children=children)
sys.exit(not log_run("table1", run))
"""


def wait_until_healthy(address: str, process: subprocess.Popen) -> None:
    """Until the server answers; it takes seconds, and minutes on a busy machine."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("mlflow server has ended")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A real `mlflow server` with a store of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///server.db",
        "--artifacts-destination", "./files",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Else it starts nine processes more, for jobs of language models.
    settings = {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | settings,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def recorded(address, tmp_path_factory) -> list[subprocess.CompletedProcess]:
    """Two processes log to an experiment that neither finds, at once."""

    def record(error: str) -> subprocess.CompletedProcess:
        # A busy machine is no reason to fail; the default patience is for dead servers.
        settings = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, error], cwd=tmp_path_factory.mktemp("client"),
            env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(record, ("50", "40")))


def board(monkeypatch, capsys, address: str, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(sys, "argv", ["hmdiff", "runs", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_two_processes_log_to_one_new_experiment_at_once(recorded, address):
    assert [(done.returncode, done.stderr) for done in recorded] == [(0, "")] * 2
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address, registry_uri=address)
    (experiment,) = (e for e in client.search_experiments() if e.name == "table1")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 6 and {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    assert len(parents) == 3  # None, of the parents themselves, and these two
    for parent in parents - {None}:
        assert [file.path for file in client.list_artifacts(parent)] == ["table.csv"]
    versions = client.search_model_versions("name = 'toy'")
    assert sorted(version.tags["hash"] for version in versions) == ["40", "41", "50", "51"]


def ask(address: str, what: str, **query: str) -> dict:
    """What the UI's own pages ask for."""
    url = f"{address}/ajax-api/2.0/mlflow/{what}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.load(answer)


def test_the_compare_page_gets_curves_settings_and_when_a_run_was(recorded, address):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address, registry_uri=address)
    experiment = client.get_experiment_by_name("table1").experiment_id
    rows = client.search_runs([experiment], "attributes.run_name LIKE 'row 4%'")
    answers = [ask(address, "runs/get", run_id=row.info.run_id)["run"] for row in rows]
    assert len(answers) == 2
    for run in answers:
        assert run["info"]["end_time"] - run["info"]["start_time"] == 60_000
        assert run["data"]["metrics"][0]["key"] == "loss/v"  # the plot's first choice
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        assert tags["mlflow.source.name"] == "dvc repro toy"
        query = {"run_id": run["info"]["run_id"], "metric_key": "loss/v"}
        points = ask(address, "metrics/get-history", **query)["metrics"]
        assert [point["step"] for point in points] == [8, 16]
    names = [{metric["key"] for metric in run["data"]["metrics"]} for run in answers]
    assert names[0] == names[1] >= {"MPVE", "F at 5"}


def test_the_leader_board_is_best_first(recorded, address, monkeypatch, capsys):
    code, out, _ = board(monkeypatch, capsys, address)
    head, _, *rows = out.splitlines()
    assert code == 0 and "MPVE low" not in head and "learning_rate" not in head
    assert [row.split("  ")[0] for row in rows] == ["row 40", "row 41", "row 50", "row 51"]
    assert all(word in rows[0] for word in ("rendered", "toy", "abc", "0.4"))
    _, out, _ = board(monkeypatch, capsys, address, "--sort", "F@5")
    assert out.splitlines()[2].startswith("row 51")  # the higher the better


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--experiment", "table9"), "no experiment 'table9'; it has Default, table1"),
        (("--sort", "speed"), "--sort speed: no metric of table1; take one of MPVE, F@5, loss/v"),
        (("--experiment", "Default"), "no run in Default"),
    ],
)
def test_a_wrong_name_is_one_line(recorded, address, monkeypatch, capsys, arguments, line):
    code, _, err = board(monkeypatch, capsys, address, *arguments)
    assert code == 2 and line in err and err.count("\n") == 1


def test_without_a_store_none_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = board(monkeypatch, capsys, "")
    assert code == 2 and "mlflow.db: no such tracking store" in err
    assert not list(tmp_path.iterdir())


def test_a_dead_server_is_one_line(monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, _, err = board(monkeypatch, capsys, dead)
    assert code == 2 and "is not answering" in err and err.count("\n") == 1
