"""What a sweep found: one flat record a value and metric, with the difference to the configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.evaluation.protocols import UNITS, Protocol
from hmdiff.files import write_json, write_text
from hmdiff.params import Params
from hmdiff.params.sweeps import SweepParams, Value
from hmdiff.sweeps.settings import Setting

SPLIT = "val"


@dataclass(frozen=True)
class Measured:
    """The validation images as one value recovers them.

    Attributes:
        errors: (n,) a metric; empty where the value diverged.
        chains: of every image, 1 without a reverse process.
        active_steps: mean number of steps with DAT; None, like ``chains``, of what diverged.
        failure: why there are no errors.
    """

    errors: Mapping[str, np.ndarray]
    chains: int | None = None
    active_steps: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Record:
    """One metric of one value, as results/sweeps/NAME.json lists it.

    Attributes:
        measured, ci_low, ci_high: mean over the images and its 95 % bootstrap interval.
        difference: mean of the images' differences to the configured value, with its paired 95 %
            interval; None of the configured value itself.
        failure: why nothing was measured: the value diverged.
    """

    sweep: str
    parameter: str
    value: Value
    configured: bool
    method: str
    experiment: str
    dataset: str
    source: str
    split: str
    metric: str
    primary: bool
    unit: str
    measured: float | None
    ci_low: float | None
    ci_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    n: int
    seeds: list[int]
    steps: int
    chains: int | None
    active_steps: float | None
    failure: str | None
    commit: str | None


def records(
    name: str,
    sweep: SweepParams,
    tried: Sequence[tuple[Setting, Measured]],
    protocol: Protocol,
    source: str,
    commit: str | None,
) -> list[Record]:
    """The records of all values, in their order; of each value the primary metric's first."""
    (reference,) = (measured for setting, measured in tried if setting.configured)
    metrics = [protocol.primary, *(m for m in protocol.metrics if m != protocol.primary)]
    shared = {
        "sweep": name, "parameter": sweep.parameter, "method": sweep.method,
        "experiment": sweep.experiment, "dataset": sweep.dataset, "source": source,
        "split": SPLIT, "commit": commit,
    }  # fmt: skip
    found = []
    for setting, measured in tried:
        params = setting.params
        for metric in metrics:
            errors, others = measured.errors.get(metric), reference.errors.get(metric)
            difference = None
            if not setting.configured and errors is not None and others is not None:
                difference = errors - others
            found.append(
                Record(
                    **shared,
                    value=setting.value,
                    configured=setting.configured,
                    metric=metric,
                    primary=metric == protocol.primary,
                    unit=UNITS.get(metric, "1"),
                    **_interval(errors, "measured", "ci", params),
                    **_interval(difference, "difference", "difference", params),
                    n=0 if errors is None else len(errors),
                    seeds=[params.seed],
                    steps=setting.steps,
                    chains=measured.chains,
                    active_steps=measured.active_steps,
                    failure=measured.failure,
                )
            )
    return found


def _interval(
    values: np.ndarray | None, name: str, ends: str, params: Params
) -> dict[str, float | None]:
    """The fields of a record that the mean of ``values`` and its interval fill."""
    mean = low = high = None
    if values is not None:
        mean = float(values.mean())
        low, high = mean_interval(values, params.evaluation.bootstrap, params.seed)
    return {name: mean, f"{ends}_low": low, f"{ends}_high": high}


def table(found: Sequence[Record]) -> pd.DataFrame:
    """One row a value: its means with their intervals, and the primary metric's difference."""
    rows: dict[Value, dict] = {}
    for record in found:
        row = rows.setdefault(
            record.value,
            {record.parameter: str(record.value), "configured": record.configured, "n": record.n},
        )
        row[record.metric] = record.measured
        row[f"{record.metric} low"], row[f"{record.metric} high"] = record.ci_low, record.ci_high
        if record.primary:
            row["difference"] = record.difference
            row["difference low"] = record.difference_low
            row["difference high"] = record.difference_high
    for record in found:
        rows[record.value] |= {
            "steps": record.steps, "chains": record.chains,
            "active steps": record.active_steps, "failure": record.failure,
        }  # fmt: skip
    return pd.DataFrame(list(rows.values()))


def write_sweep(found: Sequence[Record], out: Path) -> list[Path]:
    """Write ``out``/NAME.csv and .json (the records)."""
    paths = [out / f"{found[0].sweep}{suffix}" for suffix in (".csv", ".json")]
    text = table(found).to_csv(index=False, float_format="%.6f", lineterminator="\n")
    write_text(paths[0], text)
    write_json(paths[1], [asdict(record) for record in found])
    return paths
