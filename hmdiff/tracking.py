"""Records of runs for comparison in MLflow's UI; a failure here warns and never ends a stage.

The store is ``mlflow.db`` in the working directory, or what MLFLOW_TRACKING_URI names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, RunInfo

DEFAULT_STORE = "sqlite:///mlflow.db"
ARTIFACTS = "mlruns"
SQLITE = "sqlite:///"
_LOCK_WAIT = 120  # seconds; a table takes about one, making the store about ten
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A dead server costs seconds, not MLflow's own minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_NOTE = "mlflow.note.content"  # the UI's description
# Without it the UI opens an experiment as one of a language model.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_BATCH = 1000  # metrics that every store takes at once
_LIMIT = 500  # characters of a parameter or tag that every store takes


@dataclass(frozen=True)
class Input:
    """A data set that a run has read: its name, a hash of its content (at most 36 characters),
    where it lies, and what for (``training``, ``testing``)."""

    name: str
    digest: str
    source: Path
    context: str


@dataclass(frozen=True)
class Run:
    """One run: what was set, what came out, what it can be found by.

    Attributes:
        metrics: numbers; those that are not finite are left out.
        history: numbers by step, likewise.
        description: Markdown that the UI shows above the run.
        inputs: data sets that were read.
        artifacts: files to be copied into the store.
        children: runs nested below this one.
        command: what makes it; the UI calls it the run's source.
        span: when it began and ended, in seconds since 1970; None is the moment of recording.
        identity: a tag that holds a hash; as a child, the run is left out where the experiment
            has one with the same. A parent all of whose children are left out is left out, too.
        model: name under which a new version of a registered model points at the artifacts.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    inputs: Sequence[Input] = ()
    artifacts: Sequence[Path] = ()
    children: Sequence[Run] = ()
    command: str = ""
    span: tuple[float, float] | None = None
    identity: str | None = None
    model: str | None = None


def log_run(experiment: str, run: Run, about: str = "") -> bool:
    """Record ``run`` and its children under ``experiment``; True if all of it was recorded.

    ``about`` becomes the description of a new experiment. Whatever goes wrong is one warning line
    on stderr. Several processes may log at once.
    """
    try:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _quiet():
            _record(experiment, run, about)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"hmdiff: warning: MLflow: {run.name} was not recorded ({reason})", file=sys.stderr)
        return False
    return True


def tracking_uri() -> str:
    """The store: MLFLOW_TRACKING_URI, or SQLite in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def dotted(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested records and mappings as pairs of a dotted key and a value."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, part in value.items():
        yield from dotted(f"{prefix}.{key}" if prefix else key, part)


def _record(experiment: str, run: Run, about: str) -> None:
    from mlflow import MlflowClient  # takes seconds, and reads the environment

    uri = tracking_uri()
    with _alone(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else _create(client, experiment, uri, about)
        children = [child for child in run.children if not _is_known(client, experiment_id, child)]
        if children or not run.children:
            _log(client, experiment_id, replace(run, children=children), None)


def _is_known(client: MlflowClient, experiment_id: str, run: Run) -> bool:
    if run.identity is None:
        return False
    # A run that a lost server has cut short has its tags already, and is not finished.
    query = f"tags.`{run.identity}` = '{run.tags[run.identity]}' AND status = 'FINISHED'"
    return bool(client.search_runs([experiment_id], query, max_results=1))


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE))


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time: MLflow neither creates nor fills an SQLite store concurrently."""
    if not uri.startswith(SQLITE):
        yield
        return
    database = _database(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=_LOCK_WAIT):
        yield


def _create(client: MlflowClient, experiment: str, uri: str, about: str) -> str:
    """A new experiment; in the default store its artifacts are at a relative path.

    MLflow would store the path absolute, and moving the project's folder would break every link.
    """
    tags = {_NOTE: about, **_KIND}
    if uri != DEFAULT_STORE:
        try:
            return client.create_experiment(experiment, tags=tags)
        except Exception:
            # On a server another process may have created it since it was looked for.
            if found := client.get_experiment_by_name(experiment):
                return found.experiment_id
            raise
    experiment_id = client.create_experiment(experiment, ARTIFACTS, tags=tags)
    with contextlib.closing(sqlite3.connect(_database(uri))) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (f"{ARTIFACTS}/{experiment_id}", int(experiment_id)),
        )
    return experiment_id


def _log(client: MlflowClient, experiment_id: str, run: Run, parent: str | None) -> None:
    from mlflow.entities import Metric, Param

    tags = {name: _text(value) for name, value in run.tags.items()}
    if run.description:
        tags[_NOTE] = run.description
    if run.command:
        tags |= {"mlflow.source.name": run.command, "mlflow.source.type": "LOCAL"}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    began, ended = (int(1000 * end) for end in run.span) if run.span else (None, None)
    info = client.create_run(experiment_id, began, tags, run.name).info
    now = int(1000 * time.time())
    # The page that compares runs opens with the metric that came first.
    points = [(name, *point) for name, line in run.history.items() for point in line]
    points += [(name, 0, value) for name, value in run.metrics.items()]
    metrics = [
        # MLflow's names have no "@".
        Metric(name.replace("@", " at "), float(value), now, step)
        for name, step, value in points
        if math.isfinite(value)
    ]
    params = [Param(name, _text(value)) for name, value in run.params.items()]
    client.log_batch(info.run_id, params=params)
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(info.run_id, metrics=metrics[start : start + _BATCH])
    if run.inputs:
        client.log_inputs(info.run_id, [_dataset(item) for item in run.inputs])
    for path in run.artifacts:
        client.log_artifact(info.run_id, str(path))
    if run.model:
        _register(client, run, info)
    for child in run.children:
        _log(client, experiment_id, child, info.run_id)
    client.set_terminated(info.run_id, end_time=ended)


def _dataset(item: Input) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": item.source.as_posix()})
    data = Dataset(item.name, item.digest, "local", source)
    return DatasetInput(data, [InputTag("mlflow.data.context", item.context)])


def _register(client: MlflowClient, run: Run, info: RunInfo) -> None:
    """A version of the registered model ``run.model``: the run's artifacts; its tags name the
    checkpoint, which stays where it is, by path and hash."""
    with contextlib.suppress(Exception):  # it exists already
        client.create_registered_model(run.model)
    tags = {name: _text(value) for name, value in run.tags.items()}
    client.create_model_version(
        run.model, info.artifact_uri, info.run_id, tags, description=run.description
    )


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
