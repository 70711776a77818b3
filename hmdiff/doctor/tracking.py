"""MLflow's store. Tracking warns and never ends a stage, so that nothing here is a problem."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from hmdiff.doctor.findings import Context, Finding
from hmdiff.tracking import DEFAULT_STORE

SQLITE = "sqlite:///"
WAIT = 2  # seconds for a server's answer
UNSET = "or unset MLFLOW_TRACKING_URI: mlflow.db in this folder then takes the runs"


def store(context: Context) -> Iterator[Finding]:
    """Whether runs can be recorded: in MLFLOW_TRACKING_URI, else in mlflow.db."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    version = metadata.version("mlflow")
    if uri.startswith(("http://", "https://")):
        yield _server(uri, version)
    elif uri.startswith(SQLITE):
        yield _database(context.root / uri.removeprefix(SQLITE), version)
    else:
        yield Finding("ok", f"MLflow {version}; {_plain(uri)}, which is not looked at")


def _server(uri: str, version: str) -> Finding:
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=WAIT)
        answer.raise_for_status()
    except requests.RequestException as error:
        found = f"MLflow {version}; {_plain(uri)} does not answer ({type(error).__name__})"
        return Finding("warning", found, f"start the server, {UNSET}")
    return Finding("ok", f"MLflow {version}; {_plain(uri)} answers")


def _database(path: Path, version: str) -> Finding:
    found = f"MLflow {version}; {path}"
    if not path.exists():
        if os.access(path.parent, os.W_OK):
            return Finding("ok", f"{found}: made by the first run")
        return Finding("warning", f"{found}: its folder is not writable", f"open it, {UNSET}")
    try:
        # Of a read-only connection: it creates nothing and waits for nobody.
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    except sqlite3.Error as error:
        return Finding("warning", f"{found}: {error}", "move it away; the next run makes a new one")
    if not os.access(path, os.W_OK):
        return Finding("warning", f"{found}: not writable", f"`chmod u+w {path}`")
    return Finding("ok", f"{found}: {count} runs")


def _plain(uri: str) -> str:
    """The address without the password that it may hold."""
    scheme, _, rest = uri.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else uri
