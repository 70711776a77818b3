"""How sure a mean over samples is: percentile bootstrap intervals (Efron 1979).

Samples are drawn as if they were independent. Frames of one video are not, so on 3DPW and
Human3.6M the true uncertainty is larger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hmdiff.evaluation.protocols import UNITS

LEVEL = 0.95
SEED = "seed"  # column of a table of samples where one row is several trainings
_BLOCK = 2**22  # resampled numbers held at once; bounds the memory


def mean_interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean over samples.

    Args:
        values: (n,) one number a sample, or (seeds, n) of several trainings. Seeds are then
            drawn like samples: the interval holds what training does by chance, as far as
            so few of them show it.
        resamples: how often n samples are drawn with replacement.
        seed: of the draws; the same arguments give the same interval.

    Returns:
        Lower and upper end, in the unit of ``values``; both NaN where n is 0.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    seeds, count = values.shape
    if not values.size:
        return np.nan, np.nan
    draws = np.random.default_rng(seed)
    means = []
    block = max(1, _BLOCK // values.size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        samples = draws.integers(count, size=(rows, 1, count))
        trainings = draws.integers(seeds, size=(rows, seeds, 1)) if seeds > 1 else 0
        means.append(values[trainings, samples].mean(axis=(1, 2)))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def by_seed(samples: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a seed, one column a sample, both sorted; without a column ``seed`` it is one.

    Raises:
        KeyError, ValueError: a column is missing, or a sample stands there twice.
    """
    if SEED not in samples:
        samples = samples.assign(**{SEED: 0})
    return samples.pivot(index=SEED, columns="sample_id", values=metric)


def figures(
    samples: pd.DataFrame, metrics: Iterable[str], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Mean, ``low`` and ``high`` end and unit of each of ``metrics``, columns of ``samples``, which
    has one row a sample, or one a sample and seed."""
    found = {}
    for name in metrics:
        values = by_seed(samples, name).to_numpy()
        low, high = mean_interval(values, resamples, seed)
        unit = UNITS.get(name, "1")
        found[name] = {"mean": float(values.mean()), "low": low, "high": high, "unit": unit}
    return found
