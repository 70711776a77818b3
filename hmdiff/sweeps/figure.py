"""A sweep as a picture: the primary metric against the values, with its intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hmdiff.sweeps.results import Record
from hmdiff.tables.notices import STAND_IN
from hmdiff.tables.paper import dataset_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 110  # characters of the caption
WIDE = 8  # values further apart than this factor stand on a logarithmic axis


def caption(found: Sequence[Record]) -> str:
    """What was swept, on which images, and what the bars mean."""
    primary = [record for record in found if record.primary]
    one = primary[0]
    where = (
        f"{max(record.n for record in primary)} validation images of {dataset_title(one.dataset)}"
    )
    if one.source == "rendered":
        where += f" ({STAND_IN})"
    how = [f"{one.method} on {one.experiment}"]
    for name in ("steps", "chains"):
        values = {getattr(record, name) for record in primary}
        how += [f"{values.pop()} {name}"] if len(values) == 1 else []
    if any(record.active_steps for record in primary):
        how.append("below each value the mean number of steps with DAT")
    sentences = [
        f"{one.parameter}: mean {one.metric} over {where}, {', '.join(how)}.",
        "Bars: 95 % bootstrap intervals over the images, one seed; paired differences are in the "
        "CSV. Orange: the configured value.",
    ]
    failed = [str(record.value) for record in primary if record.failure]
    if failed:
        sentences.append(f"Diverged: {', '.join(failed)}.")
    return " ".join(sentences)


def draw_sweep(found: Sequence[Record], text: str) -> Figure:
    """The means of ``found`` with ``text`` below; what diverged is a cross on the axis."""
    from matplotlib.figure import Figure

    primary = [record for record in found if record.primary]
    values = [record.value for record in primary]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    places = values if numbers else list(range(len(values)))
    figure = Figure((7.0, 4.4), layout="constrained")
    panel = figure.subplots()
    for place, record in zip(places, primary, strict=True):
        colour = "C1" if record.configured else "C0"
        if record.measured is None:
            panel.plot(
                place, 0, "x", color=colour, transform=panel.get_xaxis_transform(), clip_on=False
            )
            continue
        ends = [[record.measured - record.ci_low], [record.ci_high - record.measured]]
        panel.errorbar(place, record.measured, ends, fmt="o", color=colour, capsize=3)
    shown = [
        (p, r.measured) for p, r in zip(places, primary, strict=True) if r.measured is not None
    ]
    if numbers and shown:
        panel.plot(*zip(*shown, strict=True), color="0.7", lw=1, zorder=0)
        if min(values) > 0 and max(values) > WIDE * min(values):
            panel.set_xscale("log")
    labels = [_label(record) for record in primary]
    long = max(map(len, labels)) * len(labels) > LINE
    panel.set_xticks(places, labels, rotation=90 if long else 0)
    panel.margins(x=0.12)
    panel.minorticks_off()
    panel.set_xlabel(primary[0].parameter)
    panel.set_ylabel(f"{primary[0].metric} ({primary[0].unit})")
    panel.grid(alpha=0.3)
    figure.supxlabel(textwrap.fill(text, LINE), fontsize=7)
    return figure


def _label(record: Record) -> str:
    """A value, and below it in how many steps DAT was active, if at all."""
    return (
        f"{record.value}\n{record.active_steps:.1f}" if record.active_steps else f"{record.value}"
    )
