"""The tracking store: where it is, who is at it, and that its failures are warnings."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from hmdiff.files import atomic_file, remove_partial

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
NOTE = "mlflow.note.content"  # the UI's description
# Without it the UI opens an experiment as one of a language model.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_LIMIT = 500  # characters of a parameter or tag that every store takes


def tracking_uri() -> str:
    """The store: MLFLOW_TRACKING_URI, or SQLite in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def attempted(name: str, work: Callable[[MlflowClient], None]) -> bool:
    """Do ``work`` with the store's client; False, and one warning line, where it fails.

    Several processes may come at once.
    """
    try:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        with _quiet():
            from mlflow import MlflowClient  # takes seconds, and reads the environment

            uri = tracking_uri()
            with _alone(uri):
                work(MlflowClient(tracking_uri=uri, registry_uri=uri))
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"hmdiff: warning: MLflow: {name} was not recorded ({reason})", file=sys.stderr)
        return False
    return True


def close_dead_runs(client: MlflowClient, experiment_id: str) -> None:
    """Mark runs KILLED whose process was killed while it recorded them.

    In an SQLite store, where one process at a time is at work. On a server nobody can know.
    """
    if tracking_uri().startswith(SQLITE):
        for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
            client.set_terminated(run.info.run_id, "KILLED")


def experiment_id(client: MlflowClient, experiment: str, about: str) -> str:
    """Of ``experiment``, which is made with the description ``about`` where there is none.

    In the default store its artifacts are at a relative path: MLflow would store the path
    absolute, and moving the project's folder would break every link.
    """
    if found := client.get_experiment_by_name(experiment):
        return found.experiment_id
    uri, tags = tracking_uri(), {NOTE: about, **_KIND}
    if uri != DEFAULT_STORE:
        try:
            return client.create_experiment(experiment, tags=tags)
        except Exception:
            # On a server another process may have created it since it was looked for.
            if found := client.get_experiment_by_name(experiment):
                return found.experiment_id
            raise
    made = client.create_experiment(experiment, ARTIFACTS, tags=tags)
    with contextlib.closing(sqlite3.connect(_database(uri))) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (f"{ARTIFACTS}/{made}", int(made)),
        )
    return made


def text(value: object) -> str:
    """``value`` as every store takes it."""
    return str(value)[:_LIMIT]


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
        if not database.exists():
            _make(database)
        yield


def _make(database: Path) -> None:
    """A new store, whole or not at all: one that MLflow was killed over it can never open again."""
    from mlflow import MlflowClient

    remove_partial(database)
    with atomic_file(database) as temporary:
        MlflowClient(f"{SQLITE}{temporary}", f"{SQLITE}{temporary}").search_experiments()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Below errors, silence: the libraries report every migration and every retry."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
