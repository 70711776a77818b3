"""Fitting ridge maps from a pose to a mesh (diffusion/lift.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hmdiff.diffusion.lift import PoseToMesh

Pairs = Iterable[tuple[Tensor, Tensor]]
"""Blocks of poses (n, J, 3) and meshes (n, V, 3), root-relative metres, one after the other."""


def fit_ridge(
    training: Pairs, validation: Pairs, penalties: Sequence[float]
) -> tuple[PoseToMesh, list[dict[str, float]]]:
    """Least squares with a quadratic penalty, in float64; the intercept is not penalised.

    The penalty is the one of ``penalties`` with the least mean vertex error on the validation
    pairs, the larger one of equals. It is taken per training sample, so that a value means the
    same for any number of them. Each of the pairs is read once, block by block.

    Returns:
        The map, and one record ``{penalty, val_mpve}`` (millimetres) a candidate.
    """
    moments = _Moments(training)
    candidates = [moments.solve(penalty) for penalty in sorted(penalties, reverse=True)]
    errors, count = [0.0] * len(candidates), 0
    for pose, meshes in validation:
        count += len(pose)
        for number, candidate in enumerate(candidates):
            distance = (candidate(pose) - meshes).norm(dim=-1)
            errors[number] += distance.double().mean(1).sum().item()
    records = [
        {"penalty": penalty, "val_mpve": 1000 * error / count}
        for penalty, error in zip(sorted(penalties, reverse=True), errors, strict=True)
    ]
    return candidates[min(range(len(errors)), key=errors.__getitem__)], records


class _Moments:
    """Means and centred second moments of pairs, in float64.

    Sums are taken about the means of the first block: about zero they would lose digits.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.count = 0
        for pose, meshes in pairs:
            self.shape = (pose.shape[1], meshes.shape[1])
            x, y = pose.flatten(1).double(), meshes.flatten(1).double()
            if not self.count:
                self.origins = x.mean(0), y.mean(0)
                self.sums = torch.zeros_like(self.origins[0]), torch.zeros_like(self.origins[1])
                self.gram = x.new_zeros(x.shape[1], x.shape[1])
                self.cross = x.new_zeros(x.shape[1], y.shape[1])
            x, y = x - self.origins[0], y - self.origins[1]
            self.count += len(x)
            self.sums = self.sums[0] + x.sum(0), self.sums[1] + y.sum(0)
            self.gram += x.T @ x
            self.cross += x.T @ y

    def solve(self, penalty: float) -> PoseToMesh:
        x, y = (total / self.count for total in self.sums)
        gram = self.gram / self.count - torch.outer(x, x)
        cross = self.cross / self.count - torch.outer(x, y)
        ridge = penalty * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram + ridge, cross)
        fitted = PoseToMesh(*self.shape)
        fitted.weight = weight.float()
        fitted.bias = (self.origins[1] + y - (self.origins[0] + x) @ weight).float()
        return fitted
