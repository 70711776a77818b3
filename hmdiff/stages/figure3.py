"""Stage ``figure3``: the chains along the reverse process, as t-SNE and as curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hmdiff.evaluation.inputs import opened
from hmdiff.evaluation.items import find_evaluation, protocol_of
from hmdiff.figures.process import curves, draw_process, embedding, trace
from hmdiff.figures.record import EVALUATION, origin, write_figure
from hmdiff.params import Params
from hmdiff.tracking import Run


def run(
    model: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Write ``out``/figure3.png, .csv (the curves) and .json; log one run a process.

    Args:
        model: folder of the trained experiment of the evaluation 3dpw_dat.
        features, prepared: files of its data set; only test rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: an input is missing, damaged or of another experiment.
    """
    what = find_evaluation(EVALUATION, params)
    settings = params.figures
    with opened(
        what.experiment, protocol_of(f"evaluations.{EVALUATION}", what), "test",
        settings.process_images, params=params,
        model=model, features=features, prepared=prepared, body=body, sampling=sampling,
    ) as inputs:  # fmt: skip
        reverse = params.reverse.model_copy(update={"chains": settings.process_chains})
        rows = inputs.loaded()
        traced = trace(inputs.predictor, rows, reverse, settings.process_steps, params.seed)
        truth = rows.coarse.numpy()
        source, where, images = inputs.source, origin(inputs), len(rows)
    curve, points = curves(traced, truth), embedding(traced, truth[0], params.seed)
    caption = (
        f"Figure 3. {reverse.chains} chains in {settings.process_steps} steps from the same noise. "
        f"{where} t-SNE of coarse meshes: one image, all three processes in one embedding, "
        f"lines join the steps of a chain, the star is the truth. Curves: means over {images} "
        "images and all chains, on coarse meshes."
    )
    figure = draw_process(curve, points, caption)
    write_figure("figure3", out, figure, curve, caption, source, params, list(_runs(curve, source)))


def _runs(curve: pd.DataFrame, source: str) -> list[Run]:
    """One run a process, its curves by steps done."""
    found = []
    for name, lines in curve.groupby("process", sort=False):
        columns = lines.columns.drop(["process", "step"])
        history = {
            column: list(zip(lines["step"].tolist(), lines[column].tolist(), strict=True))
            for column in columns
        }
        tags = {"figure": "figure3", "process": name, "source": source}
        found.append(Run(f"{name} ({source})", history=history, tags=tags))
    return found
