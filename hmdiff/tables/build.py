"""Joining the paper's numbers with ours: every filled cell of a table becomes one flat record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmdiff.params import Params
from hmdiff.tables.differences import Comparison, Difference
from hmdiff.tables.measured import Speed, Summary, read_speed, read_summary
from hmdiff.tables.notices import notices, verdict_notice
from hmdiff.tables.paper import Column, PaperTable, paper_table


@dataclass(frozen=True)
class Record:
    """A cell with a number in it, as results/tableN.json lists it.

    Attributes:
        source: ``real`` or ``rendered`` where ``measured`` is given, else ``paper``.
        paper, measured: the number in the paper and ours, in ``unit``.
        ci_low, ci_high: 95 % bootstrap interval of ``measured``; of FPS the extreme repeats.
        n: test samples, or repeats of FPS.
        quoted: the paper's number stands alone.
        reference: the row that this one is compared with, the method itself; the fields that
            follow are the paired difference to it (tables/differences.py), and None where there
            is nothing to compare.
        commit: of the code that made the table.
    """

    table: int
    row: str
    dataset: str
    source: str
    metric: str
    unit: str
    paper: float | None
    measured: float | None
    ci_low: float | None
    ci_high: float | None
    n: int | None
    seeds: list[int]
    quoted: bool
    reference: str | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    difference_paper: float | None
    verdict: str | None
    commit: str | None


@dataclass(frozen=True)
class Table:
    """The paper's table with our numbers beside its own.

    Attributes:
        records: (row, column) -> record; empty cells are absent.
        summaries: the evaluations used, by name. speed: the timings, in Table 6.
        notices: sentences for caption and console: where the numbers are from.
    """

    paper: PaperTable
    records: dict[tuple[str, Column], Record]
    summaries: dict[str, Summary]
    speed: Speed | None
    notices: list[str]
    commit: str | None

    @property
    def compared(self) -> list[tuple[Column, Record]]:
        """The cells that were compared with the reference row."""
        return [(column, record) for (_, column), record in self.records.items() if record.verdict]

    def sources(self, column: Column) -> set[str]:
        """``real``, ``rendered`` or both: where the measured numbers of a column are from."""
        records = (record for (_, other), record in self.records.items() if other == column)
        return {record.source for record in records if record.measured is not None}


def build_table(
    number: int, evaluations: Path, speed: Path | None, params: Params, commit: str | None
) -> Table:
    """Table ``number`` from what lies in ``evaluations``/NAME and, for Table 6, ``speed``.

    Raises:
        UserError: an evaluation or the timings are missing; the line names the stage to run.
    """
    paper = paper_table(number)
    timings = [names["speed"] for names in paper.measured.values() if "speed" in names]
    summaries = {
        name: read_summary(evaluations, name, _metrics(paper, dataset))
        for names in paper.measured.values()
        for dataset, name in names.items()
        if dataset != "speed"
    }
    times = read_speed(speed, timings) if timings else None
    comparison = Comparison(paper, evaluations, params.evaluation.bootstrap, params.seed)
    records = {}
    for row in paper.row_names:
        quoted = paper.rows.get(row, (None,) * len(paper.columns))
        for column, printed in zip(paper.columns, quoted, strict=True):
            name = paper.measured.get(row, {}).get(column.source)
            ours = _measured(name, column, summaries, times)
            if printed is not None or ours:
                difference = comparison.difference(row, column)
                records[row, column] = _record(
                    number, row, column, printed, ours, difference, commit
                )
    sentences = notices(number, summaries, times)
    if any(record.verdict for record in records.values()):
        sentences.append(verdict_notice(comparison.reference))
    return Table(paper, records, summaries, times, sentences, commit)


def _metrics(paper: PaperTable, dataset: str) -> list[str]:
    """What the evaluation of ``dataset`` has to give; the number of steps is no mean."""
    columns = (column for column in paper.columns if column.source == dataset)
    return [column.metric for column in columns if column.unit != "steps"]


def _measured(
    name: str | None, column: Column, summaries: dict[str, Summary], speed: Speed | None
) -> dict | None:
    """The fields of a record that our own measurement ``name`` fills."""
    if name is None:
        return None
    if column.source == "speed":
        time = speed.timing(name)
        value, low, high, n = time.value, time.low, time.high, time.repeats
        source, seeds = speed.source, [speed.seed]
    else:
        summary = summaries[name]
        source, seeds, n = summary.source, summary.seeds, summary.n
        if column.unit == "steps":
            if summary.trained.experiment.model != "diffusion":
                return None
            value, low, high = summary.steps, None, None
        else:
            mean = summary.means[column.metric]
            value, low, high = mean.mean, mean.low, mean.high
    return {
        "source": source, "measured": value, "ci_low": low, "ci_high": high,
        "n": n, "seeds": seeds, "quoted": False,
    }  # fmt: skip


def _record(
    number: int,
    row: str,
    column: Column,
    printed: float | None,
    ours: dict | None,
    difference: Difference | None,
    commit: str | None,
) -> Record:
    empty = {
        "source": "paper", "measured": None, "ci_low": None, "ci_high": None,
        "n": None, "seeds": [], "quoted": True,
    }  # fmt: skip
    return Record(
        table=number,
        row=row,
        dataset=column.dataset,
        metric=column.metric,
        unit=column.unit,
        paper=printed,
        reference=difference and difference.reference,
        difference=difference and difference.value,
        difference_low=difference and difference.low,
        difference_high=difference and difference.high,
        difference_paper=difference and difference.paper,
        verdict=difference and difference.verdict,
        commit=commit,
        **(ours or empty),
    )
