"""Scoring anybody's predictions: pairs of point sets, whatever files they came from, in chunks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import LEVEL, figures
from hmdiff.evaluation.npz_rows import Rows
from hmdiff.evaluation.protocols import ON_JOINTS, Protocol, joint_columns, mesh_columns

CHUNK = 64  # samples a thread holds at once; no result depends on it
WORKERS = min(8, os.cpu_count() or 1)
LARGEST = 10.0  # metres; what is larger was not given in metres


@dataclass(frozen=True)
class Points:
    """The joints and meshes of n samples, in memory or on disk.

    Attributes:
        name: the file, for errors.
        joints: (n, J, 3) metres in the order of the kind; None: those of the meshes.
        vertices: (n, V, 3) metres, or None.
        ids: (n,) names of the samples, or None.
    """

    name: str
    joints: np.ndarray | Rows | None
    vertices: np.ndarray | Rows | None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.vertices if self.joints is None else self.joints)

    def label(self, row: int) -> str:
        """How an error calls sample ``row``."""
        return f"sample {row if self.ids is None else self.ids[row]}"

    def some(self, field: str, most: int = 256) -> np.ndarray:
        """At most ``most`` rows of ``field``, evenly spaced."""
        rows = np.unique(np.linspace(0, len(self) - 1, most).astype(int))
        return np.asarray(getattr(self, field)[rows], np.float64)


def match(predicted: Points, truth: Points) -> np.ndarray:
    """For each true sample (n,) the row of its prediction: by id where both have ids, else in turn.

    Raises:
        UserError: the numbers of samples or their ids differ, or an id is there twice.
    """
    if len(predicted) != len(truth) or not len(truth):
        raise UserError(
            f"{predicted.name}: {len(predicted)} samples, but {truth.name} has {len(truth)}; "
            "predict each of them once"
        )
    if predicted.ids is None or truth.ids is None:
        return np.arange(len(truth))
    row_of = {name: row for row, name in enumerate(predicted.ids)}
    for points, names in ((predicted, row_of), (truth, set(truth.ids))):
        if len(names) != len(points):
            raise UserError(f"{points.name}: sample_id: has names twice; predict each sample once")
    for name in truth.ids:
        if name not in row_of:
            raise UserError(
                f"{predicted.name}: sample_id: has no {str(name)!r}, which {truth.name} has; "
                "predict all samples"
            )
    return np.array([row_of[name] for name in truth.ids])


def score_points(
    protocol: Protocol,
    metrics: Sequence[str],
    predicted: Points,
    truth: Points,
    regressor: np.ndarray | None = None,
    margin: float = 0.0,
) -> pd.DataFrame:
    """``metrics`` of all samples, one row each, in the order of ``truth``.

    Args:
        regressor: (J, V) in the order of the kind; needed where joints are those of meshes.
        margin: that of :func:`hmdiff.evaluation.metrics.procrustes`.

    Raises:
        UserError: samples do not match, or a coordinate is not finite or not in metres.
    """
    rows_of = match(predicted, truth)
    on_meshes = not ON_JOINTS.issuperset(metrics)
    if regressor is None:
        root = np.empty((0, 0))
    else:
        root = regressor[protocol.indices(protocol.mesh_root)]

    def columns(rows: np.ndarray) -> pd.DataFrame:
        pair = [_read(predicted, rows_of[rows], regressor), _read(truth, rows, regressor)]
        found = joint_columns(protocol, metrics, *(joints for joints, _ in pair), margin)
        if on_meshes:
            meshes = (vertices for _, vertices in pair)
            found |= mesh_columns(protocol, metrics, *meshes, root, margin)
        return pd.DataFrame({name: found[name] for name in metrics})

    chunks = np.split(np.arange(len(truth)), range(CHUNK, len(truth), CHUNK))
    with ThreadPoolExecutor(WORKERS) as pool:
        tables = list(tqdm(pool.map(columns, chunks), "score", len(chunks), disable=None))
    table = pd.concat(tables, ignore_index=True)
    names = np.arange(len(truth)) if truth.ids is None else truth.ids
    table.insert(0, "sample_id", names)
    return table


def _read(
    points: Points, rows: np.ndarray, regressor: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints and vertices of ``rows``, float64 and looked at."""
    vertices = joints = None
    if points.vertices is not None:
        vertices = np.asarray(points.vertices[rows], np.float64)
        _check(points, rows, "vertices", vertices)
    if points.joints is not None:
        joints = np.asarray(points.joints[rows], np.float64)
        _check(points, rows, "joints", joints)
    else:
        joints = regressor @ vertices
    return joints, vertices


def _check(points: Points, rows: np.ndarray, field: str, values: np.ndarray) -> None:
    # Along the last axis numpy's minimum and maximum are many times as fast; NaN goes through them.
    by_axis = np.ascontiguousarray(values.swapaxes(1, 2))
    low, high = by_axis.min(axis=2), by_axis.max(axis=2)
    finite = (np.isfinite(low) & np.isfinite(high)).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{points.name}: {field}: {points.label(rows[~finite][0])} has numbers that are not "
            "finite; predict it again"
        )
    extent = np.median((high - low).max(axis=1))
    # One point may be far off, but not so far that its square has no place in a float.
    extent = max(extent, 1e-6 * high.max(), -1e-6 * low.min())
    if extent > LARGEST:
        raise UserError(
            f"{points.name}: {field}: {points.label(rows[0])} and others measure {extent:.0f} m; "
            "are these millimetres? Give metres"
        )


def report(
    protocol: Protocol, samples: pd.DataFrame, resamples: int, seed: int, **facts: Any
) -> dict[str, Any]:
    """Means with intervals, and what an official evaluator would print, ready for JSON.

    ``facts`` are put beside ``protocol`` and ``n``.
    """
    metrics = [name for name in samples if name != "sample_id"]
    record = {
        "protocol": protocol.name,
        "follows": protocol.follows,
        "ground_truth": protocol.ground_truth,
        "n": len(samples),
        **facts,
        "means": figures(samples, metrics, resamples, seed),
        "interval": {"level": LEVEL, "resamples": resamples, "seed": seed},
    }
    if protocol.official is not None:
        record["official"] = {}
        for key, name in protocol.official.keys.items():
            figure = record["means"][name]
            # The evaluator's lengths are centimetres.
            record["official"][key] = figure["mean"] / (10 if figure["unit"] == "mm" else 1)
    return record


def lines(record: dict[str, Any]) -> list[str]:
    """A report for people to read; the official part as the evaluator's scores.txt."""
    text = [f"{record['protocol']}: {record['n']} samples, follows {record['follows']}"]
    for name, figure in record["means"].items():
        unit = "  " if figure["unit"] == "1" else "mm"
        low, high = figure["low"], figure["high"]
        text.append(f"{name:15}{figure['mean']:10.4f} {unit}  [{low:.4f}, {high:.4f}]")
    text += [f"{key}: {value:.6f}" for key, value in record.get("official", {}).items()]
    return text
