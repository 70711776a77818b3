"""Protocols as data: what is compared, about which root, and by which metrics."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML

from hmdiff.errors import UserError
from hmdiff.evaluation.metrics import f_score, mean_distance, procrustes
from hmdiff.kinds import KINDS

Metric = Literal["MPVE", "MPJPE", "PA-MPJPE", "PA-MPVPE", "F@5", "F@15"]
ON_MESHES = {"MPVE", "PA-MPVPE", "F@5", "F@15"}
UNITS = {name: "1" if name.startswith("F@") else "mm" for name in get_args(Metric)}
FILE = Path(str(resources.files("hmdiff.evaluation") / "protocols.yaml"))


class Protocol(BaseModel):
    """One entry of protocols.yaml, whose head explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["body", "hand"]
    joints: tuple[str, ...]
    regressor: str
    recentre: tuple[tuple[str, ...], ...]
    mesh_root: tuple[str, ...]
    reflections: bool
    metrics: tuple[Metric, ...]
    primary: Metric
    split: str
    gender: str
    crop: str
    test_time_augmentation: str
    checkpoint: str
    follows: str

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        known = KINDS[self.kind].joints
        for name in self._named():
            if name not in known:
                raise ValueError(f"unknown joint {name!r}, a {self.kind} has {', '.join(known)}")
        if self.primary not in self.metrics:
            raise ValueError("primary must be one of metrics")
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
        return bool(ON_MESHES.intersection(self.metrics))


def load_protocol(name: str, path: Path = FILE) -> Protocol:
    """The protocol of data set ``name``.

    Raises:
        UserError: there is none, or a field of it is unknown or wrong (say, an unknown joint).
    """
    protocols = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    if name not in protocols:
        known = ", ".join(protocols)
        raise UserError(f"{path}: {name!r}: no such protocol; add it or take one of {known}")
    try:
        return Protocol.model_validate(protocols[name])
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
    compared = [
        _recentred(protocol, joints)[:, protocol.indices(protocol.joints)]
        for joints in (regressor @ vertices, np.asarray(gt_joints, np.float64))
    ]
    columns = {}
    if "MPJPE" in protocol.metrics:
        columns["MPJPE"] = mean_distance(*compared)
    if "PA-MPJPE" in protocol.metrics:
        aligned = procrustes(*compared, protocol.reflections)
        columns["PA-MPJPE"] = mean_distance(aligned, compared[1])
    if protocol.needs_meshes:
        truth = np.asarray(gt_vertices, np.float64)
        columns |= _mesh_columns(protocol, vertices, truth, regressor)
    return pd.DataFrame({name: columns[name] for name in protocol.metrics})


def _recentred(protocol: Protocol, joints: np.ndarray) -> np.ndarray:
    for origin in protocol.recentre:
        joints = joints - joints[:, protocol.indices(origin)].mean(axis=1, keepdims=True)
    return joints


def _mesh_columns(
    protocol: Protocol, vertices: np.ndarray, truth: np.ndarray, regressor: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics of meshes. Aligned ones use the mesh's own Procrustes, not that of the joints."""
    columns = {}
    if "MPVE" in protocol.metrics:
        root = regressor[protocol.indices(protocol.mesh_root)].mean(axis=0)
        columns["MPVE"] = mean_distance(
            vertices - (root @ vertices)[:, None], truth - (root @ truth)[:, None]
        )
    if not {"PA-MPVPE", "F@5", "F@15"}.isdisjoint(protocol.metrics):
        aligned = procrustes(vertices, truth, protocol.reflections)
        columns["PA-MPVPE"] = mean_distance(aligned, truth)
        for name in ("F@5", "F@15"):
            if name in protocol.metrics:
                columns[name] = f_score(aligned, truth, float(name.removeprefix("F@")))
    return columns
