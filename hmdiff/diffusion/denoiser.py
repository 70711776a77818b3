"""The network g of Sec. 4.3: vertex tokens, vertex self-attention, vertex-image cross-attention.

The paper gives the token (64 + 61 + 3 = 128 numbers) and the layers; heads, normalisation,
residuals and the optional feed-forward layer are ours (A16). For a body g has 160,579 parameters,
226,755 with a feed-forward layer of twice the token width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hmdiff.params.models import DenoiserParams

WIDTH = 128  # of a token; f_I has the same width (Sec. 4.3)
ID_WIDTH = 64
STEP_WIDTH = 61

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one cross-attention, (B, heads, tokens, width / heads) each."""


def step_embedding(steps: int) -> Tensor:
    """E_d of every step 0..K, (K+1, 61): DDPM's sinusoids, 30 sines, 30 cosines and one zero."""
    half = STEP_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    phases = torch.arange(steps + 1)[:, None] * frequencies
    return functional.pad(torch.cat([phases.sin(), phases.cos()], 1), (0, STEP_WIDTH - 2 * half))


def adjacency_mask(faces: Tensor, vertices: int) -> Tensor:
    """(V, V) bool, True where a vertex may attend: itself and its neighbours in ``faces`` (F, 3).

    Masked attention as in FastMETRO (Cho et al. 2022), for "a predefined adjacency matrix" of
    Sec. 4.1.
    """
    mask = torch.eye(vertices, dtype=torch.bool)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        mask[faces[:, a], faces[:, b]] = True
        mask[faces[:, b], faces[:, a]] = True
    return mask


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over (B, heads, tokens, width), ``mask`` True where allowed.

    On a CPU this is plain softmax attention, a few samples at a time: the weights of 431 x 431
    then stay in the cache, which is faster than torch's fused operator and than one big product.
    A traced graph gets the fused operator too: its batch size is not known yet.
    """
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    at_once = max(1, 2**20 // (query.shape[1] * query.shape[2] * key.shape[2]))
    parts = zip(
        (query * query.shape[-1] ** -0.5).split(at_once),
        key.transpose(-1, -2).split(at_once),
        value.split(at_once),
        strict=True,
    )
    results = []
    for q, k, v in parts:
        logits = q @ k
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        results.append(torch.softmax(logits, -1) @ v)
    return torch.cat(results)


class Attention(nn.Module):
    """Multi-head attention of tokens (B, T, 128) over a context (B, S, 128)."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Computed once for a context, however often it is attended to."""
        key, value = self.key_value(context).chunk(2, -1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, context: KeysValues, mask: Tensor | None = None) -> Tensor:
        heads = attention(self._split(self.query(x)), *context, mask)
        return self.out(heads.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Vertex self-attention, vertex-image cross-attention and, if ``feedforward``, an MLP.

    Each with a residual and a LayerNorm before it.
    """

    def __init__(self, params: DenoiserParams):
        super().__init__()
        self.self_norm, self.cross_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.self_attention = Attention(params.self_heads)
        self.cross_attention = Attention(params.cross_heads)
        self.feedforward = None
        if params.feedforward:
            hidden = params.feedforward * WIDTH
            self.feedforward = nn.Sequential(
                nn.LayerNorm(WIDTH), nn.Linear(WIDTH, hidden), nn.GELU(), nn.Linear(hidden, WIDTH)
            )

    def forward(self, x: Tensor, context: KeysValues, mask: Tensor | None, chains: int) -> Tensor:
        """Tokens (B chains, V, 128); ``context`` (B, ...) is shared by the chains of an image."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, self.self_attention.keys_values(normed), mask)
        queries = self.cross_norm(x).unflatten(0, (-1, chains)).flatten(1, 2)  # (B, chains V, 128)
        x = x + self.cross_attention(queries, context).view_as(x)
        return x if self.feedforward is None else x + self.feedforward(x)


class Denoiser(nn.Module):
    """g(h_k, k, f_I) before its output is interpreted; ``depth`` blocks (1 in the paper)."""

    def __init__(
        self,
        vertices: int,
        steps: int,
        depth: int,
        params: DenoiserParams,
        mask: Tensor | None = None,
    ):
        super().__init__()
        self.vertex_id = nn.Embedding(vertices, ID_WIDTH)  # a linear layer of the one-hot ID
        self.blocks = nn.ModuleList(Block(params) for _ in range(depth))
        self.out = nn.Linear(WIDTH, 3)
        self.register_buffer("step_table", step_embedding(steps), persistent=False)
        self.register_buffer("mask", mask)

    def context(self, tokens: Tensor) -> list[KeysValues]:
        """Keys and values of the condition tokens (B, T, 128), one pair a block."""
        return [block.cross_attention.keys_values(tokens) for block in self.blocks]

    def forward(
        self,
        x: Tensor,
        k: int | Tensor,
        context: list[KeysValues],
        place: Tensor | None = None,
    ) -> Tensor:
        """Coordinates (B, N, V, 3) of N chains an image, step k (int, or (B,)) -> (B, N, V, 3).

        ``place`` (B, 1, V, 128) is added to the tokens of all chains of an image.
        """
        images, chains, vertices, _ = x.shape
        step = self.step_table[k].expand(images, -1)[:, None, None]
        tokens = torch.cat(
            [
                self.vertex_id.weight.expand(images, chains, -1, -1),
                step.expand(-1, chains, vertices, -1),
                x,
            ],
            -1,
        )
        tokens = (tokens if place is None else tokens + place).flatten(0, 1)
        for block, pair in zip(self.blocks, context, strict=True):
            tokens = block(tokens, pair, self.mask, chains)
        return self.out(tokens).unflatten(0, (images, chains))
