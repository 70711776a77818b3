"""The benchmark as a picture: what was gained over what, and how the time grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmdiff.files import atomic_file


def draw(records: Sequence[dict[str, Any]], out: Path) -> None:
    """Write ``out`` (SVG): the ratios as bars with their spread, the growth in log-log axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ratios = [row for row in records if row["ratio_to"]]
    series: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for row in records:
        if row["name"].startswith("time "):
            name, _, size = row["name"].removeprefix("time ").partition("=")
            series.setdefault(name, []).append((float(size), row))
    # Without a salt the ids of the file would differ at every call.
    with matplotlib.rc_context({"svg.hashsalt": "hmdiff", "font.size": 8}):
        figure = Figure(figsize=(11, 1.5 + 0.3 * max(8, len(ratios))), layout="constrained")
        bars, lines = figure.subplots(1, 2)
        for place, row in enumerate(reversed(ratios)):
            spread = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            bars.barh(place, row["value"], xerr=spread, color="tab:blue", ecolor="0.4")
        labels = [f"{row['name']}\nover {row['ratio_to']}" for row in reversed(ratios)]
        bars.set_yticks(range(len(ratios)), labels)
        bars.axvline(1, color="0.4", linewidth=0.8)
        bars.set_xlabel("ratio")
        for name, points in series.items():
            sizes, rows = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            values = [row["value"] for row in rows]
            lines.plot(sizes, values, marker="o", label=name)
        if series:
            lines.set(xscale="log", yscale="log", xlabel="size", ylabel="seconds")
            lines.legend()
        FigureCanvasSVG(figure)
        with atomic_file(out) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def draw_growth(records: Sequence[dict[str, Any]], out: Path) -> None:
    """Write ``out`` (SVG): processor time and peak memory of each part against its records."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    values = {row["name"]: row["value"] for row in records}
    series: dict[str, list[str]] = {}
    for name in values:
        if " n=" in name and name.endswith(" records"):
            series.setdefault(name.partition(" n=")[0], []).append(name.removesuffix(" records"))
    with matplotlib.rc_context({"svg.hashsalt": "hmdiff", "font.size": 8}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for part, labels in series.items():
            counts = [values[f"{label} records"] for label in labels]
            for axes, what in ((left, "processor"), (right, "peak memory")):
                axes.plot(counts, [values[f"{label} {what}"] for label in labels], "o-", label=part)
        left.set(xscale="log", yscale="log", xlabel="records", ylabel="processor time (s)")
        right.set(xscale="log", ylim=(0, 2.2), xlabel="records", ylabel="peak memory (GB)")
        right.axhline(2, color="0.4", linewidth=0.8)
        left.legend()
        FigureCanvasSVG(figure)
        with atomic_file(out) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
