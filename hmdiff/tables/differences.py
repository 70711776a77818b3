"""How far a row is from its table's reference row, sample by sample, and what the paper says."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import by_seed, mean_interval
from hmdiff.tables.paper import Column, PaperTable

REPRODUCED, REFUTED, UNDECIDED = "reproduced", "refuted", "undecided"
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the reference row's, over the same test samples.

    Attributes:
        value: mean of the samples' differences, in the column's unit.
        low, high: its paired 95 % bootstrap interval: samples (and seeds) are drawn, not values.
        paper: the same difference of the paper's numbers; None where it prints none.
        verdict: ``reproduced`` where the interval excludes zero in the paper's direction,
            ``refuted`` where it does in the other, else ``undecided``. Of a row that the paper
            lacks, the sure ones are ``better`` or ``worse`` than the reference.
    """

    reference: str
    value: float
    low: float
    high: float
    paper: float | None
    verdict: str


class Comparison:
    """The rows of one table against its reference row, the paper's own method."""

    def __init__(self, paper: PaperTable, evaluations: Path, resamples: int, seed: int):
        """``evaluations`` is the folder whose NAME/samples.csv hold one row a sample (and seed)."""
        self.paper, self.evaluations = paper, evaluations
        self.resamples, self.seed = resamples, seed
        self.reference = list(paper.rows)[-1]  # the method itself stands last in every table

    def difference(self, row: str, column: Column) -> Difference | None:
        """None where the row or the column has nothing to compare, or other test samples.

        Raises:
            UserError: a samples.csv is missing or lacks a metric; the line names the stage.
        """
        measured = self.paper.measured
        name = measured.get(row, {}).get(column.source)
        other = measured[self.reference].get(column.source)
        averaged = column.unit != "steps" and column.source != "speed"
        if row == self.reference or not averaged or name is None or other is None:
            return None
        values = _paired(self.evaluations, (name, other), column.metric)
        if values is None:
            return None
        low, high = mean_interval(values, self.resamples, self.seed)
        value, paper = float(values.mean()), self._printed(row, column)
        return Difference(
            self.reference, value, low, high, paper, _verdict(low, high, paper, column)
        )

    def _printed(self, row: str, column: Column) -> float | None:
        index, rows = self.paper.columns.index(column), self.paper.rows
        here, there = (rows.get(name, {index: None})[index] for name in (row, self.reference))
        return None if here is None or there is None else round(here - there, 6)


def _verdict(low: float, high: float, paper: float | None, column: Column) -> str:
    if low <= 0 <= high or paper == 0:
        return UNDECIDED
    higher = low > 0
    if paper is None:
        better_up = column.header.endswith("↑")  # of the others, lower is better
        return BETTER if higher == better_up else WORSE
    return REPRODUCED if higher == (paper > 0) else REFUTED


def _paired(evaluations: Path, names: tuple[str, str], metric: str) -> np.ndarray | None:
    """Differences (seeds, n) of the same samples; None where the samples or seeds differ.

    What was run with one seed alone (the linear control has no chance in it) is compared with
    every seed of the other.
    """
    first, second = (_samples(evaluations, name, metric) for name in names)
    if not first.columns.equals(second.columns):
        return None
    if not first.index.equals(second.index) and min(len(first), len(second)) > 1:
        return None
    return first.to_numpy() - second.to_numpy()


def _samples(evaluations: Path, name: str, metric: str) -> pd.DataFrame:
    """One row a seed, one column a sample, both sorted."""
    path = evaluations / name / "samples.csv"
    remedy = f"run `dvc repro evaluate@{name}`"
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("it is cut")
        frame = pd.read_csv(io.StringIO(text), dtype={"sample_id": str})
        if metric not in frame:
            raise UserError(f"{path}: has no column {metric!r}; {remedy}")
        return by_seed(frame, metric)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a table of samples ({reason}); {remedy}") from None
