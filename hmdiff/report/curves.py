"""Training curves as SVG pictures that are the same bytes for the same numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hmdiff.report.trainings import Training

WIDTH, PANEL = 5.0, 1.7  # inches; one column, so that it can be read on a phone
TITLES = {
    "diff": "loss on the model's own target",
    "v": "vertices (L1, model units)",
    "j": "joints (L1, model units)",
    "n": "normals",
    "e": "edges (model units)",
    "loss": "loss",
    "val_mpjpe": "validation MPJPE (mm)",
}
SKIPPED = {"learning_rate"}
STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Picture:
    """An SVG for an ``img`` element, with the text for those who cannot see it."""

    uri: str
    text: str
    trainings: Sequence[Training]


def pictures(trainings: Sequence[Training]) -> Iterator[Picture]:
    """One picture a stage and kind, a panel a column, a line a training; searches have none."""
    groups: dict[tuple[str, str], list[Training]] = {}
    for training in trainings:
        if not training.is_search:
            groups.setdefault((training.stage, training.kind), []).append(training)
    for (stage, kind), members in groups.items():
        names = ", ".join(training.name for training in members)
        text = f"{stage}, {kind}: losses by training samples seen ({names})"
        yield Picture(_uri(_draw(members)), text, members)


def _draw(trainings: Sequence[Training]) -> str:
    # Takes most of a second; without pyplot there is no global state and no display.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    lines = {training.name: training.history for training in trainings}
    columns = [
        c for c in dict.fromkeys(c for line in lines.values() for c in line) if c not in SKIPPED
    ]
    # A fixed salt and no date make the bytes repeatable; text stays text.
    settings = {"svg.hashsalt": "hmdiff", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure((WIDTH, 0.6 + PANEL * len(columns)), layout="constrained")
        panels = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
        for column, panel in zip(columns, panels, strict=True):
            for at, (name, history) in enumerate(lines.items()):
                if column in history:
                    steps, values = zip(*history[column], strict=True)
                    style = STYLES[at // 10 % len(STYLES)]
                    panel.plot(
                        steps, values, style, color=f"C{at % 10}", label=name, marker=".", ms=3
                    )
            panel.set_title(TITLES.get(column, column), loc="left", fontsize=9)
            panel.grid(alpha=0.3)
            panel.set_ylim(bottom=0)
        panels[-1].set_xlabel("training samples seen")
        if len(lines) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return text.getvalue()


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
