"""Ridge maps from a pose to a mesh: the linear control, and the lift of U that H_U starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PoseToMesh(nn.Module):
    """The affine map (..., J, 3) -> (..., V, 3), root-relative metres on both sides."""

    def __init__(self, joints: int, vertices: int):
        super().__init__()
        self.vertices = vertices
        self.register_buffer("weight", torch.zeros(3 * joints, 3 * vertices))
        self.register_buffer("bias", torch.zeros(3 * vertices))

    def forward(self, pose: Tensor) -> Tensor:
        return (pose.flatten(-2) @ self.weight + self.bias).unflatten(-1, (self.vertices, 3))


def fit_ridge(
    pose: Tensor, meshes: Tensor, val_pose: Tensor, val_meshes: Tensor, penalties: Sequence[float]
) -> tuple[PoseToMesh, list[dict[str, float]]]:
    """Least squares with a quadratic penalty, in float64; the intercept is not penalised.

    The penalty is the one of ``penalties`` with the least mean vertex error on the validation
    pairs, the larger one of equals. It is taken per training sample, so that a value means the
    same for any number of them.

    Args:
        pose, meshes: (n, J, 3) and (n, V, 3) training pairs, root-relative metres.
        val_pose, val_meshes: the same for the validation pairs.

    Returns:
        The map, and one record ``{penalty, val_mpve}`` (millimetres) a candidate.
    """
    inputs, targets = pose.flatten(1).double(), meshes.flatten(1).double()
    input_mean, target_mean = inputs.mean(0), targets.mean(0)
    inputs = inputs - input_mean
    gram = inputs.T @ inputs / len(inputs)
    cross = inputs.T @ (targets - target_mean) / len(inputs)
    fitted = PoseToMesh(pose.shape[1], meshes.shape[1])
    records: list[dict[str, float]] = []
    for penalty in sorted(penalties, reverse=True):
        ridge = penalty * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + ridge, cross)
        candidate = PoseToMesh(pose.shape[1], meshes.shape[1])
        candidate.weight = weight.float()
        candidate.bias = (target_mean - input_mean @ weight).float()
        error = 1000 * (candidate(val_pose) - val_meshes).norm(dim=-1).mean().item()
        if not records or error < min(record["val_mpve"] for record in records):
            fitted = candidate
        records.append({"penalty": penalty, "val_mpve": error})
    return fitted, records
