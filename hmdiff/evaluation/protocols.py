"""Protocols as data: what is compared, about which root, by which metrics, with which truth."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML

from hmdiff.errors import UserError
from hmdiff.evaluation.metrics import area_under_pck, f_scores, mean_distance, procrustes
from hmdiff.kinds import KINDS

Metric = Literal["MPVE", "MPJPE", "PA-MPJPE", "PA-MPVPE", "F@5", "F@15"]
# What official evaluators print besides, all of them shares.
Extra = Literal["AUC-J", "PA-AUC-J", "AUC-V", "PA-AUC-V", "unaligned F@5", "unaligned F@15"]
ON_JOINTS = {"MPJPE", "PA-MPJPE", "AUC-J", "PA-AUC-J"}
UNITS = {name: "1" if name.startswith("F@") else "mm" for name in get_args(Metric)}
FILE = Path(str(resources.files("hmdiff.evaluation") / "protocols.yaml"))


class Official(BaseModel):
    """What the data set's own evaluator prints, and from how many samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: float
    samples: int
    keys: dict[str, Metric | Extra]


class Protocol(BaseModel):
    """One entry of protocols.yaml, whose head explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["body", "hand"]
    joints: tuple[str, ...]
    regressor: str
    recentre: tuple[tuple[str, ...], ...]
    mesh_root: tuple[str, ...]
    reflections: bool
    metrics: tuple[Metric, ...]
    primary: Metric
    split: str
    ground_truth: Literal["neutral", "gendered", "native"]
    crop: str
    test_time_augmentation: str
    checkpoint: str
    follows: str
    official: Official | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        known = KINDS[self.kind].joints
        for name in self._named():
            if name not in known:
                raise ValueError(f"unknown joint {name!r}, a {self.kind} has {', '.join(known)}")
        if self.primary not in self.metrics:
            raise ValueError("primary must be one of metrics")
        if (self.kind == "hand") != (self.official is not None):
            raise ValueError("official must be given for a hand, and for a hand alone")
        return self

    def _named(self) -> list[str]:
        origins = [name for origin in self.recentre for name in origin]
        return [*self.joints, *origins, *self.mesh_root]

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Indices of joints ``names`` in the order of the kind."""
        return [KINDS[self.kind].joints.index(name) for name in names]

    @property
    def needed_joints(self) -> list[int]:
        """Indices of the true joints without which a sample cannot be scored."""
        return sorted(set(self.indices(tuple(self._named()))))

    @property
    def needs_meshes(self) -> bool:
        """Whether a sample without a true mesh cannot be scored."""
        return not ON_JOINTS.issuperset(self.metrics)


def load_protocol(name: str, path: Path = FILE) -> Protocol:
    """The protocol ``name``; a data set's own has the name of the data set.

    Raises:
        UserError: there is none, or a field of it is unknown or wrong (say, an unknown joint).
    """
    protocols = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    if name not in protocols:
        known = ", ".join(protocols)
        raise UserError(f"{path}: {name!r}: no such protocol; add it or take one of {known}")
    try:
        return Protocol.model_validate({"name": name, **protocols[name]})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (name, *first["loc"]))
        raise UserError(f"{path}: {field}: {first['msg']}; mend the value") from None


def score(
    protocol: Protocol,
    predicted_vertices: np.ndarray,
    gt_vertices: np.ndarray | None,
    gt_joints: np.ndarray,
    regressor: np.ndarray,
) -> pd.DataFrame:
    """Errors of n predicted meshes, one row a sample, one column a metric of ``protocol``.

    Args:
        predicted_vertices: (n, V, 3) metres, camera axes; any origin.
        gt_vertices: (n, V, 3) metres, or None where the protocol does without.
        gt_joints: (n, J, 3) metres, in the order of the kind's joints.
        regressor: (J, V), the joints of a mesh in that order.

    Returns:
        Millimetres; F-scores in 0..1.
    """
    if protocol.needs_meshes and gt_vertices is None:
        raise ValueError(f"{', '.join(protocol.metrics)} need true meshes")
    vertices = np.asarray(predicted_vertices, np.float64)
    regressor = np.asarray(regressor, np.float64)
    columns = joint_columns(protocol, protocol.metrics, regressor @ vertices, gt_joints)
    if protocol.needs_meshes:
        root = regressor[protocol.indices(protocol.mesh_root)]
        columns |= mesh_columns(protocol, protocol.metrics, vertices, gt_vertices, root)
    return pd.DataFrame({name: columns[name] for name in protocol.metrics})


def scored_joints(protocol: Protocol, joints: np.ndarray) -> np.ndarray:
    """Those of joints (n, J, 3) that are compared, about the protocol's origin, in its order."""
    recentred = _recentred(protocol, np.asarray(joints, np.float64))
    return recentred[:, protocol.indices(protocol.joints)]


def joint_columns(
    protocol: Protocol,
    metrics: Collection[str],
    predicted: np.ndarray,
    truth: np.ndarray,
    margin: float = 0.0,
) -> dict[str, np.ndarray]:
    """Those of ``metrics`` that compare joints (n, J, 3), in the order of the kind's joints.

    ``margin`` is that of :func:`hmdiff.evaluation.metrics.procrustes`.
    """
    predicted, truth = (scored_joints(protocol, joints) for joints in (predicted, truth))
    columns = {}
    if "MPJPE" in metrics:
        columns["MPJPE"] = mean_distance(predicted, truth)
    if "AUC-J" in metrics:
        columns["AUC-J"] = area_under_pck(predicted, truth)
    if not {"PA-MPJPE", "PA-AUC-J"}.isdisjoint(metrics):
        aligned = procrustes(predicted, truth, protocol.reflections, margin)
        columns["PA-MPJPE"] = mean_distance(aligned, truth)
        if "PA-AUC-J" in metrics:
            columns["PA-AUC-J"] = area_under_pck(aligned, truth)
    return columns


def mesh_columns(
    protocol: Protocol,
    metrics: Collection[str],
    predicted: np.ndarray,
    truth: np.ndarray,
    root: np.ndarray,
    margin: float = 0.0,
) -> dict[str, np.ndarray]:
    """Those of ``metrics`` that compare meshes (n, V, 3).

    Aligned ones use the mesh's own Procrustes, not that of the joints. ``root`` (R, V) are the
    regressor's rows of ``protocol.mesh_root``; with none, meshes stay where they are.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    columns = {}
    if "MPVE" in metrics:
        columns["MPVE"] = mean_distance(*(_about(root, mesh) for mesh in (predicted, truth)))
    if "AUC-V" in metrics:
        columns["AUC-V"] = area_under_pck(predicted, truth)
    columns |= _f_columns(metrics, "unaligned F@", predicted, truth)
    if not {"PA-MPVPE", "PA-AUC-V", "F@5", "F@15"}.isdisjoint(metrics):
        aligned = procrustes(predicted, truth, protocol.reflections, margin)
        columns["PA-MPVPE"] = mean_distance(aligned, truth)
        if "PA-AUC-V" in metrics:
            columns["PA-AUC-V"] = area_under_pck(aligned, truth)
        columns |= _f_columns(metrics, "F@", aligned, truth)
    return columns


def _recentred(protocol: Protocol, joints: np.ndarray) -> np.ndarray:
    for origin in protocol.recentre:
        joints = joints - joints[:, protocol.indices(origin)].mean(axis=1, keepdims=True)
    return joints


def _about(root: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    return vertices - (root.mean(axis=0) @ vertices)[:, None] if len(root) else vertices


def _f_columns(
    metrics: Collection[str], prefix: str, predicted: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    names = [name for name in metrics if name.startswith(prefix)]
    if not names:
        return {}
    thresholds = tuple(float(name.removeprefix(prefix)) for name in names)
    return dict(zip(names, f_scores(predicted, truth, thresholds), strict=True))
