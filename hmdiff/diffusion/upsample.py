"""The "MLP" that turns the coarse centre of H_0 into the full mesh h_m (Sec. 4.1, A11)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn


class Upsampler(nn.Module):
    """Linear layers over the vertex axis, one a level: 431 -> 1723 -> 6890, or 195 -> 778.

    Shared by x, y and z as in METRO (Lin et al. 2021). Each layer starts as the mesh sampling's U
    and is refined on meshes; its weights are dense.
    """

    def __init__(self, sizes: Sequence[int]):
        """``sizes`` are the vertex counts from coarse to full."""
        super().__init__()
        self.sizes = tuple(sizes)
        self.layers = nn.ModuleList(
            nn.Linear(few, many, bias=False) for few, many in pairwise(sizes)
        )

    @classmethod
    def from_sampling(cls, ups: Sequence[sparse.spmatrix]) -> Upsampler:
        """``ups`` are U per level, full level first: (6890, 1723), (1723, 431)."""
        matrices = list(reversed(ups))
        upsampler = cls([matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)])
        with torch.no_grad():
            for layer, matrix in zip(upsampler.layers, matrices, strict=True):
                layer.weight.copy_(torch.from_numpy(matrix.toarray().astype(np.float32)))
        return upsampler

    def forward(self, coarse: Tensor) -> Tensor:
        """(B, Vc, 3) -> (B, V, 3), in the unit of ``coarse``."""
        mesh = coarse.transpose(1, 2)
        for layer in self.layers:
            mesh = layer(mesh)
        return mesh.transpose(1, 2)
