"""The order in which training samples are seen, for the extractor and g alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


def mixture_files(folder: Path, datasets: Mapping[str, float]) -> list[Path]:
    """The HDF5 files in ``folder`` of the data sets that something is trained on, in their order.

    Other files that lie there are left alone.
    """
    return [folder / f"{name}.h5" for name in datasets]


def row_weights(counts: Sequence[int], weights: Sequence[float]) -> Tensor:
    """One weight a row, float32, for data sets of ``counts`` rows that follow one another."""
    repeats = torch.tensor(list(counts), dtype=torch.long)
    return torch.tensor(list(weights), dtype=torch.float32).repeat_interleave(repeats)


def epoch(weights: Tensor, random: torch.Generator) -> Tensor:
    """Shuffled row numbers in which row i stands ``weights[i]`` times on average.

    The whole part of a weight is exact, its fraction a chance; weights of 1 give a permutation.
    """
    if (weights == 1).all():
        return torch.randperm(len(weights), generator=random)
    whole = weights.floor()
    chosen = torch.rand(len(weights), generator=random) < weights - whole
    rows = torch.arange(len(weights)).repeat_interleave((whole + chosen).long())
    return rows[torch.randperm(len(rows), generator=random)]


def sample_batches(
    weights: Tensor, samples: int, batch: int, random: torch.Generator
) -> Iterator[Tensor]:
    """Row numbers (at most ``batch``,) that go through one epoch after the other.

    They hold ``samples`` in all, so that every experiment sees exactly as many as the others,
    whatever its speed. ``weights`` (n,) says how often a row stands in an epoch.
    """
    order = torch.empty(0, dtype=torch.long)
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        while len(order) < size:
            order = torch.cat([order, epoch(weights, random)])
        yield order[:size]
        order = order[size:]
