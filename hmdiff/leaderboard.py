"""The runs in the tracking store as a leader board."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from hmdiff.errors import UserError
from hmdiff.report.runs import SETTINGS
from hmdiff.tracking import ENVIRONMENT, SQLITE, tracking_uri

PARENT = "tags.mlflow.parentRunId"
# Metrics as MLflow names them that are better the higher they are.
HIGHER = ("F at ", "FPS")


def leaderboard(experiment: str, sort: str | None, limit: int) -> pd.DataFrame:
    """The newest ``limit`` runs of ``experiment``, best first; of equal results the newest.

    Rows are children: table rows, or trainings. Columns: the run, its source, its metrics without
    the ends of their intervals, its preset, seed and commit, and when it was recorded.

    Args:
        sort: a metric; None takes the first of the run that was recorded last.

    Raises:
        UserError: there is no store, no such experiment or metric, or no run.
    """
    runs = _search(experiment, limit)
    names = [name.removeprefix("metrics.") for name in runs if name.startswith("metrics.")]
    ends = (" low", " high", " difference")  # of intervals; to another row
    metrics = [name for name in _ordered(names) if not name.endswith(ends) and name not in SETTINGS]
    if sort is None:
        sort = metrics[0]
    sort = sort.replace("@", " at ")
    if sort not in names:
        shown = ", ".join(map(_shown, metrics))
        raise UserError(f"--sort {sort}: no metric of {experiment}; take one of {shown}")
    runs = runs.sort_values(f"metrics.{sort}", ascending=not sort.startswith(HIGHER), kind="stable")
    columns = {
        "run": runs["tags.mlflow.runName"],
        "source": runs.get("tags.source"),
        **{_shown(name): runs[f"metrics.{name}"] for name in metrics},
        "preset": runs.get("params.preset"),
        "seed": runs.get("params.seed"),
        "commit": runs.get("tags.commit"),
        "when": runs["start_time"].dt.strftime("%Y-%m-%d %H:%M"),
    }
    same = [name for name in columns if name not in ("commit", "when")]
    return pd.DataFrame(columns).drop_duplicates(same).reset_index(drop=True)


def to_text(board: pd.DataFrame) -> str:
    """``board`` for the console."""
    board = board.astype(object).where(board.notna(), None)
    return tabulate(
        board, headers="keys", tablefmt="simple", showindex=False, floatfmt=".4g", missingval="-",
        disable_numparse=[0, 1],
    )  # fmt: skip


def _shown(name: str) -> str:
    """A metric's own name; MLflow's have no "@"."""
    return name.replace(" at ", "@")


def _ordered(names: Sequence[str]) -> list[str]:
    """Errors first, the primary one before the others; system metrics last."""
    primary = ("MPVE", "PA-MPVPE", "MPJPE", "PA-MPJPE")
    rank = {name: at for at, name in enumerate(primary)}
    return sorted(names, key=lambda name: (name.startswith("system/"), rank.get(name, 9), name))


def _search(experiment: str, limit: int) -> pd.DataFrame:
    uri = tracking_uri()
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        raise UserError(
            f"{uri.removeprefix(SQLITE)}: no such tracking store; run `make tables`, or set "
            "MLFLOW_TRACKING_URI to yours"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # takes seconds, and reads the environment
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        known = [found.name for found in mlflow.search_experiments(order_by=["name ASC"])]
        if experiment not in known:
            raise UserError(f"{uri}: no experiment {experiment!r}; it has {', '.join(known)}")
        runs = mlflow.search_runs(experiment_names=[experiment], max_results=10 * limit)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{uri}: is not answering ({reason}); mend MLFLOW_TRACKING_URI") from None
    if PARENT not in runs or runs[PARENT].isna().all():
        raise UserError(f"{uri}: no run in {experiment}; run `make tables`")
    children = runs[runs[PARENT].notna()].head(limit)
    return children.dropna(axis="columns", how="all")
