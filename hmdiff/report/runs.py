"""The trainings as MLflow runs: curves, cost, data, checkpoint, registered model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hmdiff.costs import StageCost
from hmdiff.params import Params
from hmdiff.report.provenance import Provenance, origin
from hmdiff.report.trainings import Training
from hmdiff.resources import GIGABYTE
from hmdiff.tables.paper import paper_table
from hmdiff.tracking import Input, Run, dotted
from hmdiff.tracking.stopped import ABOUT, IDENTITY

SETTINGS = ("learning_rate", "penalty")  # in the curves, yet no measure of anything


def training_runs(
    trainings: Sequence[Training],
    data: Collection[Provenance],
    costs: Mapping[str, StageCost],
    hashes: Mapping[str, str],
    params: Params,
    commit: str | None,
) -> Run:
    """A parent with one child a training; one whose weights are recorded already is left out.

    Args:
        costs: of the stages, by address. hashes: DVC's, of outputs by path.

    The models of the row "Ours" in Tables 1 and 2 become versions of registered models.
    """
    sources = {part.name: part.source for part in data}
    tags = {"commit": commit or "unknown", "preset": params.preset}
    children = []
    for training in trainings:
        used = {sources[name] for name in training.datasets if name in sources}
        label = origin(used) if used else "data unknown"
        cost = costs.get(training.address)
        children.append(
            Run(
                name=f"{training.address} ({', '.join(training.datasets)}; {label})",
                description=f"{training.address} of preset {params.preset}, trained on {label}.",
                params=_params(training, params),
                metrics=_system(cost) if cost else {},
                history=_history(training),
                tags=tags
                | {
                    "stage": training.stage,
                    "name": training.name,
                    "kind": training.kind,
                    "dataset": ",".join(training.datasets),
                    "source": ",".join(sorted(used)),
                    "seed": training.record.get("seed", params.seed),
                    "checkpoint": training.weights.as_posix(),
                    IDENTITY: training.digest,
                }
                | ({"machine": cost.machine} if cost else {}),
                inputs=[
                    Input(part.name, hashes[part.path.as_posix()], part.path, "training")
                    for part in data
                    if part.kind == training.kind
                    and part.name in training.datasets
                    and part.path.as_posix() in hashes
                ],
                artifacts=sorted(p for p in training.folder.iterdir() if p != training.weights),
                command=f"dvc repro {training.address}",
                span=(cost.ended - cost.seconds, cost.ended) if cost and cost.ended else None,
                identity=IDENTITY,
                model=_registered(training, params),
            )
        )
    name = f"Trainings (preset {params.preset}, commit {tags['commit']})"
    return Run(name, tags=tags, description=ABOUT, children=children)


def _params(training: Training, params: Params) -> dict[str, Any]:
    """The record by dotted key, without what is a tag."""
    record = {key: value for key, value in training.record.items() if key not in ("name", "kind")}
    return {"preset": params.preset} | dict(dotted("", record))


def _history(training: Training) -> dict[str, list[tuple[int, float]]]:
    """The curve: the loss and its terms in a group of their own, settings last."""
    lines = {}
    for column, line in training.history.items():
        plain = column in SETTINGS or column.startswith("val_")
        lines[column if plain else f"loss/{column}"] = line
    return dict(sorted(lines.items(), key=lambda item: item[0] in SETTINGS))


def _system(cost: StageCost) -> dict[str, float]:
    """Under the prefix that MLflow's UI shows as system metrics."""
    return {
        "system/wall_minutes": cost.seconds / 60,
        "system/cpu_minutes": cost.cpu_seconds / 60,
        "system/peak_memory_gigabytes": cost.peak_bytes / GIGABYTE,
    }


def _registered(training: Training, params: Params) -> str | None:
    """``hmdiff-KIND`` for the model that the paper's main tables are about."""
    mains = {
        params.evaluations[evaluation].experiment
        for number in (1, 2)
        for evaluation in paper_table(number).measured["Ours"].values()
    }
    if training.stage != "train" or training.name not in mains:
        return None
    return f"hmdiff-{training.kind}"
