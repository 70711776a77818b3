"""Geometry and loss of the heatmaps E_xy and E_z.

The paper gives their sizes (J x 56 x 56 each, Sec. 4.3) and no more. Here they are metric, as
volumetric and lixel heads are: the axes are root-relative camera coordinates (x right, y down,
z forward), each cut into 56 bins over ``[-half_extent, half_extent]`` metres. E_xy[j] is a
distribution over the (x, y) plane, indexed [y, x]; E_z[j] is one over the (x, z) plane, indexed
[z, x]. They share the lateral axis, so the distribution of joint j with the greatest entropy that
agrees with both is

    U_j(x, y, z) = E_xy(x, y) E_z(z | x).

E_z(. | x) is a softmax over one column of logits, so it exists for every x, however little mass
E_z gives to that column. Inside a bin U_j is uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 56  # 7 x 7 doubled three times (Sec. 4.3)


@dataclass(frozen=True)
class Grid:
    """Bins of one axis of the heatmaps."""

    half_extent: float  # metres

    @property
    def width(self) -> float:
        """Width of a bin, metres."""
        return 2 * self.half_extent / BINS

    def centres(self, device: torch.device | None = None) -> Tensor:
        """Bin centres (56,), metres."""
        bins = torch.arange(BINS, dtype=torch.float32, device=device)
        return (bins + 0.5) * self.width - self.half_extent

    def bins(self, positions: Tensor) -> Tensor:
        """Metres -> fractional bin indices (a bin's centre is whole), held inside the grid."""
        return ((positions + self.half_extent) / self.width - 0.5).clamp(0, BINS - 1)


@dataclass(frozen=True)
class Marginals:
    """Marginal distributions of U_j over each axis, float32."""

    x: Tensor  # (B, J, 56)
    y: Tensor  # (B, J, 56)
    z: Tensor  # (B, J, 56)

    def moments(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Mean (soft-argmax) and standard deviation of U, both (B, J, 3) metres, not re-rooted."""
        centres = grid.centres(self.x.device)
        mass = torch.stack([self.x, self.y, self.z], dim=2)
        mean = mass @ centres
        # Uniform inside a bin: a twelfth of its squared width on top of the bins' own variance.
        square = (mass * (centres - mean[..., None]) ** 2).sum(-1) + grid.width**2 / 12
        return mean, square.sqrt()


def distributions(xy: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, J, 56, 56) of E_xy and E_z -> E_xy(x, y) [y, x] and E_z(z | x) [z, x]."""
    return xy.flatten(2).softmax(-1).view_as(xy), z.softmax(-2)


def marginals(xy: Tensor, z: Tensor) -> Marginals:
    """Marginals of U_j from the logits (B, J, 56, 56) of E_xy and E_z."""
    joint, depth = distributions(xy, z)
    lateral = joint.sum(-2)
    return Marginals(lateral, joint.sum(-1), (depth @ lateral[..., None]).squeeze(-1))


def soft_argmax(xy: Tensor, z: Tensor, grid: Grid) -> Tensor:
    """Mean of U_j (B, J, 3), metres, before the root is subtracted; differentiable."""
    return marginals(xy, z).moments(grid)[0]


def heatmap_loss(
    xy: Tensor,
    z: Tensor,
    joints: Tensor,
    valid: Tensor,
    grid: Grid,
    sigma: float,
    l1_weight: float,
) -> Tensor:
    """Cross-entropy against Gaussian target maps plus L1 of the soft-argmax; a scalar.

    Args:
        xy, z: logits (B, J, 56, 56) of E_xy and E_z.
        joints: (B, J, 3) root-relative metres; a joint off the grid counts at its edge.
        valid: (B, J) bool; the other joints take no part.
        sigma: deviation of the target Gaussian, in bins.
        l1_weight: weight of the L1 term, whose unit is the grid's half extent, so that body and
            hand share one value.
    """
    # Not a number may stand in for an unknown joint, and NaN times zero is NaN.
    joints = torch.where(valid[..., None], joints, 0.0)
    bins = torch.arange(BINS, device=joints.device)
    target = torch.exp(-0.5 * ((bins - grid.bins(joints)[..., None]) / sigma) ** 2)
    x, y, depth = (target / target.sum(-1, keepdim=True)).unbind(2)
    entropy = _cross_entropy(xy, y, x) + _cross_entropy(z, depth, x)
    clamped = joints.clamp(-grid.half_extent, grid.half_extent)
    distance = (soft_argmax(xy, z, grid) - clamped).abs().mean(-1) / grid.half_extent
    weight = valid.float()
    return ((entropy + l1_weight * distance) * weight).sum() / weight.sum().clamp(min=1)


def _cross_entropy(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Against the separable target ``rows`` x ``columns`` (B, J, 56 each) -> (B, J)."""
    expected = torch.einsum("bjr,bjrc,bjc->bj", rows, logits, columns)
    return logits.flatten(2).logsumexp(-1) - expected
