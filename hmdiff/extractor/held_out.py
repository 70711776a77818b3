"""Which training images the extractor sees, and which are left for g."""

from __future__ import annotations

import numpy as np


def divide(rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Training rows (n,) of one data set: those for the extractor, then those for g.

    Without a ``share`` to hold out, all of them serve both. What is held out are the last rows: a
    data set's files follow its sequences, so that at most one sequence is in both parts. (The real
    FreiHAND repeats its 32,560 hands on other backgrounds, which are then on both sides.)
    """
    if not share:
        return rows, rows
    seen = len(rows) - round(share * len(rows))
    return rows[:seen], rows[seen:]
