"""Stage ``evaluate@EVALUATION``: one way of running a model, scored on test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.evaluation.protocols import Protocol, load_protocol
from hmdiff.evaluation.recovery import Recovered, recover_and_score, scorable
from hmdiff.extractor.features import read_features
from hmdiff.files import atomic_directory, read_json, write_json, write_text
from hmdiff.inference import Predictor
from hmdiff.params import Params


def run(
    evaluation: str,
    model: Path,
    steps: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Recover and score test meshes; write samples.csv, predictions.npz and summary.json to ``out``.

    Args:
        model: folder of the trained experiment.
        steps: number of reverse steps of the method (select_steps).
        features, prepared: files of the evaluation's data set; only their test rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: an input is missing or damaged, or no test image can be scored.
    """
    use_threads(params.compute.threads)
    what = params.evaluations[evaluation]
    protocol = load_protocol(what.dataset)
    rows = scorable(read_features(features, "test"), protocol, params.evaluation.samples)
    body_model = BodyModel.load(body)
    predictor = Predictor.load(
        model, body_model, MeshSampling.load(sampling),
        resolve_device(params.compute.device), params.compute.precision,
    )  # fmt: skip
    how = {
        "steps": _steps(steps),
        "guidance": what.guidance,
        "start": what.start,
        "prior": what.prior,
        "activation": what.activation,
        "seed": params.seed,
    }
    diffuses = params.experiments[what.experiment].model == "diffusion"
    with PreparedFile(prepared) as file:
        source = str(file.attrs["source"])
        recovered = recover_and_score(
            predictor, rows, file, body_model, protocol, reverse=params.reverse, **how
        )
    summary = {
        "evaluation": evaluation,
        "method": what.method,
        "dataset": what.dataset,
        "source": source,
        "n": len(rows),
        **how,
        "chains": params.reverse.chains if diffuses else 1,
        **_means(recovered.samples, protocol, params),
        "protocol": protocol.model_dump(mode="json"),
        "parameters": _parameters(evaluation, params),
    }
    _write(out, recovered, summary)
    figures = ", ".join(
        f"{name} {mean:.3g} [{summary['ci_low'][name]:.3g}, {summary['ci_high'][name]:.3g}]"
        for name, mean in summary["means"].items()
    )
    print(f"evaluate@{evaluation}: {len(rows)} {source} images, {how['steps']} steps: {figures}")


def _steps(path: Path) -> int:
    record = read_json(path)
    steps = record.get("steps") if isinstance(record, dict) else None
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"{path}: steps: not a positive number; run select_steps again")
    return steps


def _means(samples: pd.DataFrame, protocol: Protocol, params: Params) -> dict[str, Any]:
    """Means over samples with their bootstrap intervals."""
    means, low, high = {}, {}, {}
    for name in protocol.metrics:
        values = samples[name].to_numpy()
        means[name] = float(values.mean())
        ends = mean_interval(values, params.evaluation.bootstrap, params.seed)
        low[name], high[name] = ends
    active_steps = float(samples["active_steps"].mean())
    return {"means": means, "ci_low": low, "ci_high": high, "active_steps": active_steps}


def _parameters(evaluation: str, params: Params) -> dict[str, Any]:
    """What made this row, for its MLflow run."""
    what = params.evaluations[evaluation]
    sections = {
        "experiment": params.experiments[what.experiment],
        "method": params.methods[what.method],
        "extractor": params.extractor[what.kind],
        "prior": params.prior,
        "diffusion": params.diffusion,
        "denoiser": params.denoiser,
        "training": params.training,
        "reverse": params.reverse,
    }
    return {name: section.model_dump(mode="json") for name, section in sections.items()}


def _write(out: Path, recovered: Recovered, summary: dict[str, Any]) -> None:
    with atomic_directory(out) as folder:
        table = recovered.samples.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(folder / "samples.csv", table)
        np.savez(
            folder / "predictions.npz",
            sample_id=recovered.samples["sample_id"].to_numpy(dtype=np.str_),
            coarse=recovered.coarse,
        )
        write_json(folder / "summary.json", summary)
