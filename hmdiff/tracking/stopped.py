"""The MLflow run of a training that was asked to stop: KILLED, and once it is done FINISHED.

A training that nothing stops has no run until ``report`` records it, and never waits for MLflow.
One that SIGTERM or Ctrl-C stops makes its run then, and keeps the id beside its snapshots. When
the same training has gone on and ended, that run is FINISHED and has the hash of the weights, by
which ``report`` finds it and completes it: there is one run, however often it was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hmdiff
from hmdiff.errors import UserError
from hmdiff.files import read_json, sha256, write_json
from hmdiff.tracking.store import attempted, experiment_id, text, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "training"
ABOUT = "Extractors (phi_I, phi_P), diffusion models g, baselines and controls; steps are samples."
IDENTITY = "checkpoint_sha256"  # the tag by which a recorded training is known
RECORD = "run.json"  # in the folder of the snapshots


@dataclass(frozen=True)
class StoppedTraining:
    """What is known of a training when it stops.

    Attributes:
        name: the training, such as ``train@image``; also the name of its run.
        weights: the file that it writes in the end.
        tags: what else its run can be found by.
    """

    name: str
    weights: Path
    tags: Mapping[str, Any] = field(default_factory=dict)

    def stopped(self, folder: Path, key: Callable[[], str], reason: str) -> None:
        """Mark the run KILLED, for a ``reason`` such as "SIGTERM after step 20 of 40".

        Args:
            folder: of the snapshots; gets the run's id.
            key: gives what the snapshots are of: those of other settings had another run.
        """

        def work(client: MlflowClient) -> None:
            tags = {**self.tags, "checkpoint": self.weights.as_posix(), "stopped": reason}
            run_id = _run_id(folder, key)
            if run_id is None:
                within = experiment_id(client, EXPERIMENT, ABOUT)
                began = time.time() - (time.monotonic() - hmdiff.STARTED)
                run_id = client.create_run(
                    within, int(1000 * began), run_name=self.name
                ).info.run_id
                record = {"run_id": run_id, "store": tracking_uri(), "key": key()}
                write_json(folder / RECORD, record)
            for name, value in tags.items():
                client.set_tag(run_id, name, text(value))
            client.set_terminated(run_id, "KILLED")

        attempted(self.name, work)

    def ended(self, folder: Path, key: Callable[[], str]) -> None:
        """Mark the run FINISHED, if an earlier part of this training has made one."""
        run_id = _run_id(folder, key)
        if run_id is None:
            return

        def work(client: MlflowClient) -> None:
            client.set_tag(run_id, IDENTITY, sha256(self.weights))
            client.set_terminated(run_id, "FINISHED")

        attempted(self.name, work)


def _run_id(folder: Path, key: Callable[[], str]) -> str | None:
    """What :meth:`StoppedTraining.stopped` has kept, if it is of this training and this store."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_json(folder / RECORD)
        mine = (record["store"], record["key"]) == (tracking_uri(), key())
        return record["run_id"] if mine else None
    except (UserError, KeyError, TypeError):
        return None
