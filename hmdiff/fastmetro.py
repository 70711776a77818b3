"""FastMETRO (Cho, Youwang and Oh, ECCV 2022), the method of the paper's speed comparison (Table 6).

Written from its description, for timing: the backbone's 7 x 7 feature map becomes 49 image tokens,
an encoder mixes them with one camera token, and a decoder lets one query for every joint and every
coarse vertex look at them. A second, narrower encoder and decoder follow, then a linear layer to
coordinates, and upsampling to the full mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hmdiff.diffusion.denoiser import adjacency_mask

LAYERS = {"S": 1, "M": 2, "L": 3}  # of each encoder and each decoder
WIDTHS = (512, 128)
HEADS = 8
JOINTS = {"body": 14, "hand": 21}
TOKENS = 7  # image tokens a side


class Stage(nn.Module):
    """One encoder over camera and image tokens and one decoder over joint and vertex queries."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        options = {
            "d_model": width, "nhead": HEADS, "dim_feedforward": 4 * width,
            "batch_first": True, "norm_first": True,
        }  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**options), layers, nn.LayerNorm(width),
            enable_nested_tensor=False,
        )  # fmt: skip
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**options), layers, nn.LayerNorm(width)
        )

    def forward(
        self, memory: Tensor, queries: Tensor, position: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encoded tokens and decoded queries.

        Args:
            memory: (B, 1 + 49, width), the camera token first.
            queries: (B, J + V, width).
            position: (1 + 49, width), zero for the camera token.
            mask: (J + V, J + V), True where a query must not look.
        """
        memory = self.encoder(memory + position)
        return memory, self.decoder(queries, memory + position, tgt_mask=mask)


class FastMETRO(nn.Module):
    """Feature map (B, C, 7, 7) -> camera (B, 3), joints (B, J, 3) and full mesh (B, V, 3).

    Args:
        channels: C of the backbone's feature map.
        kind: which number of joint queries.
        faces: (F, 3) of the coarse mesh; vertex queries see only themselves and their neighbours.
        ups: U of the mesh sampling per level, full level first. The body's coarsest level is
            learnable and the last is fixed; the hand's only one is fixed.
        size: S, M or L.
    """

    def __init__(
        self,
        channels: int,
        kind: Literal["body", "hand"],
        faces: Tensor,
        ups: Sequence[sparse.spmatrix],
        size: Literal["S", "M", "L"] = "L",
    ):
        super().__init__()
        wide, narrow = WIDTHS
        vertices, self.joints = ups[-1].shape[1], JOINTS[kind]
        self.project = nn.Conv2d(channels, wide, 1)
        self.camera_token = nn.Parameter(torch.randn(1, wide))
        self.queries = nn.Parameter(torch.randn(self.joints + vertices, wide))
        self.stages = nn.ModuleList(Stage(width, LAYERS[size]) for width in WIDTHS)
        # The camera token, the image tokens and the queries are narrowed by a layer of their own.
        self.narrow_camera, self.narrow_image, self.narrow_queries = (
            nn.Linear(wide, narrow) for _ in range(3)
        )
        self.camera_head = nn.Linear(narrow, 3)
        self.position_head = nn.Linear(narrow, 3)
        *fixed, coarsest = ups
        self.learnt_up = nn.Linear(vertices, coarsest.shape[0]) if fixed else nn.Identity()
        last = _torch_sparse(fixed[0] if fixed else coarsest)
        self.register_buffer("fixed_up", last, persistent=False)
        # Joint queries see, and are seen by, all; the diagonal keeps every row of the softmax alive.
        mask = torch.zeros(len(self.queries), len(self.queries), dtype=torch.bool)
        mask[self.joints :, self.joints :] = ~adjacency_mask(faces, vertices)
        self.register_buffer("mask", mask, persistent=False)
        for index, width in enumerate(WIDTHS):
            self.register_buffer(f"position_{index}", sine_positions(width), persistent=False)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network on a feature map (B, C, 7, 7)."""
        batch = len(feature_map)
        image = self.project(feature_map).flatten(2).transpose(1, 2)
        memory = torch.cat([self.camera_token.expand(batch, 1, -1), image], dim=1)
        queries = self.queries.expand(batch, -1, -1)
        memory, queries = self.stages[0](memory, queries, self.position_0, self.mask)
        memory = torch.cat(
            [self.narrow_camera(memory[:, :1]), self.narrow_image(memory[:, 1:])], dim=1
        )
        memory, queries = self.stages[1](
            memory, self.narrow_queries(queries), self.position_1, self.mask
        )
        points = self.position_head(queries).float()
        coarse = points[:, self.joints :].transpose(1, 2)
        finer = self.learnt_up(coarse).float()  # (B, 3, V of the last level but one)
        with torch.autocast(finer.device.type, enabled=False):  # no sparse product in bf16
            full = torch.sparse.mm(self.fixed_up, finer.flatten(0, 1).T)
        full = full.view(-1, batch, 3).transpose(0, 1)
        return self.camera_head(memory[:, 0]), points[:, : self.joints], full


def sine_positions(width: int) -> Tensor:
    """(1 + 49, width): sines and cosines of row and column as in DETR, zero for the camera token."""
    place = (torch.arange(1, TOKENS + 1) / TOKENS) * 2 * math.pi
    quarter = width // 4
    wave = place[:, None] / 10000 ** (torch.arange(quarter) / quarter)
    code = torch.stack([wave.sin(), wave.cos()], dim=-1).flatten(1)  # (7, width / 2)
    rows = code[:, None].expand(-1, TOKENS, -1)
    columns = code[None].expand(TOKENS, -1, -1)
    image = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return torch.cat([torch.zeros(1, width), image])


def _torch_sparse(matrix: sparse.spmatrix) -> Tensor:
    coo = sparse.coo_matrix(matrix)
    places = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.from_numpy(coo.data.astype(np.float32))
    return torch.sparse_coo_tensor(places, values, coo.shape, check_invariants=True).coalesce()
