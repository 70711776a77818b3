"""A sweep as MLflow runs: the files in a parent, and one child a value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmdiff.dvclock import recorded_hashes
from hmdiff.params.sweeps import SweepParams
from hmdiff.sweeps.results import Record
from hmdiff.sweeps.settings import Setting
from hmdiff.tracking import Input, Run, dotted

ABOUT = "One parameter, several values, measured on validation images alone: choices are made here."


def sweep_run(
    sweep: SweepParams,
    tried: Sequence[Setting],
    found: Sequence[Record],
    note: str,
    files: Sequence[Path],
) -> Run:
    """The runs of a sweep; ``note`` says what was measured, ``files`` go into the parent."""
    one = found[0]
    path = Path("data/prepared", sweep.kind, f"{sweep.dataset}.h5")
    digest = recorded_hashes().get(path.as_posix())
    inputs = [Input(sweep.dataset, digest, path, "validation")] if digest else []
    tags = {
        "sweep": one.sweep, "parameter": one.parameter, "method": one.method, "split": one.split,
        "dataset": one.dataset, "source": one.source, "commit": one.commit or "unknown",
    }  # fmt: skip
    children = []
    for setting in tried:
        mine = [record for record in found if record.value == setting.value]
        params = setting.params
        sections = {
            "preset": params.preset, "seed": params.seed, "compute": params.compute,
            "diffusion": params.diffusion, "denoiser": params.denoiser,
            "training": params.training, "reverse": params.reverse,
            "methods": params.methods[sweep.method], "sweeps": sweep,
        }  # fmt: skip
        own = {"value": setting.value, "configured": setting.configured}
        failure = {"failure": mine[0].failure} if mine[0].failure else {}
        children.append(
            Run(
                name=f"{one.parameter} = {setting.value} ({one.source})",
                description=note,
                inputs=inputs,
                params=dict(dotted("", sections))
                | {"n": mine[0].n, "run.steps": setting.steps, "run.chains": mine[0].chains},
                metrics=_metrics(mine),
                tags=tags | own | failure,
            )
        )
    title = f"sweep {one.sweep} ({one.source}, preset {tried[0].params.preset})"
    return Run(title, tags=tags, description=note, artifacts=files, children=children)


def _metrics(found: Sequence[Record]) -> dict[str, float]:
    metrics = {}
    for record in found:
        if record.measured is None:
            continue
        numbers = {"": record.measured, " low": record.ci_low, " high": record.ci_high}
        if record.difference is not None:
            numbers |= {
                " difference": record.difference,
                " difference low": record.difference_low,
                " difference high": record.difference_high,
            }
        metrics |= {f"{record.metric}{end}": number for end, number in numbers.items()}
    return metrics
