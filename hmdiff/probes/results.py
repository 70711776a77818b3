"""What a probe found: one record a regression and data set, and one MLflow run a regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.files import write_json, write_text
from hmdiff.params import Params
from hmdiff.params.probes import ProbeParams
from hmdiff.probes.rows import Probed
from hmdiff.tracking import Run, dotted

SPLIT = "val"
METRIC = "MPVE"  # of the coarse mesh, root-relative
ABOUT = "Regressions from the frozen features to the coarse mesh, measured on validation images."
MM = 1000.0


@dataclass(frozen=True)
class Record:
    """One regression on one data set, as results/probes/NAME.json lists it; millimetres.

    Attributes:
        form: ``linear`` or ``kernel`` (ridge regression).
        training: mean over the rows of all data sets that it was fitted to.
        measured, ci_low, ci_high: mean over validation images and its 95 % bootstrap interval.
        difference: mean of the images' differences to the control, the first regression, with its
            paired 95 % interval; None of the control itself.
        chosen: penalty and width with the least error on training rows that were held out.
    """

    probe: str
    inputs: str
    form: str
    control: bool
    dataset: str
    source: str
    split: str
    metric: str
    unit: str
    training: float
    measured: float
    ci_low: float
    ci_high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    n: int
    chosen: dict[str, float]
    commit: str | None


def records(
    name: str,
    found: Sequence[Probed],
    parts: Mapping[str, Tensor],
    sources: Mapping[str, str],
    params: Params,
    commit: str | None,
) -> list[Record]:
    """The records of all regressions; ``parts`` says which validation rows are of each data set."""

    def interval(values: Tensor, name: str, ends: str) -> dict[str, float]:
        numbers = values.double().numpy() * MM
        low, high = mean_interval(numbers, params.evaluation.bootstrap, params.seed)
        return {name: float(numbers.mean()), f"{ends}_low": low, f"{ends}_high": high}

    made = []
    for one in found:
        for dataset, rows in parts.items():
            errors, control = one.validation[rows], found[0].validation[rows]
            difference = dict.fromkeys(("difference", "difference_low", "difference_high"))
            if one is not found[0]:
                difference = interval(errors - control, "difference", "difference")
            made.append(
                Record(
                    probe=name, inputs=one.row.name, form=one.row.form, control=one is found[0],
                    dataset=dataset, source=sources[dataset], split=SPLIT, metric=METRIC, unit="mm",
                    training=one.training.double().mean().item() * MM,
                    **interval(errors, "measured", "ci"), **difference,
                    n=len(rows), chosen=one.chosen, commit=commit,
                )
            )  # fmt: skip
    return made


def table(found: Sequence[Record]) -> pd.DataFrame:
    """One row a regression, with each data set's mean and difference."""
    rows: dict[tuple[str, str], dict] = {}
    for record in found:
        row = rows.setdefault(
            (record.inputs, record.form),
            {"inputs": record.inputs, "regression": record.form, "training": record.training},
        )
        row |= {
            record.dataset: record.measured,
            f"{record.dataset} low": record.ci_low,
            f"{record.dataset} high": record.ci_high,
            f"{record.dataset} difference": record.difference,
            f"{record.dataset} difference low": record.difference_low,
            f"{record.dataset} difference high": record.difference_high,
        }
    return pd.DataFrame(list(rows.values()))


def write_probe(found: Sequence[Record], out: Path) -> list[Path]:
    """Write ``out``/NAME.csv and .json (the records)."""
    paths = [out / f"{found[0].probe}{suffix}" for suffix in (".csv", ".json")]
    text = table(found).to_csv(index=False, float_format="%.3f", lineterminator="\n")
    write_text(paths[0], text)
    write_json(paths[1], [asdict(record) for record in found])
    return paths


def probe_run(
    what: ProbeParams, params: Params, found: Sequence[Record], note: str, files: Sequence[Path]
) -> Run:
    """The runs of a probe: the files in a parent, and one child a regression."""
    one = found[0]
    tags = {
        "probe": one.probe, "split": one.split, "source": one.source,
        "commit": one.commit or "unknown",
    }  # fmt: skip
    settings = {"preset": params.preset, "seed": params.seed, "probes": what}
    children = []
    for inputs, form in dict.fromkeys((record.inputs, record.form) for record in found):
        mine = [record for record in found if (record.inputs, record.form) == (inputs, form)]
        metrics = {"training": mine[0].training}
        for record in mine:
            metrics[f"{record.dataset} {METRIC}"] = record.measured
            if record.difference is not None:
                metrics[f"{record.dataset} difference"] = record.difference
                metrics[f"{record.dataset} difference low"] = record.difference_low
                metrics[f"{record.dataset} difference high"] = record.difference_high
        chosen = {f"chosen.{key}": value for key, value in mine[0].chosen.items()}
        children.append(
            Run(
                name=f"{inputs}, {form} ({one.source})",
                description=note,
                params=dict(dotted("", settings)) | chosen,
                metrics=metrics,
                tags=tags | {"inputs": inputs, "form": form},
            )
        )
    title = f"probe {one.probe} ({one.source}, preset {params.preset})"
    return Run(title, tags=tags, description=note, artifacts=files, children=children)
