"""Records of runs for comparison in MLflow's UI; a failure here warns and never ends a stage.

The store is ``mlflow.db`` in the working directory, or what MLFLOW_TRACKING_URI names.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
ARTIFACTS = "mlruns"
_SQLITE = "sqlite:///"
_LOCK_WAIT = 120  # seconds; a table takes about one, making the store about ten
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A dead server costs seconds, not MLflow's own minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_LIMIT = 500  # characters of a parameter or tag that every store takes


@dataclass(frozen=True)
class Run:
    """One run: what was set, what came out, what it can be found by.

    Attributes:
        metrics: numbers; those that are not finite are left out.
        artifacts: files to be copied into the store.
        children: runs nested below this one.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    children: Sequence[Run] = ()


def log_run(experiment: str, run: Run) -> bool:
    """Record ``run`` and its children under ``experiment``; True if all of it was recorded.

    Whatever goes wrong is one warning line on stderr. Several processes may log at once.
    """
    try:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _quiet():
            _record(experiment, run)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"hmdiff: warning: MLflow: {run.name} was not recorded ({reason})", file=sys.stderr)
        return False
    return True


def _record(experiment: str, run: Run) -> None:
    from mlflow import MlflowClient  # takes seconds, and reads the environment

    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    with _alone(uri):
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else _create(client, experiment, uri)
        _log(client, experiment_id, run, None)


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE))


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time: MLflow neither creates nor fills an SQLite store concurrently."""
    if not uri.startswith(_SQLITE):
        yield
        return
    database = _database(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=_LOCK_WAIT):
        yield


def _create(client: MlflowClient, experiment: str, uri: str) -> str:
    """A new experiment; in the default store its artifacts are at a relative path.

    MLflow would store the path absolute, and moving the project's folder would break every link.
    """
    if uri != DEFAULT_STORE:
        return client.create_experiment(experiment)
    experiment_id = client.create_experiment(experiment, ARTIFACTS)
    with contextlib.closing(sqlite3.connect(_database(uri))) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (f"{ARTIFACTS}/{experiment_id}", int(experiment_id)),
        )
    return experiment_id


def _log(client: MlflowClient, experiment_id: str, run: Run, parent: str | None) -> None:
    from mlflow.entities import Metric, Param

    tags = {name: _text(value) for name, value in run.tags.items()}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    run_id = client.create_run(experiment_id, tags=tags, run_name=run.name).info.run_id
    now = int(1000 * time.time())
    metrics = [
        # MLflow's names have no "@".
        Metric(name.replace("@", " at "), float(value), now, 0)
        for name, value in run.metrics.items()
        if math.isfinite(value)
    ]
    params = [Param(name, _text(value)) for name, value in run.params.items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    for path in run.artifacts:
        client.log_artifact(run_id, str(path))
    for child in run.children:
        _log(client, experiment_id, child, run_id)
    client.set_terminated(run_id)


def _text(value: Any) -> str:
    return str(value)[:_LIMIT]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Below errors, silence: the libraries report every migration and every retry."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
