"""A table as CSV, LaTeX, JSON and plain text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from hmdiff.files import write_json, write_text
from hmdiff.tables.build import Record, Table
from hmdiff.tables.paper import Column, dataset_title

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """``text`` as LaTeX prints it literally."""
    return "".join(_LATEX.get(character, character) for character in text)


def table_frame(table: Table, spread: bool) -> pd.DataFrame:
    """The table laid out like the paper's: each of its columns twice, the paper's number and ours.

    Column names are tuples (header, "paper" or where ours was measured), after the data set where
    the table has several; "-" where there is no number, as in the paper. ``spread`` adds half of
    the 95 % interval to our means.
    """
    columns = table.paper.columns
    several = len({column.dataset for column in columns}) > 1
    data = {("", "Method", "") if several else ("Method", ""): table.paper.row_names}
    for column in columns:
        records = [table.records.get((row, column)) for row in table.paper.row_names]
        title = (dataset_title(column.dataset), column.header) if several else (column.header,)
        data[*title, "paper"] = [_printed(record, column) for record in records]
        ours = [_measured(record, column, spread) for record in records]
        data[*title, _label(table, column)] = ours
    return pd.DataFrame(data)


def to_csv(table: Table) -> str:
    """Comma-separated values with one header line.

    A column of ours is followed by the verdicts on it, where it has any: how each row differs
    from the reference row, which every caption names.
    """
    frame = table_frame(table, spread=False)
    for at in reversed(range(len(table.paper.columns))):
        column = table.paper.columns[at]
        records = [table.records.get((row, column)) for row in table.paper.row_names]
        verdicts = [(record and record.verdict) or "-" for record in records]
        if set(verdicts) != {"-"}:
            *titles, _ = frame.columns[2 + 2 * at]
            frame.insert(3 + 2 * at, (*titles, "verdict"), verdicts)
    frame.columns = [
        " ".join(filter(None, titles)) + (f" ({label})" if label else "")
        for *titles, label in frame.columns
    ]
    return frame.to_csv(index=False, lineterminator="\n")


def to_latex(table: Table) -> str:
    """A LaTeX table (package booktabs) whose caption says where the numbers are from."""
    frame = table_frame(table, spread=True).map(latex_text)
    names = [tuple(map(latex_text, name)) for name in frame.columns]
    frame.columns = pd.MultiIndex.from_tuples(names)
    return frame.to_latex(
        index=False,
        escape=False,
        caption=latex_text(" ".join([table.paper.caption, *table.notices])),
        label=f"tab:hmdiff{table.paper.number}",
        column_format="l" + "r" * (len(names) - 1),
        multicolumn_format="c",
    )


def to_text(table: Table) -> str:
    """Caption, table and notices for the console."""
    frame = table_frame(table, spread=True)
    headers = ["\n".join(filter(None, name)) for name in frame.columns]
    align = ("left", *["right"] * (len(headers) - 1))
    body = tabulate(
        frame.to_numpy().tolist(), headers, tablefmt="simple", colalign=align, disable_numparse=True
    )
    head = f"Table {table.paper.number}. {table.paper.caption}"
    return "\n".join([head, "", body, "", *table.notices])


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write tableN.csv, tableN.tex and tableN.json (the flat records) into ``folder``."""
    stem = folder / f"table{table.paper.number}"
    paths = [stem.with_suffix(suffix) for suffix in (".csv", ".tex", ".json")]
    write_text(paths[0], to_csv(table))
    write_text(paths[1], to_latex(table))
    write_json(paths[2], [asdict(record) for record in table.records.values()])
    return paths


def _printed(record: Record | None, column: Column) -> str:
    if record is None or record.paper is None:
        return "-"
    # The paper prints whole frames a second.
    return f"{record.paper:.{0 if column.metric == 'FPS' else column.decimals}f}"


def _measured(record: Record | None, column: Column, spread: bool) -> str:
    if record is None or record.measured is None:
        return "-"
    text = f"{record.measured:.{column.decimals}f}"
    if not spread or record.ci_low is None or column.metric == "FPS":
        return text
    return f"{text} ± {(record.ci_high - record.ci_low) / 2:.{column.decimals}f}"


def _label(table: Table, column: Column) -> str:
    """``rendered`` or ``real`` where that matters to the column, and all of it is of one kind."""
    if column.source == "speed":
        return "measured"
    sources = table.sources(column)
    return sources.pop() if len(sources) == 1 else "measured"
