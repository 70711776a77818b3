"""From a pose to a mesh by one affine map: the linear control, H_U's start, g's centre."""

from __future__ import annotations

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
