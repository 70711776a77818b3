"""Choosing the number of reverse steps on validation images."""

from __future__ import annotations

from collections.abc import Mapping

RULE = "fewest steps whose mean validation error is within the tolerance of the least"


def fewest_steps(errors: Mapping[int, float], tolerance: float) -> int:
    """The smallest number of steps whose error is at most ``(1 + tolerance)`` times the least.

    Args:
        errors: mean validation error of each candidate number of steps.
        tolerance: a share; 0.01 is one per cent.
    """
    limit = (1 + tolerance) * min(errors.values())
    return min(steps for steps, error in errors.items() if error <= limit)
