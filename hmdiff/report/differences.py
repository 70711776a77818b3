"""How far a row is from its table's reference row, sample by sample, and what the paper says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.params import Params
from hmdiff.tables.build import Table
from hmdiff.tables.paper import Column, PaperTable

AGREES, OPPOSES, OPEN = "as in the paper", "against the paper", "undecided"
EQUAL, BETTER, WORSE = "no difference", "better", "worse"


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the reference row's, over the same test samples.

    Attributes:
        value: mean of the samples' differences, in the column's unit.
        low, high: its paired 95 % bootstrap interval: samples are drawn, not values.
        paper: the same difference of the paper's numbers; None where it prints none.
        n: test samples.
    """

    row: str
    reference: str
    column: Column
    value: float
    low: float
    high: float
    paper: float | None
    n: int

    @property
    def verdict(self) -> str:
        """Whether the sign of the paper's difference was found again, as far as one can tell.

        Of a row that the paper lacks: whether it is better or worse than the reference.
        """
        if self.low == self.high == 0:
            return EQUAL
        if self.low <= 0 <= self.high:
            return OPEN
        if self.paper is None:
            higher = self.column.header.endswith("↑")  # of the others, lower is better
            return BETTER if (self.value > 0) == higher else WORSE
        return AGREES if self.value * self.paper > 0 else OPPOSES


def reference_row(paper: PaperTable) -> str:
    """The paper's own last row, which is its method in every table."""
    return list(paper.rows)[-1]


def differences(table: Table, evaluations: Path, params: Params) -> Iterator[Difference]:
    """Every measured mean against the reference row's, where both have the same test samples.

    Args:
        evaluations: folder whose NAME/samples.csv hold one row a sample.

    Raises:
        UserError: a samples.csv is missing or lacks a metric; the line names the stage to run.
    """
    paper = table.paper
    reference = reference_row(paper)
    ours = paper.measured[reference]
    for row, names in paper.measured.items():
        for column in paper.columns:
            name, other = names.get(column.source), ours.get(column.source)
            averaged = column.unit != "steps" and column.source != "speed"
            if row == reference or not averaged or name is None or other is None:
                continue
            pair = _paired(evaluations, (name, other), column.metric)
            if pair is None:
                continue
            values = pair[0] - pair[1]
            low, high = mean_interval(values, params.evaluation.bootstrap, params.seed)
            yield Difference(
                row, reference, column, float(values.mean()), low, high,
                _printed(paper, row, reference, column), len(values),
            )  # fmt: skip


def _paired(
    evaluations: Path, names: tuple[str, str], metric: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """The metric of the same samples in two evaluations; None where the samples differ."""
    first, second = (_samples(evaluations, name, metric) for name in names)
    if set(first.index) != set(second.index):
        return None
    return first.to_numpy(), second.loc[first.index].to_numpy()


def _samples(evaluations: Path, name: str, metric: str) -> pd.Series:
    path = evaluations / name / "samples.csv"
    remedy = f"run `dvc repro evaluate@{name}`"
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("it is cut")
        frame = pd.read_csv(io.StringIO(text), dtype={"sample_id": str}, index_col="sample_id")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a table of samples ({error}); {remedy}") from None
    if metric not in frame:
        raise UserError(f"{path}: has no column {metric!r}; {remedy}")
    return frame[metric]


def _printed(paper: PaperTable, row: str, reference: str, column: Column) -> float | None:
    index = paper.columns.index(column)
    here, there = (paper.rows.get(name, {index: None})[index] for name in (row, reference))
    return None if here is None or there is None else round(here - there, 6)
