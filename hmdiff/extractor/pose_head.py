"""The pose estimator head phi_P (Sec. 4.3): three deconvolutions from f_c to two heatmaps."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class PoseHead(nn.Module):
    """phi_P: context feature (B, C, 7, 7) -> logits of E_xy and E_z, each (B, J, 56, 56).

    Args:
        channels_in: C of the backbone.
        channels: widths of the three deconvolutions, each of which doubles the grid.
        joints: J.
    """

    def __init__(self, channels_in: int, channels: tuple[int, int, int], joints: int) -> None:
        super().__init__()
        widths = (channels_in, *channels)
        layers = [
            nn.Sequential(
                nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(inplace=True),
            )
            for inner, outer in itertools.pairwise(widths)
        ]
        self.deconvolutions = nn.Sequential(*layers)
        self.heatmaps = nn.Conv2d(channels[-1], 2 * joints, 1)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """f_c -> (logits of E_xy indexed [y, x], logits of E_z indexed [z, x])."""
        maps = self.heatmaps(self.deconvolutions(context)).float()
        return maps.chunk(2, dim=1)
