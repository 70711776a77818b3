"""Procedural patterns: what clothes, occluders and backgrounds are painted with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image


def resize(image: NDArray, size: tuple[int, int]) -> NDArray:
    """Bilinear, filtered where it shrinks; (h, w) float32 or (h, w, 3) uint8 to ``size`` (width,
    height)."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def sample_colour(rng: np.random.Generator, low: float = 0.05, high: float = 0.95) -> NDArray:
    """(3,) float64 in [low, high]; half of the time muted, as paint and cloth mostly are."""
    colour = rng.uniform(low, high, 3)
    if rng.random() < 0.5:
        colour = colour.mean() + 0.35 * (colour - colour.mean())
    return colour


def fractal_noise(
    rng: np.random.Generator, size: tuple[int, int], cells: Sequence[int], falloff: float = 0.6
) -> NDArray:
    """Sum of smooth noises of ``cells`` cells across the longer side, each weaker by ``falloff``.

    size (width, height), pixels -> (height, width) float32 that spans [0, 1].
    """
    width, height = size
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for count in cells:
        columns = max(2, round(count * width / max(size)))
        rows = max(2, round(count * height / max(size)))
        grid = rng.random((rows, columns), dtype=np.float32) * np.float32(weight)
        total += resize(grid, size)
        weight *= falloff
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, np.float32(1e-6))


def ramp(grey: NDArray, dark: ArrayLike, bright: ArrayLike) -> NDArray:
    """(h, w) in [0, 1] -> (h, w, 3) float32 between two colours."""
    dark, bright = np.asarray(dark, np.float32), np.asarray(bright, np.float32)
    return dark + grey[..., None].astype(np.float32) * (bright - dark)


def _plain(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    colour = sample_colour(rng)
    return ramp(fractal_noise(rng, size, (16, 48)), 0.88 * colour, colour)


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    width, height = size
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    period = rng.uniform(0.02, 0.12) * max(size)
    phase = (x * np.cos(angle) + y * np.sin(angle)) / period % 1.0
    return ramp(phase < rng.uniform(0.2, 0.7), sample_colour(rng), sample_colour(rng))


def _checks(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    width, height = size
    period = rng.uniform(0.03, 0.12) * max(size)
    columns = (np.arange(width) / period % 1.0) < rng.uniform(0.3, 0.6)
    rows = (np.arange(height) / period % 1.0)[:, None] < rng.uniform(0.3, 0.6)
    return ramp((columns.astype(np.float32) + rows) / 2, sample_colour(rng), sample_colour(rng))


def _dots(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    width, height = size
    period = rng.uniform(0.04, 0.12) * max(size)
    x = np.arange(width) / period % 1.0 - 0.5
    y = (np.arange(height) / period % 1.0)[:, None] - 0.5
    inside = x**2 + y**2 < rng.uniform(0.03, 0.15)
    return ramp(inside, sample_colour(rng), sample_colour(rng))


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    grey = fractal_noise(rng, size, (4, 9, 20, 45), rng.uniform(0.5, 0.8))
    return ramp(grey, sample_colour(rng), sample_colour(rng))


PATTERNS = (_plain, _plain, _stripes, _checks, _dots, _clouds)  # plain is twice as frequent


def sample_pattern(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    """A cloth-like pattern; size (width, height), pixels -> (height, width, 3) float32."""
    return PATTERNS[rng.integers(len(PATTERNS))](rng, size)
