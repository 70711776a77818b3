"""A run as a plain record, and how it is written into the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmdiff.files import sha256
from hmdiff.tracking.store import NOTE, attempted, close_dead_runs, experiment_id, text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, RunInfo

PARENT = "mlflow.parentRunId"
RECORD = "record_sha256"  # the tag by which a record as a whole, its files too, is known
_BATCH = 1000  # metrics that every store takes at once


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
        begun: id of a run of the store that this one completes; None is a new one.
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
    begun: str | None = None
    model: str | None = None


def log_run(experiment: str, run: Run, about: str = "") -> bool:
    """Record ``run`` and its children under ``experiment``; True if all of it was recorded.

    ``about`` becomes the description of a new experiment. What the experiment has already, to the
    last figure and file, is not recorded again: a stage may have been killed after it was. Whatever
    goes wrong is one warning line on stderr. Several processes may log at once.
    """
    return attempted(run.name, lambda client: _record(client, experiment, run, about))


def dotted(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested records and mappings as pairs of a dotted key and a value."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, part in value.items():
        yield from dotted(f"{prefix}.{key}" if prefix else key, part)


def _record(client: MlflowClient, experiment: str, run: Run, about: str) -> None:
    within = experiment_id(client, experiment, about)
    close_dead_runs(client, within)
    digest = _digest(run)
    # Its own run ends last: where that is FINISHED, so are the children.
    if client.search_runs([within], f"tags.{RECORD} = '{digest}' AND status = 'FINISHED'"):
        return
    run = replace(run, tags={**run.tags, RECORD: digest})
    children = [left for child in run.children if (left := _left(client, within, child))]
    if children or not run.children:
        _log(client, within, replace(run, children=children), None)


def _digest(run: Run) -> str:
    """Of all that would be written of ``run``, its children and their files."""
    files = [sha256(path) for one in (run, *run.children) for path in one.artifacts]
    whole = json.dumps([asdict(run), files], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _left(client: MlflowClient, experiment_id: str, run: Run) -> Run | None:
    """``run``, with the id of what it completes; None where it is recorded already."""
    if run.identity is None:
        return run
    # A run that a lost server has cut short has its tags already, and is not finished.
    query = f"tags.`{run.identity}` = '{run.tags[run.identity]}' AND status = 'FINISHED'"
    found = client.search_runs([experiment_id], query)
    if any(PARENT in one.data.tags for one in found):
        return None
    # One without a parent was made by a training that was stopped, and says no more than that.
    return replace(run, begun=found[0].info.run_id) if found else run


def _log(client: MlflowClient, experiment_id: str, run: Run, parent: str | None) -> None:
    from mlflow.entities import Metric, Param, RunTag

    tags = {name: text(value) for name, value in run.tags.items()}
    if run.description:
        tags[NOTE] = run.description
    if run.command:
        tags |= {"mlflow.source.name": run.command, "mlflow.source.type": "LOCAL"}
    if parent is not None and run.begun is None:
        tags[PARENT] = parent
    began, ended = (int(1000 * end) for end in run.span) if run.span else (None, None)
    if run.begun is None:
        info = client.create_run(experiment_id, began, tags, run.name).info
    else:
        client.update_run(run.begun, name=run.name)
        client.log_batch(run.begun, tags=[RunTag(*pair) for pair in tags.items()])
        info = client.get_run(run.begun).info
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
    params = [Param(name, text(value)) for name, value in run.params.items()]
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
    if parent is not None and run.begun is not None:
        client.set_tag(info.run_id, PARENT, parent)  # last: by it the run is known to be complete
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
    tags = {name: text(value) for name, value in run.tags.items()}
    client.create_model_version(
        run.model, info.artifact_uri, info.run_id, tags, description=run.description
    )
