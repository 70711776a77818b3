"""FastMETRO's transformer at its published sizes (Cho et al., ECCV 2022), to be timed for Table 6.

Written from the paper's description and never trained here: its error is quoted, only its speed
is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from hmdiff.diffusion.denoiser import adjacency_mask, attention
from hmdiff.extractor.backbone import GRID

LAYERS = {"S": 1, "M": 2, "L": 3}  # of each encoder and each decoder
WIDTHS = (512, 128)  # of the two transformers
FEEDFORWARD = 4  # hidden width over width: 2048 and 512
HEADS = 8
JOINTS = 14  # joint queries of the body model


def sine_positions(width: int) -> Tensor:
    """(1 + 49, width) 2D sinusoids: none for the camera token, then half for y and half for x."""
    half = width // 2
    frequencies = 10000.0 ** (-2 * (torch.arange(half) // 2) / half)
    # Places 1..7 of the grid, scaled to one turn, as in DETR.
    phases = 2 * math.pi * torch.arange(1, GRID + 1)[:, None] / GRID * frequencies
    axis = torch.stack([phases[:, 0::2].sin(), phases[:, 1::2].cos()], -1).flatten(1)
    rows = axis[:, None].expand(GRID, GRID, half)
    grid = torch.cat([rows, rows.transpose(0, 1)], -1).flatten(0, 1)
    return torch.cat([torch.zeros(1, width), grid])


class Attention(nn.Module):
    """Multi-head attention of tokens (B, T, C) over (B, S, C)."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """``mask`` (T, S) is True where a token may attend."""
        projected = (self.query(query), self.key(key), self.value(value))
        heads = [x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in projected]
        return self.out(attention(*heads, mask).transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """LayerNorm, then a hidden layer with ReLU."""

    def __init__(self, width: int):
        hidden = FEEDFORWARD * width
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a LayerNorm and with a residual."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width)
        self.feedforward = FeedForward(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        normed = self.norm(tokens)
        placed = normed + positions
        tokens = tokens + self.attention(placed, placed, normed)
        return tokens + self.feedforward(tokens)


class DecoderLayer(nn.Module):
    """Masked self-attention of the queries, cross-attention to the image, feed-forward."""

    def __init__(self, width: int):
        super().__init__()
        self.self_norm, self.self_attention = nn.LayerNorm(width), Attention(width)
        self.cross_norm, self.cross_attention = nn.LayerNorm(width), Attention(width)
        self.feedforward = FeedForward(width)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        normed = self.self_norm(queries)
        queries = queries + self.self_attention(normed, normed, normed, mask)
        normed = self.cross_norm(queries)
        queries = queries + self.cross_attention(normed, memory + positions, memory)
        return queries + self.feedforward(queries)


class Transformer(nn.Module):
    """One encoder-decoder of FastMETRO."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(width) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.register_buffer("positions", sine_positions(width), persistent=False)

    def forward(self, tokens: Tensor, queries: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Camera and image tokens (B, 50, C), queries (B, J + V, C) -> both, transformed."""
        for layer in self.encoder:
            tokens = layer(tokens, self.positions)
        tokens = self.encoder_norm(tokens)
        for layer in self.decoder:
            queries = layer(queries, tokens, self.positions, mask)
        return tokens, self.decoder_norm(queries)


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
        wide, narrow = WIDTHS
        self.image = nn.Conv2d(channels, wide, 1)
        self.camera_token = nn.Parameter(torch.randn(1, wide))
        self.queries = nn.Parameter(torch.randn(JOINTS + coarse, wide))
        self.transformers = nn.ModuleList(Transformer(width, LAYERS[size]) for width in WIDTHS)
        # Camera token, image tokens and queries are narrowed by a layer each.
        self.narrow = nn.ModuleList(nn.Linear(wide, narrow) for _ in range(3))
        self.camera, self.xyz = nn.Linear(narrow, 3), nn.Linear(narrow, 3)
        self.upsample = nn.Linear(coarse, middle)
        self.fixed = len(ups) - 1
        for level, matrix in enumerate(ups[:-1]):
            self.register_buffer(f"up_{level}", _sparse(matrix), persistent=False)
        self.register_buffer("mask", query_mask(faces, coarse), persistent=False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """f_c (B, C, 7, 7) -> camera (B, 3), joints (B, 14, 3), coarse and full mesh (B, V, 3).

        Coordinates are root-relative metres in a trained network; float32.
        """
        images = len(context)
        image = self.image(context).flatten(2).transpose(1, 2)  # (B, 49, 512)
        tokens = torch.cat([self.camera_token.expand(images, -1, -1), image], 1)
        queries = self.queries.expand(images, -1, -1)
        tokens, queries = self.transformers[0](tokens, queries, self.mask)
        camera, image = tokens[:, :1], tokens[:, 1:]
        tokens = torch.cat([self.narrow[0](camera), self.narrow[1](image)], 1)
        tokens, queries = self.transformers[1](tokens, self.narrow[2](queries), self.mask)
        joints, vertices = self.xyz(queries).float().split([JOINTS, len(self.mask) - JOINTS], 1)
        mesh = self.upsample(vertices.transpose(1, 2)).float()  # (B, 3, 1723)
        return self.camera(tokens[:, 0]).float(), joints, vertices, self._full(mesh)

    def _full(self, mesh: Tensor) -> Tensor:
        columns = mesh.flatten(0, 1).T  # (1723, 3 B)
        for level in reversed(range(self.fixed)):
            with torch.autocast(mesh.device.type, enabled=False):
                columns = getattr(self, f"up_{level}") @ columns
        return columns.T.unflatten(0, (-1, 3)).transpose(1, 2)


def query_mask(faces: np.ndarray, vertices: int) -> Tensor:
    """(J + V, J + V) bool: a vertex does not attend to vertices that it shares no edge with."""
    mask = adjacency_mask(torch.as_tensor(faces), vertices)
    return functional.pad(mask, (JOINTS, 0, JOINTS, 0), value=True)


def _sparse(matrix: sparse.csr_matrix) -> Tensor:
    entries = matrix.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data.astype(np.float32))
    return torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=True).coalesce()
