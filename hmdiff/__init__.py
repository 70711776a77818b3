"""HMDiff: distribution-aligned diffusion for human mesh recovery, as a reproducible pipeline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from hmdiff.prediction.model import Recoverer

__version__ = "0.1.0"
STARTED = time.monotonic()  # seconds, of a clock that nobody sets


def load(checkpoint: str | Path, **options: Any) -> Recoverer:
    """A trained experiment: ``hmdiff.load("models/train/image").predict("photo.jpg")``.

    See :func:`hmdiff.prediction.model.load` for the options, and
    :class:`hmdiff.prediction.recovery.Recovery` for what ``predict`` returns. Nothing heavy is
    imported before this is called.
    """
    from hmdiff.prediction.model import load

    return load(checkpoint, **options)
