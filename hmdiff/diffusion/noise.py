"""Gaussian noise that belongs to a sample, whatever batch the sample is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hmdiff.compute import generator


class ChainNoise:
    """Standard normal numbers (B, N, V, 3), one stream per (seed, sample, chain).

    What an image gets depends neither on the images beside it nor on the number of chains.

    With ``antithetic`` chains 1, 3, ... get the numbers of chains 0, 2, ... with the other sign
    (antithetic variates, Hammersley and Morton 1956): each is as normal as before, and what is
    linear in the noise cancels in the mean of a pair.
    """

    def __init__(
        self,
        seed: int,
        sample_ids: Sequence[str],
        chains: int,
        shape: tuple[int, int],
        antithetic: bool = False,
    ):
        own = range(0, chains, 2) if antithetic else range(chains)
        self.streams = [generator(seed, sample, i) for sample in sample_ids for i in own]
        self.shape = (len(sample_ids), len(own), *shape)
        self.chains, self.antithetic = chains, antithetic

    def __call__(self) -> Tensor:
        numbers = [torch.randn(self.shape[2:], generator=stream) for stream in self.streams]
        drawn = torch.stack(numbers).view(self.shape)
        if self.antithetic:
            drawn = torch.stack([drawn, -drawn], dim=2).flatten(1, 2)[:, : self.chains]
        return drawn
