"""Gaussian noise that belongs to a sample, whatever batch the sample is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hmdiff.compute import generator


class ChainNoise:
    """Standard normal numbers (B, N, V, 3), one stream per (seed, sample, chain).

    What an image gets depends neither on the images beside it nor on the number of chains.
    """

    def __init__(self, seed: int, sample_ids: Sequence[str], chains: int, shape: tuple[int, int]):
        self.streams = [generator(seed, sample, i) for sample in sample_ids for i in range(chains)]
        self.shape = (len(sample_ids), chains, *shape)

    def __call__(self) -> Tensor:
        numbers = [torch.randn(self.shape[2:], generator=stream) for stream in self.streams]
        return torch.stack(numbers).view(self.shape)
