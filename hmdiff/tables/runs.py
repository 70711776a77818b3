"""A table as MLflow runs: the files in a parent, and one child a measured row and data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmdiff.dvclock import recorded_hashes
from hmdiff.params import Params
from hmdiff.tables import uncertainty
from hmdiff.tables.build import Record, Table
from hmdiff.tables.measured import Summary
from hmdiff.tables.paper import dataset_title
from hmdiff.tables.uncertainty import Uncertainty
from hmdiff.tracking import Input, Run, dotted


def table_run(table: Table, files: Sequence[Path], params: Params) -> Run:
    """The runs of ``table``; ``files`` become artifacts of the parent.

    Each child has the parameters that its evaluation depends on, its means with the ends of
    their intervals, the differences to the table's reference row, the data set that it was tested
    on, and the tags table, row, method, dataset, source, commit and a verdict a metric.
    """
    name = f"table{table.paper.number}"
    note = " ".join([table.paper.caption, *table.notices])
    hashes = recorded_hashes()
    sources = sorted({part.source for part in [*table.summaries.values(), table.speed] if part})
    tags = {"table": name, "source": ",".join(sources), "commit": table.commit or "unknown"}
    children = [
        Run(
            name=f"{row}, {dataset_title(dataset)} ({records[0].source})",
            description=note,
            command=f"dvc repro {name}",
            inputs=tested_on(evaluation, params, hashes) if evaluation else [],
            params=_params(table, evaluation, params),
            metrics=_metrics(records),
            tags=tags
            | {
                "row": row,
                "method": table.summaries[evaluation].method if evaluation else row,
                "dataset": dataset,
                "source": records[0].source,
            }
            | {f"verdict {record.metric}": record.verdict for record in records if record.verdict},
        )
        for row, dataset, evaluation, records in _rows(table)
    ]
    title = f"Table {table.paper.number} ({', '.join(sources)}, preset {params.preset})"
    return Run(
        title, tags=tags, description=note, command=f"dvc repro {name}", artifacts=files,
        children=children,
    )  # fmt: skip


def tested_on(evaluation: str, params: Params, hashes: Mapping[str, str]) -> list[Input]:
    """The data set that was tested on, by the hash that DVC has of its prepared file."""
    item = params.evaluations[evaluation]
    path = Path("data/prepared", item.kind, f"{item.dataset}.h5")
    digest = hashes.get(path.as_posix())
    return [Input(item.dataset, digest, path, "testing")] if digest else []


def _rows(table: Table) -> Iterator[tuple[str, str, str | None, list[Record]]]:
    """(row, data set, evaluation, its records) of all that was measured."""
    for row, names in table.paper.measured.items():
        for dataset in dict.fromkeys(column.dataset for column in table.paper.columns):
            cells = [table.records.get((row, column)) for column in table.paper.columns]
            records = [
                cell for cell in cells if cell and cell.dataset == dataset and not cell.quoted
            ]
            if records:
                yield row, dataset, names.get(dataset), records


def _intervals(records: Iterable[Record | uncertainty.Record]) -> dict[str, float]:
    """Means with the ends of their intervals."""
    metrics = {}
    for record in records:
        metrics[record.metric] = record.measured
        if record.ci_low is not None:
            metrics |= {f"{record.metric} low": record.ci_low}
            metrics |= {f"{record.metric} high": record.ci_high}
    return metrics


def _metrics(records: list[Record]) -> dict[str, float]:
    metrics = _intervals(records)
    for record in records:
        if record.verdict:
            metrics[f"{record.metric} difference"] = record.difference
            metrics[f"{record.metric} difference low"] = record.difference_low
            metrics[f"{record.metric} difference high"] = record.difference_high
    return metrics


def _params(table: Table, evaluation: str | None, params: Params) -> dict[str, Any]:
    """What the row's numbers depend on in params.yaml, by dotted key, and what was run."""
    summary = table.summaries[evaluation] if evaluation else None
    speed = {}
    if table.speed is not None:
        speed = {"speed": params.speed, "machine": table.speed.machine}
    return evaluation_params(summary, params) | dict(dotted("", speed))


def evaluation_params(summary: Summary | None, params: Params) -> dict[str, Any]:
    """What an evaluation depends on in params.yaml, by dotted key, and what was run."""
    sections: dict[str, Any] = {
        "preset": params.preset, "seed": params.seed, "compute": params.compute,
    }  # fmt: skip
    if summary is None:
        return dict(dotted("", sections))
    item = params.evaluations[summary.evaluation]
    sections |= {
        "evaluations": item,
        "experiments": params.trained[item.experiment],
        "extractor": params.extractor[item.kind],
        "prior": params.prior,
        "diffusion": params.diffusion,
        "denoiser": params.denoiser,
        "training": params.training,
        "reverse": params.reverse.changed(params.methods[item.method].reverse),
        "evaluation": params.evaluation,
    }
    found = {"n": summary.n, "run.steps": summary.steps, "run.chains": summary.chains}
    return dict(dotted("", sections)) | found


def uncertainty_run(table: Uncertainty, files: Sequence[Path], params: Params) -> Run:
    """The runs of Table 7: a parent with the ``files``, and one child a row."""
    hashes = recorded_hashes()
    name, note = f"table{uncertainty.NUMBER}", " ".join([uncertainty.CAPTION, *table.notices])
    tags = {"table": name, "commit": table.commit or "unknown"}
    children = []
    for row, evaluation in table.evaluations.items():
        summary = table.summaries[evaluation]
        mine = [record for record in table.records if record.row == row]
        own = {"row": row, "method": summary.method, "dataset": summary.dataset}
        metrics = _intervals([record for record in mine if record.joint == uncertainty.ALL])
        metrics |= {
            f"{record.metric} {record.joint}": record.measured
            for record in mine
            if record.joint != uncertainty.ALL
        }
        children.append(
            Run(
                name=f"{row}, {dataset_title(summary.dataset)} ({summary.source})",
                description=note,
                inputs=tested_on(evaluation, params, hashes),
                params=evaluation_params(summary, params),
                metrics={key.replace("%", ""): value for key, value in metrics.items()},
                tags=tags | own | {"source": summary.source},
            )
        )
    sources = ",".join(sorted({summary.source for summary in table.summaries.values()}))
    title = f"Table {uncertainty.NUMBER} ({sources}, preset {params.preset})"
    return Run(
        title, tags=tags | {"source": sources}, description=note, artifacts=files,
        children=children,
    )  # fmt: skip
