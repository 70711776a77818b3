"""Choosing the number of reverse steps on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hmdiff.errors import UserError
from hmdiff.files import read_json

RULE = "fewest steps whose mean validation error is within the tolerance of the least"


def fewest_steps(errors: Mapping[int, float], tolerance: float) -> int:
    """The smallest number of steps whose error is at most ``(1 + tolerance)`` times the least.

    Args:
        errors: mean validation error of each candidate number of steps.
        tolerance: a share; 0.01 is one per cent.
    """
    limit = (1 + tolerance) * min(errors.values())
    return min(steps for steps, error in errors.items() if error <= limit)


def read_steps(path: Path, method: str) -> int:
    """The number of reverse steps that ``select_steps@METHOD`` wrote to ``path``.

    Raises:
        UserError: the file is missing, damaged, or of another method.
    """
    record = read_json(path)
    found = record.get("method") if isinstance(record, dict) else None
    if found != method:
        raise UserError(f"{path}: method: {found!r}, not {method!r}; run select_steps@{method}")
    steps = record.get("steps")
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"{path}: steps: not a positive number; run select_steps@{method}")
    return steps
