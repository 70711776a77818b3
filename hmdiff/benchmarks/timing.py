"""Seconds of things that take turns, the machine's own peak, and how a time grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hmdiff.machine import record

# Of the square matrices: larger ones gain nothing on two cores; a GPU needs larger ones.
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}


def interleaved(
    things: Mapping[str, Callable[[], Any]], repeats: int, warmup: int | None = None
) -> dict[str, list[float]]:
    """Seconds of every repeat; the things take turns, so that a busy machine slows all alike.

    ``warmup`` is one round; three where there is a GPU, which records at the second call.
    """
    if warmup is None:
        warmup = 3 if torch.cuda.is_available() else 1
    times: dict[str, list[float]] = {name: [] for name in things}
    for repeat in range(warmup + repeats):
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def rates(name: str, count: float, seconds: Sequence[float], unit: str) -> dict[str, Any]:
    """The record of ``count`` things done in each of ``seconds``."""
    return record(name, [count / value for value in seconds], unit)


def speed_up(name: str, seconds: Sequence[float], of: str, others: Sequence[float]) -> dict:
    """The record of how many times faster ``seconds`` are than ``others``, repeat by repeat."""
    ratios = [other / own for own, other in zip(seconds, others, strict=True)]
    return record(name, ratios, "x", ratio_to=of)


def matrix_peak(precision: str, size: int, device: torch.device) -> Callable[[], Any]:
    """A product of two square matrices, 2 size^3 operations, in ``precision``."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size).to(device, kind) for _ in range(2))
    return lambda: left @ right


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of seconds = a sizes^b by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def exponent_interval(sizes: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Lower end, value and upper end of the 95 % interval of :func:`exponent`, by Student's t."""
    from scipy import stats

    fit = stats.linregress(np.log(sizes), np.log(seconds))
    half = stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr if len(sizes) > 2 else 0.0
    return [float(fit.slope - half), float(fit.slope), float(fit.slope + half)]
