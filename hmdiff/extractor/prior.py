"""The prior pose distribution U (Sec. 4.2, 4.3), from the heatmaps of the pose head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hmdiff.extractor.heatmaps import Grid, distributions, marginals


class Prior:
    """U: one independent distribution a joint, in root-relative camera metres.

    The root's own heatmap has a width too. Everything here is shifted by one constant an image,
    the root's mean, so that the mean pose has its root at exactly the origin while each joint
    keeps the spread of its heatmap (subtracting each draw's own root would add the root's
    uncertainty to every joint).

    Args:
        xy, z: logits (B, J, 56, 56) of E_xy and E_z.
        grid: their metric geometry.
        root: index of the root joint.
    """

    def __init__(self, xy: Tensor, z: Tensor, grid: Grid, root: int) -> None:
        self._grid = grid
        self._plane, self._depth = distributions(xy.float(), z.float())
        mean, self.spread = marginals(xy.float(), z.float()).moments(grid)  # both (B, J, 3)
        self._origin = mean[:, root : root + 1]
        self.centre = mean - self._origin

    def peak(self) -> Tensor:
        """u_c (B, J, 3): the centre of the bin where U_j is greatest (Sec. 5.2, "Ours w/ u_c")."""
        best, depth = self._depth.max(dim=-2)  # over z, for every x
        flat = (self._plane * best[..., None, :]).flatten(2).argmax(-1)
        row, column = flat // self._plane.shape[-1], flat % self._plane.shape[-1]
        bins = torch.stack([column, row, depth.gather(-1, column[..., None])[..., 0]], dim=-1)
        return self._grid.centres(bins.device)[bins] - self._origin

    def draws(self, count: int, generators: Sequence[torch.Generator]) -> Tensor:
        """``count`` samples u_i ~ U (Eq. 10) for each image, (B, count, J, 3).

        (x, y) is drawn from E_xy, z from E_z(. | x), and the place inside the bin uniformly.
        Image b uses ``generators[b]`` alone, so its draws do not depend on its batch.
        """
        batch, joints, size, _ = self._plane.shape
        if len(generators) != batch:
            raise ValueError(f"{batch} images need as many generators, got {len(generators)}")
        noise = torch.stack([torch.rand(5, joints, count, generator=g) for g in generators])
        in_plane, in_depth, *inside = noise.to(self._plane.device).unbind(1)  # (B, J, count) each
        flat = _invert(self._plane.flatten(2), in_plane)
        row, column = flat // size, flat % size
        # (B, J, x, z) rows of the drawn x: (B, J, count, z)
        rows = self._depth.transpose(-1, -2).gather(2, column[..., None].expand(-1, -1, -1, size))
        depth = _invert(rows, in_depth[..., None])[..., 0]
        bins = torch.stack([column, row, depth], dim=-1)
        places = self._grid.centres(bins.device)[bins]
        places = places + (torch.stack(inside, dim=-1) - 0.5) * self._grid.width
        return places.transpose(1, 2) - self._origin[:, None]


def _invert(mass: Tensor, uniform: Tensor) -> Tensor:
    """Bins (..., n) from uniform numbers in [0, 1) by the inverse of the cumulative ``mass``.

    In float64, since the sum of 3136 float32 masses need not reach the last uniform number.
    """
    cumulative = mass.double().cumsum(-1)
    levels = uniform.double() * cumulative[..., -1:]
    return torch.searchsorted(cumulative, levels, right=True).clamp(max=mass.shape[-1] - 1)
