"""FastMETRO at its published sizes behind a CNN, image feature to full mesh, to be timed (Table 6).

Its weights are random: a speed does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.fastmetro import WIDTHS, FastMETROHead, query_mask

LAYERS = {"S": 1, "M": 2, "L": 3}  # of each encoder and each decoder
JOINTS = 14  # joint queries of the body model


class FastMETRO(nn.Module):
    """FastMETRO-S, -M or -L behind a CNN: f_c to the full body mesh.

    Args:
        channels: C of the context feature (2048 in both papers).
        faces: (F, 3) of the coarse mesh, for the adjacency mask.
        ups: U per level, full level first, as in ``MeshSampling.ups``. The coarsest is replaced by
            a learned layer, as published; the others are fixed.
        size: S, M or L.
    """

    def __init__(
        self,
        channels: int,
        faces: np.ndarray,
        ups: Sequence[sparse.csr_matrix],
        size: Literal["S", "M", "L"] = "L",
    ):
        super().__init__()
        middle, coarse = ups[-1].shape
        mask = query_mask(adjacency_mask(torch.as_tensor(faces), coarse), JOINTS)
        self.head = FastMETROHead(channels, mask, JOINTS, layers=LAYERS[size])
        self.camera = nn.Linear(WIDTHS[-1], 3)
        self.upsample = nn.Linear(coarse, middle)
        self.fixed = len(ups) - 1
        for level, matrix in enumerate(ups[:-1]):
            self.register_buffer(f"up_{level}", _sparse(matrix), persistent=False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f_c (B, C, 7, 7) -> camera (B, 3), joints (B, 14, 3), coarse and full mesh (B, V, 3).

        Coordinates are root-relative metres in a trained network; float32.
        """
        camera, joints, vertices, mesh = self.middle(context)
        return camera, joints, vertices, self.full(mesh)

    def middle(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`forward` with the learned upsampling alone: a mesh (B, 3, 1723) at the end."""
        token, joints, vertices = self.head(context.flatten(2).transpose(1, 2))
        mesh = self.upsample(vertices.transpose(1, 2)).float()
        return self.camera(token).float(), joints, vertices, mesh

    def full(self, mesh: Tensor) -> Tensor:
        """The fixed upsampling of :meth:`middle`'s mesh, (B, V, 3)."""
        columns = mesh.flatten(0, 1).T  # (1723, 3 B)
        for level in reversed(range(self.fixed)):
            with torch.autocast(mesh.device.type, enabled=False):
                columns = getattr(self, f"up_{level}") @ columns
        return columns.T.unflatten(0, (-1, 3)).transpose(1, 2)


def _sparse(matrix: sparse.csr_matrix) -> Tensor:
    entries = matrix.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data.astype(np.float32))
    return torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=True).coalesce()
