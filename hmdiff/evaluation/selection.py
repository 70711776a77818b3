"""Choosing the number of reverse steps on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmdiff.errors import UserError
from hmdiff.files import read_json

if TYPE_CHECKING:
    from hmdiff.params import Params

RULE = "fewest steps whose mean validation error is within the tolerance of the least"


def fewest_steps(errors: Mapping[int, float], tolerance: float) -> int:
    """The smallest number of steps whose error is at most ``(1 + tolerance)`` times the least.

    Args:
        errors: mean validation error of each candidate number of steps.
        tolerance: a share; 0.01 is one per cent.
    """
    limit = (1 + tolerance) * min(errors.values())
    return min(steps for steps, error in errors.items() if error <= limit)


@dataclass(frozen=True)
class Selected:
    """What ``select_steps@METHOD`` found on validation images.

    Attributes:
        steps: the number of reverse steps.
        spread_scale: of the chains' spread (evaluation/calibration.py); None where nothing was
            run, or nothing spreads.
        reverse: values of the section ``reverse`` that are the method's own.
    """

    steps: int
    spread_scale: float | None
    reverse: Mapping[str, Any] = field(default_factory=dict)

    def params(self, params: Params) -> Params:
        """``params`` with the method's own values in the section ``reverse``."""
        return params.model_copy(update={"reverse": params.reverse.changed(self.reverse)})


def read_selected(path: Path, method: str) -> Selected:
    """The record that ``select_steps@METHOD`` wrote to ``path``.

    Raises:
        UserError: the file is missing, damaged, or of another method.
    """
    record = read_json(path)
    found = record.get("method") if isinstance(record, dict) else None
    remedy = f"run select_steps@{method}"
    if found != method:
        raise UserError(f"{path}: method: {found!r}, not {method!r}; {remedy}")
    steps, scale = record.get("steps"), record.get("spread_scale")
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"{path}: steps: not a positive number; {remedy}")
    if scale is not None and not (isinstance(scale, float) and 0 < scale < math.inf):
        raise UserError(f"{path}: spread_scale: not a positive number; {remedy}")
    reverse = record.get("reverse", {})
    if not isinstance(reverse, dict):
        raise UserError(f"{path}: reverse: no keys and values; {remedy}")
    return Selected(steps, scale, reverse)
