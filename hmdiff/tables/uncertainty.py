"""Table 7, ours and not the paper's: whether the spread of the chains predicts the error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.evaluation.calibration import (
    LEVELS,
    correlation_interval,
    covered,
    pearson,
    spearman,
)
from hmdiff.evaluation.metrics import MILLIMETRES
from hmdiff.files import ARRAY_DAMAGE, write_json, write_text
from hmdiff.params import Params
from hmdiff.tables.measured import Summary, read_summary
from hmdiff.tables.notices import origin_notices
from hmdiff.tables.paper import layout
from hmdiff.tables.render import latex_text

NUMBER = 7
CAPTION = "Calibrated uncertainty (ours, not in the paper): spread of the chains and error."
ALL = "all"


@dataclass(frozen=True)
class Record:
    """A number of Table 7, as results/table7.json lists it.

    Attributes:
        joint: its name, or ``all`` for the mean over the joints.
        ci_low, ci_high: 95 % bootstrap interval over the samples; of ``all`` alone.
        n, chains: test samples, and chains of each.
    """

    table: int
    row: str
    dataset: str
    source: str
    joint: str
    metric: str
    unit: str
    measured: float
    ci_low: float | None
    ci_high: float | None
    n: int
    chains: int
    seeds: list[int]
    commit: str | None


@dataclass(frozen=True)
class Uncertainty:
    """The table: its rows' evaluations, and the records in the order of the columns."""

    evaluations: dict[str, str]
    summaries: dict[str, Summary]
    records: list[Record]
    notices: list[str]
    commit: str | None
    caption: str = CAPTION


def build_uncertainty(folder: Path, params: Params, commit: str | None) -> Uncertainty:
    """Table 7 from ``folder``/NAME/summary.json and predictions.npz.

    Raises:
        UserError: an evaluation is missing or damaged; the line names the stage to run.
    """
    evaluations = layout(NUMBER)
    summaries = {name: read_summary(folder, name, []) for name in evaluations.values()}
    records = [
        record
        for row, name in evaluations.items()
        for record in _row(row, summaries[name], folder / name, params, commit)
    ]
    chains = sorted({summary.chains for summary in summaries.values()})
    notices = [
        *origin_notices(summaries.values()),
        f"N = {', '.join(map(str, chains))} chains an image"
        + (": so few say little of a spread." if min(chains) < 10 else "."),
        "Joints are regressed from coarse meshes; spread is the chains' root mean square distance "
        "from their mean, error that mean's distance from the truth; correlations are over the "
        "images, joint by joint. Coverage: share of coordinates inside the central interval of a "
        "normal distribution about the mean with the chains' deviation, the same for three axes.",
        "Recalibrated: the spread times one scale for all joints, the likeliest on validation "
        "images; - where params.yaml left select_steps nothing to run.",
        "The interval is over the test samples, with the scale as it is.",
    ]
    return Uncertainty(evaluations, summaries, records, notices, commit)


def frame(table: Uncertainty, joints: bool) -> pd.DataFrame:
    """One row a method, or with ``joints`` one a method and joint, and one column a metric."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in table.records:
        if joints or record.joint == ALL:
            head = {"Method": record.row} | ({"Joint": record.joint} if joints else {})
            cells = rows.setdefault((record.row, record.joint), head)
            unit = f" ({record.unit})" if record.unit != "1" else ""
            cells[record.metric + unit] = f"{record.measured:.{1 if unit else 2}f}"
    return pd.DataFrame(rows.values()).fillna("-")


def write_uncertainty(table: Uncertainty, folder: Path) -> list[Path]:
    """Write table7.csv (joint by joint), .tex (their means) and .json (the flat records)."""
    paths = [folder / f"table{NUMBER}{suffix}" for suffix in (".csv", ".tex", ".json")]
    write_text(paths[0], frame(table, joints=True).to_csv(index=False, lineterminator="\n"))
    shown = frame(table, joints=False).map(latex_text)
    shown.columns = [latex_text(name) for name in shown.columns]
    text = shown.to_latex(
        index=False,
        escape=False,
        caption=latex_text(" ".join([CAPTION, *table.notices])),
        label=f"tab:hmdiff{NUMBER}",
        column_format="l" + "r" * (len(shown.columns) - 1),
    )
    write_text(paths[1], text)
    write_json(paths[2], [asdict(record) for record in table.records])
    return paths


def _row(
    row: str, summary: Summary, folder: Path, params: Params, commit: str | None
) -> list[Record]:
    error, spread = _arrays(folder, summary)
    resamples, seed = params.evaluation.bootstrap, params.seed
    distance = MILLIMETRES * np.linalg.norm(error, axis=-1)
    width = MILLIMETRES * np.sqrt(3) * spread
    # metric -> unit, values (n, P) whose means are shown
    averaged = {"Spread": ("mm", width), "Error": ("mm", distance)}
    scales = {"": 1.0, " recalibrated": summary.spread_scale}
    for level in LEVELS:
        for name, scale in scales.items():
            if scale is not None:
                values = covered(error, spread, level, scale)
                averaged[f"Coverage {level:.0%}{name}"] = ("1", values)
    cells = {
        metric: (unit, values.mean(axis=0), mean_interval(values.mean(axis=1), resamples, seed))
        for metric, (unit, values) in averaged.items()
    }
    for name, function in (("pearson", pearson), ("spearman", spearman)):
        interval = correlation_interval(width, distance, name, resamples, seed)
        cells[name.title()] = ("1", function(width, distance), interval)
    if summary.spread_scale is not None:
        # One for all joints; its own chance is in no interval.
        cells["Scale"] = ("1", np.array([summary.spread_scale]), (None, None))
    common = {
        "table": NUMBER, "row": row, "dataset": summary.dataset, "source": summary.source,
        "n": summary.n, "chains": summary.chains, "seeds": summary.seeds[:1], "commit": commit,
    }  # fmt: skip
    order = ["Spread", "Error", "Pearson", "Spearman"]
    records = []
    for metric in [*order, *(name for name in cells if name not in order)]:
        unit, values, (low, high) = cells[metric]
        found = {ALL: (float(values.mean()), low, high)}
        if len(values) > 1:
            found |= {
                joint: (float(value), None, None)
                for joint, value in zip(summary.protocol.joints, values, strict=True)
            }
        records += [
            Record(
                **common, joint=joint, metric=metric, unit=unit, measured=value,
                ci_low=below, ci_high=above,
            )
            for joint, (value, below, above) in found.items()
        ]  # fmt: skip
    return records


def _arrays(folder: Path, summary: Summary) -> tuple[np.ndarray, np.ndarray]:
    """joint_error (n, P, 3) and joint_spread (n, P), metres."""
    path = folder / "predictions.npz"
    remedy = f"run `dvc repro evaluate@{summary.evaluation}`"
    shape = (summary.n, len(summary.protocol.joints))
    try:
        with np.load(path) as arrays:
            error, spread = (
                arrays[name].astype(np.float64) for name in ("joint_error", "joint_spread")
            )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except ARRAY_DAMAGE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: missing or damaged ({reason}); {remedy}") from None
    if error.shape != (*shape, 3) or spread.shape != shape:
        raise UserError(f"{path}: joint_spread: is {spread.shape}, not {shape}; {remedy}")
    if summary.chains < 2 or not (spread > 0).any():
        raise UserError(
            f"{path}: joint_spread: Table {NUMBER} needs chains that differ, and "
            f"{summary.evaluation} has {summary.chains}; set reverse.chains to 2 or more"
        )
    return error, spread
