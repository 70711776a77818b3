"""Does the spread of the N chains predict the error? Ours: the paper does not ask.

The model that is tested: each coordinate of a joint is normal about the mean of the chains, with
the chains' own deviation, or (recalibrated) with that times one scale for all joints. Numpy
float64; ``error`` (n, P, 3) is mean minus truth, ``spread`` (n, P) a deviation a coordinate, both
in metres.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hmdiff.evaluation.bootstrap import LEVEL

LEVELS = (0.5, 0.9)  # of the intervals whose coverage is measured
_BLOCK = 2**21  # resampled numbers held at once; bounds the memory


def spread_of(chains: np.ndarray) -> np.ndarray:
    """Deviation (n, P) of points (n, N, P, 3) over the N chains, the same for all three axes.

    The square root of the axes' mean unbiased variance: of few chains one axis alone tells little.
    0 where there is one chain.
    """
    count = chains.shape[1]
    squares = (chains - chains.mean(axis=1, keepdims=True)) ** 2
    return np.sqrt(squares.sum(axis=1).mean(axis=-1) / max(1, count - 1))


def fit_scale(error: np.ndarray, spread: np.ndarray) -> float | None:
    """The factor on ``spread`` under which ``error`` is most likely; None without any spread.

    Its square is the mean of (error / spread)^2 over samples, joints and axes.
    """
    usable = spread > 0
    if not usable.any():
        return None
    return float(np.sqrt(np.mean((error[usable] / spread[usable][:, None]) ** 2)))


def covered(error: np.ndarray, spread: np.ndarray, level: float, scale: float = 1.0) -> np.ndarray:
    """Share (n, P) of a joint's coordinates inside the central ``level`` interval."""
    from scipy.special import ndtri  # here, as scipy takes half a second and most tables need none

    half = ndtri((1 + level) / 2) * scale * spread
    return (np.abs(error) <= half[..., None]).mean(axis=-1)


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Linear correlation over the samples, axis -2: (..., n, P) twice gives (..., P).

    NaN where one of them is constant.
    """
    first, second = (x - x.mean(axis=-2, keepdims=True) for x in (first, second))
    size = np.sqrt((first**2).sum(axis=-2) * (second**2).sum(axis=-2))
    return (first * second).sum(axis=-2) / np.where(size > 0, size, np.nan)


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation, shaped as :func:`pearson`."""
    from scipy.stats import rankdata  # here, since it takes a second and most stages rank nothing

    return pearson(rankdata(first, axis=-2), rankdata(second, axis=-2))


def correlation_interval(
    first: np.ndarray, second: np.ndarray, kind: str, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over joints of a correlation of (n, P) arrays.

    ``kind`` is ``pearson`` or ``spearman``; samples are drawn, with all their joints.
    """
    function = {"pearson": pearson, "spearman": spearman}[kind]
    found = [
        function(first[rows], second[rows]).mean(axis=-1)
        for rows in _resampled(first.shape, resamples, seed)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(np.concatenate(found), [tail, 1 - tail])
    return float(low), float(high)


def _resampled(shape: tuple[int, int], resamples: int, seed: int) -> Iterator[np.ndarray]:
    count, joints = shape
    draws = np.random.default_rng(seed)
    block = max(1, _BLOCK // (count * joints))
    for start in range(0, resamples, block):
        yield draws.integers(count, size=(min(block, resamples - start), count))
