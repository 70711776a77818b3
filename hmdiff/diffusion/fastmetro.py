"""FastMETRO's transformers (Cho et al., ECCV 2022), written from the paper's description.

They are trained on the same frozen features as g, at a size that params.yaml gives, and timed
behind a CNN at their published size (hmdiff/fastmetro.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hmdiff.diffusion.denoiser import attention
from hmdiff.params.models import FastMETROParams

GRID = 7  # image tokens a side (Sec. 4.3)
WIDTHS = (512, 128)  # of the two transformers
FEEDFORWARD = 4  # hidden width over width: 2048 and 512
HEADS = 8


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

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """``mask`` (T, S) is True where a token may attend."""
        projected = (self.query(query), self.key(key), self.value(value))
        heads = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected]
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

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.feedforward = FeedForward(width)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        normed = self.norm(tokens)
        placed = normed + positions
        tokens = tokens + self.attention(placed, placed, normed)
        return tokens + self.feedforward(tokens)


class DecoderLayer(nn.Module):
    """Masked self-attention of the queries, cross-attention to the image, feed-forward."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_norm, self.self_attention = nn.LayerNorm(width), Attention(width, heads)
        self.cross_norm, self.cross_attention = nn.LayerNorm(width), Attention(width, heads)
        self.feedforward = FeedForward(width)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        normed = self.self_norm(queries)
        queries = queries + self.self_attention(normed, normed, normed, mask)
        normed = self.cross_norm(queries)
        queries = queries + self.cross_attention(normed, memory + positions, memory)
        return queries + self.feedforward(queries)


class Transformer(nn.Module):
    """One encoder-decoder of FastMETRO."""

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
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


class FastMETROHead(nn.Module):
    """The two transformers of FastMETRO: image tokens to joints and coarse vertices.

    Args:
        channels: width of the image tokens. mask: of the queries, see :func:`query_mask`.
        joints: number of joint queries, which come first.
        widths, heads, layers: of both transformers; ``layers`` of each encoder and decoder.
    """

    def __init__(
        self,
        channels: int,
        mask: Tensor,
        joints: int,
        widths: tuple[int, int] = WIDTHS,
        heads: int = HEADS,
        layers: int = 3,
    ):
        super().__init__()
        wide, narrow = widths
        self.joints = joints
        self.image = nn.Linear(channels, wide)  # FastMETRO's 1 x 1 convolution
        self.camera_token = nn.Parameter(torch.randn(1, wide))
        self.queries = nn.Parameter(torch.randn(len(mask), wide))
        self.transformers = nn.ModuleList(Transformer(width, heads, layers) for width in widths)
        # Camera token, image tokens and queries are narrowed by a layer each.
        self.narrow = nn.ModuleList(nn.Linear(wide, narrow) for _ in range(3))
        self.xyz = nn.Linear(narrow, 3)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 49, C) -> camera token (B, narrow), joints (B, J, 3), coarse vertices (B, V, 3)."""
        images = len(image)
        tokens = torch.cat([self.camera_token.expand(images, -1, -1), self.image(image)], 1)
        queries = self.queries.expand(images, -1, -1)
        tokens, queries = self.transformers[0](tokens, queries, self.mask)
        camera, image = tokens[:, :1], tokens[:, 1:]
        tokens = torch.cat([self.narrow[0](camera), self.narrow[1](image)], 1)
        tokens, queries = self.transformers[1](tokens, self.narrow[2](queries), self.mask)
        points = self.xyz(queries).float()
        return tokens[:, 0], points[:, : self.joints], points[:, self.joints :]


class FastMETRODenoiser(nn.Module):
    """The head in the place of g: it sees the condition and neither h_k nor k.

    Its joint queries take part in the attention and have no loss of their own, so that it learns
    from the same terms as all other rows; a camera is not needed.
    """

    def __init__(self, channels: int, mask: Tensor, joints: int, params: FastMETROParams):
        """``mask`` (V, V) is the adjacency of the coarse mesh."""
        super().__init__()
        self.head = FastMETROHead(
            channels, query_mask(mask, joints), joints, params.widths, params.heads, params.layers
        )
        # Kept with the weights, so that a model folder needs no mesh.
        self.register_buffer("mask", self.head.mask)
        self.head.mask = self.mask

    def context(self, tokens: Tensor) -> list[Tensor]:
        """The condition tokens (B, 49, C) themselves."""
        return [tokens]

    def forward(self, x: Tensor, k: int | Tensor, context: list[Tensor]) -> Tensor:
        """(B, 1, V, 3) from the context alone."""
        return self.head(context[0])[2][:, None]


def query_mask(adjacency: Tensor, joints: int) -> Tensor:
    """(J + V, J + V) bool: a vertex does not attend to vertices that it shares no edge with.

    ``adjacency`` (V, V) is that of :func:`hmdiff.diffusion.denoiser.adjacency_mask`.
    """
    return functional.pad(adjacency, (joints, 0, joints, 0), value=True)
