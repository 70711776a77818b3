"""Tables of README and docs that show a CSV of results/: run as a script, this renews them.

Such a table stands below a comment that names its file.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from doc_commands import PAGES, ROOT
from tabulate import tabulate

SHOWN = re.compile(r"<!-- (results/[\w/]+\.csv) -->\n\n((?:\|.*\n)*)")


def shown(path: Path) -> str:
    """The table of ``path``; of a sweep its primary metric, of a probe intervals as text."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    if path.parent.name == "sweeps":
        head, rows = _sweep([dict(zip(head, row, strict=True)) for row in rows])
    if path.parent.name == "probes":
        head, rows = _probe([dict(zip(head, row, strict=True)) for row in rows])
    if path.name == "scale.csv":
        head, rows = _scale([dict(zip(head, row, strict=True)) for row in rows])
    return tabulate(rows, head, tablefmt="github", disable_numparse=True) + "\n"


def renewed(page: str) -> str:
    """``page`` with all its tables as results/ has them now."""
    return SHOWN.sub(lambda found: f"<!-- {found[1]} -->\n\n{shown(ROOT / found[1])}", page)


def _sweep(rows: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    parameter, _, _, metric = list(rows[0])[:4]
    head = [parameter, f"{metric} (95 % interval)", "difference (95 % interval)", "steps with DAT"]
    return head, [
        [
            row[parameter] + (" (configured)" if row["configured"] == "True" else ""),
            _interval(row, metric) or "diverged",
            _interval(row, "difference") or "-",
            f"{float(row['active steps'] or 0):.1f} of {row['steps']}",
        ]
        for row in rows
    ]


def _probe(rows: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    datasets = [name.removesuffix(" low") for name in rows[0] if name.endswith(" low")]
    names = [name for name in datasets if not name.endswith(" difference")]
    shown = [part for name in names for part in (name, f"{name} difference")]
    head = ["fitted to", "regression", "training", *(f"{part} (95 % interval)" for part in shown)]
    return head, [
        [
            row["inputs"],
            row["regression"],
            _short(float(row["training"])),
            *(_interval(row, part) or "-" for part in shown),
        ]
        for row in rows
    ]


def _scale(rows: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    """A line for each part and size, and one with the exponents of each part's times."""
    columns = {"records": 0, "wall": 1, "processor": 2, "peak memory": 3, "disk": None}
    lines: dict[str, list[str]] = {}
    for row in rows:
        part, _, what = row["name"].partition(" ")
        if what.startswith("exponent "):
            line = lines.setdefault(
                f"{part} exponent", [part, "exponent (95 % interval)", "", "", ""]
            )
            low, value, high = (f"{float(row[name]):.2f}" for name in ("low", "value", "high"))
            line[1 + columns[what.removeprefix("exponent ")]] = f"{value} ({low} to {high})"
            continue
        size, _, what = what.partition(" ")
        line = lines.setdefault(f"{part} {size}", [part, "", "", "", ""])
        if columns[what] is not None:
            shown = {"records": ".0f", "peak memory": ".2f"}.get(what, ".1f")
            line[1 + columns[what]] = format(float(row["value"]), shown)
    head = ["part", "records", "wall (s)", "processor (s)", "peak memory (GB)"]
    return head, sorted(lines.values(), key=lambda line: line[0])


def _interval(row: dict[str, str], name: str) -> str:
    parts = [row[name], row[f"{name} low"], row[f"{name} high"]]
    if not all(parts):
        return ""
    mean, low, high = (_short(float(part)) for part in parts)
    return f"{mean} ({low} to {high})"


def _short(value: float) -> str:
    """Millimetres to a tenth; of what diverged the order of magnitude."""
    return f"{value:.1f}" if abs(value) < 1e5 else f"{value:.0e}"


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(renewed(text), encoding="utf-8")
