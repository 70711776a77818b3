"""L_Diff and the four mesh losses of Sec. 4.4, one number a sample.

The mesh losses are Pose2Mesh's (Choi et al. 2020, Sec. 3.3), which the paper follows. Lengths are
metres. All return (B,), so that the loop can mask samples and name those that went wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def diffusion_loss(output: Tensor, target: Tensor) -> Tensor:
    """L_Diff: squared error on the parametrisation's own target, (B, ..., V, 3) each (A4)."""
    return (output - target).square().flatten(1).mean(1)


def vertex_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """L_v: L1 over vertices (B, V, 3)."""
    return (predicted - truth).abs().flatten(1).mean(1)


def joint_loss(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """L_j: L1 over the ``valid`` (B, J) joints of (B, J, 3); 0 where a sample has none."""
    error = torch.where(valid[..., None], predicted - truth, 0.0).abs().mean(-1)
    return error.sum(1) / valid.sum(1).clamp_min(1)


class SurfaceLosses:
    """L_n and L_e on the coarse triangles.

    Both run over the three edges of every face. A closed surface has each edge twice, so that
    edges are gathered once and weighted by the number of faces they bound.
    """

    def __init__(self, faces: Tensor):
        """``faces`` (F, 3) int64 of the coarse mesh."""
        self.faces = faces
        ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges, self.edge_of_corner = torch.unique(ends.sort(1).values, dim=0, return_inverse=True)
        self.start, self.end = edges.unbind(1)
        self.face_of_corner = torch.arange(len(faces), device=faces.device).repeat(3)
        count = torch.bincount(self.edge_of_corner, minlength=len(edges))
        self.edge_weight = count / count.sum()

    def _edges(self, mesh: Tensor) -> Tensor:
        return mesh.index_select(1, self.start) - mesh.index_select(1, self.end)

    def __call__(self, predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(L_n, L_e), (B,) each, for meshes (B, V, 3).

        L_n is the mean |cos| between the predicted edges and the normal of their true face, L_e
        the mean difference of edge lengths.
        """
        edges, true_edges = self._edges(predicted), self._edges(truth)
        a, b, c = (truth.index_select(1, corner) for corner in self.faces.unbind(1))
        normals = functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        directions = functional.normalize(edges, dim=-1).index_select(1, self.edge_of_corner)
        cosines = (directions * normals.index_select(1, self.face_of_corner)).sum(-1).abs()
        lengths = (edges.norm(dim=-1) - true_edges.norm(dim=-1)).abs()
        return cosines.mean(1), (lengths * self.edge_weight).sum(1)
