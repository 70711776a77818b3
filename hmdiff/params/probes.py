"""The section ``probes``: regressions on the features of some data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hmdiff.errors import UserError
from hmdiff.params.base import Count, Positive, Section

if TYPE_CHECKING:
    from hmdiff.params import Params

Several = Annotated[tuple[Positive, ...], Field(min_length=1)]


class ProbeParams(Section):
    """Penalties and widths of kernels are tried on training rows that are held out."""

    kind: Literal["body", "hand"]
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Count  # of training at most, evenly spaced
    landmarks: Count  # of these that a kernel regression is fitted to
    penalties: Several
    widths: Several


def check_probes(params: Params, path: str | Path) -> None:
    """Make sure that every probe can be run.

    Raises:
        UserError: a probe names a data set that there is not, or one of another kind.
    """
    for name, probe in params.probes.items():
        known = [key for key, item in params.datasets.items() if item.kind == probe.kind]
        for dataset in probe.datasets:
            if dataset not in known:
                raise UserError(
                    f"{path}: probes.{name}.datasets: {dataset!r} is no data set of kind "
                    f"{probe.kind}; take of {', '.join(known)}"
                )
