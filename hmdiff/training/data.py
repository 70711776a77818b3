"""Rows that a training reads besides the batches: for means, ridge maps and upsampling layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.errors import UserError
from hmdiff.extractor.features import FeatureFiles

BLOCK = 4096  # rows read at once where all of them are gone through


def with_mesh(features: FeatureFiles, path: Path, split: str) -> Tensor:
    """Rows with a mesh and all joints: the mean mesh and the ridge maps need both.

    Raises:
        UserError: there is none; the line names ``path``.
    """
    rows = (features.read("valid_mesh") & features.read("valid_joints").all(1)).nonzero()[:, 0]
    if not len(rows):
        raise UserError(
            f"{path}: valid_mesh: no {split} sample has a mesh and all joints; "
            "add a data set with meshes to the experiment's datasets"
        )
    return rows


def pairs(features: FeatureFiles, rows: Tensor, source: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Poses (n, J, 3) of the field ``source`` and coarse meshes (n, Vc, 3), block by block;
    metres."""
    for part in rows.split(BLOCK):
        yield features.read(source, part), features.read("coarse", part)


def full_meshes(prepared: Sequence[Path], body_model: BodyModel, count: int) -> Tensor:
    """At most ``count`` root-relative training meshes (n, V, 3) in metres, evenly spaced."""
    found = []
    for path in prepared:
        with PreparedFile(path) as file:
            train_rows = torch.as_tensor(file.indices("train"))
            rows = train_rows[torch.as_tensor(file.array("valid_mesh"))[train_rows]]
        found += [(path, row) for row in rows.tolist()]
    count = min(count, len(found))
    picked = [found[i * len(found) // count] for i in range(count)]
    meshes = [torch.empty(0, len(body_model.template), 3)]
    for path in sorted({path for path, _ in picked}):
        with PreparedFile(path) as file:
            rows = [row for other, row in picked if other == path]
            meshes.append(torch.as_tensor(file.meshes(rows, body_model)))
    return torch.cat(meshes)
