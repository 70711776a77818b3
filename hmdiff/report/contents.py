"""Everything that the page shows, gathered from what the stages wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pandas import DataFrame

from hmdiff.costs import StageCost
from hmdiff.files import read_json
from hmdiff.params import Params
from hmdiff.report.curves import Picture, pictures
from hmdiff.report.plates import Plate, read_plate
from hmdiff.report.provenance import Provenance, credits_of, origin
from hmdiff.report.trainings import Training
from hmdiff.resources import GIGABYTE
from hmdiff.tables.build import Record, Table, build_table
from hmdiff.tables.paper import Column, dataset_title
from hmdiff.tables.render import table_frame
from hmdiff.tables.uncertainty import Uncertainty, build_uncertainty, frame

NUMBERS = range(1, 7)


@dataclass(frozen=True)
class Cell:
    """A cell of a table's head that spans ``width`` columns."""

    text: str
    width: int


@dataclass(frozen=True)
class Section:
    """One of the paper's tables.

    Attributes:
        head: its rows of cells. rows: its cells as text, the method first.
        origin: what kind of images was measured on, in words.
    """

    table: Table
    head: list[list[Cell]]
    rows: list[list[str]]
    origin: str

    @property
    def reference(self) -> str | None:
        """The row that the others are compared with; None where nothing is compared."""
        return next((record.reference for _, record in self.table.compared), None)

    @property
    def compared(self) -> dict[tuple[str, str], list[tuple[Column, Record]]]:
        """The differences by row and data set."""
        groups: dict[tuple[str, str], list[tuple[Column, Record]]] = {}
        for column, record in self.table.compared:
            groups.setdefault((record.row, column.dataset), []).append((column, record))
        return groups


@dataclass(frozen=True)
class GroupCost:
    """What the stages of one kind cost together; ``gigabytes`` is of the largest alone."""

    name: str
    stages: int
    minutes: float
    cpu_minutes: float
    gigabytes: float


@dataclass(frozen=True)
class Contents:
    """The page, before it becomes HTML.

    Attributes:
        uncertainty, figures: Table 7, and Figures 2 and 3.
        samplings: kind -> errors of the mesh sampling, as its stage wrote them.
        machines: what the costs were measured on.
        credits: authors of photographs inside rendered pictures.
    """

    params: Params
    commit: str | None
    sections: list[Section]
    uncertainty: Uncertainty
    figures: list[Plate]
    pictures: list[Picture]
    trainings: Sequence[Training]
    samplings: dict[str, dict[str, Any]]
    costs: list[GroupCost]
    machines: list[str]
    data: Sequence[Provenance]
    credits: list[str]
    notice: str

    @property
    def uncertain(self) -> DataFrame:
        """Table 7 as text, the means over the joints."""
        return frame(self.uncertainty, joints=False)

    @property
    def rendered(self) -> list[str]:
        """Titles of the data sets that are stand-ins."""
        return [dataset_title(part.name) for part in self.data if part.source == "rendered"]

    @property
    def verdicts(self) -> Counter[str]:
        """How many differences that the paper has too ended how, in the ablations (3 to 5)."""
        return self._count((3, 4, 5), paper=True)

    @property
    def controls(self) -> Counter[str]:
        """The same of rows that the paper lacks, in the main tables (1 and 2)."""
        return self._count((1, 2), paper=False)

    def _count(self, numbers: tuple[int, ...], paper: bool) -> Counter[str]:
        return Counter(
            record.verdict
            for section in self.sections
            if section.table.paper.number in numbers
            for _, record in section.table.compared
            if (record.difference_paper is not None) == paper
        )

    def origin_of(self, training: Training) -> str:
        """What kind of images it was trained on, in words."""
        return origin({part.source for part in self.data if part.name in training.datasets})


def gather(
    evaluations: Path,
    speed: Path,
    sampling: Path,
    figures: Path,
    notice: Path,
    trainings: Sequence[Training],
    data: Sequence[Provenance],
    costs: Mapping[str, StageCost],
    params: Params,
    commit: str | None,
) -> Contents:
    """Read, compare and draw.

    Raises:
        UserError: something is missing or damaged; the line names the stage to run.
    """
    return Contents(
        params=params,
        commit=commit,
        sections=[_section(number, evaluations, speed, params, commit) for number in NUMBERS],
        uncertainty=build_uncertainty(evaluations, params, commit),
        figures=[read_plate(figures, name) for name in ("figure2", "figure3")],
        pictures=list(pictures(trainings)),
        trainings=trainings,
        samplings={
            path.stem.removeprefix("sampling_"): read_json(path)
            for path in sorted(sampling.glob("sampling_*.json"))
        },
        costs=list(_grouped(costs)),
        machines=sorted({cost.machine for cost in costs.values()}),
        data=data,
        credits=credits_of(data),
        notice=notice.read_text(encoding="utf-8"),
    )


def metrics_of(sections: Sequence[Section]) -> dict[str, dict[str, float]]:
    """Evaluation -> metric -> mean, for `dvc metrics`; timings, which never repeat, are not in."""
    summaries = {name: s for section in sections for name, s in section.table.summaries.items()}
    return {
        name: {metric: mean.mean for metric, mean in summary.means.items()}
        for name, summary in sorted(summaries.items())
    }


def _section(
    number: int, evaluations: Path, speed: Path, params: Params, commit: str | None
) -> Section:
    table = build_table(number, evaluations, speed, params, commit)
    frame = table_frame(table, spread=True)
    sources = {summary.source for summary in table.summaries.values()}
    return Section(
        table=table,
        head=_head(list(frame.columns)),
        rows=frame.to_numpy().tolist(),
        origin=origin(sources),
    )


def _head(names: list[tuple[str, ...]]) -> list[list[Cell]]:
    """Column names of several levels as rows of cells; equal neighbours become one.

    Neighbours are equal only where all levels above are, too.
    """
    levels = range(len(names[0]))
    return [
        [
            Cell(group[level], len(list(members)))
            for group, members in groupby(names, key=lambda name: name[: level + 1])
        ]
        for level in levels
    ]


def _grouped(costs: Mapping[str, StageCost]) -> Iterator[GroupCost]:
    for name, members in groupby(sorted(costs.values(), key=lambda c: c.group), lambda c: c.group):
        group = list(members)
        yield GroupCost(
            name=name,
            stages=len(group),
            minutes=sum(cost.seconds for cost in group) / 60,
            cpu_minutes=sum(cost.cpu_seconds for cost in group) / 60,
            gigabytes=max(cost.peak_bytes for cost in group) / GIGABYTE,
        )
