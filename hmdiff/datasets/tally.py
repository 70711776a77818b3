"""What became of the samples of a data set: read, left out, and why."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from hmdiff.errors import UserError

NAMED = 5  # samples named for each reason
UNREADABLE = "unreadable image"
_EARLY = 200  # samples after which a share of unreadable images tells something


class Tally:
    """Counts samples as they go by. Readers and the cropping write it, the stage reports it."""

    def __init__(self) -> None:
        self.read = 0  # samples that a reader yielded
        self.counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = defaultdict(list)

    def skip(self, reason: str, name: str) -> None:
        """A sample was left out for ``reason``; the first few names of each are kept."""
        self.counts[reason] += 1
        if len(self._first[reason]) < NAMED:
            self._first[reason].append(name)

    def check(self, limit: float, finished: bool) -> None:
        """Raise a UserError if more than the share ``limit`` of all images was unreadable.

        Before the end, only once enough of them were tried.
        """
        lost = self.counts[UNREADABLE]
        if lost > limit * self.read and (finished or self.read >= _EARLY):
            raise UserError(
                f"{self._first[UNREADABLE][0]}; with it {lost} of {self.read} images cannot be "
                "read, more than prepare.skip_limit of params.yaml allows"
            )

    def as_json(self) -> str:
        """``{reason: {count, first}}`` as JSON text."""
        return json.dumps(
            {
                reason: {"count": count, "first": self._first[reason]}
                for reason, count in sorted(self.counts.items())
            }
        )

    def __str__(self) -> str:
        listed = (f"{count} ({reason})" for reason, count in sorted(self.counts.items()))
        return ", ".join(listed) or "nobody"
