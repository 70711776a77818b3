"""Stage ``figure2``: predictions over images, from the side, and where the chains disagree."""

from __future__ import annotations

from pathlib import Path

from hmdiff.evaluation.inputs import opened
from hmdiff.evaluation.items import find_evaluation, protocol_of
from hmdiff.evaluation.selection import read_selected
from hmdiff.figures.predictions import draw_predictions, numbers, predict_shown
from hmdiff.figures.record import EVALUATION, origin, write_figure
from hmdiff.params import Params


def run(
    model: Path,
    steps: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Write ``out``/figure2.png, .csv and .json.

    Args:
        model: folder of the trained experiment of the evaluation 3dpw_dat.
        steps: number of reverse steps of its method (select_steps).
        features, prepared: files of its data set; only test rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: an input is missing, damaged or of another experiment.
    """
    what = find_evaluation(EVALUATION, params)
    selected = read_selected(steps, what.method)
    count, params = selected.steps, selected.params(params)
    with opened(
        what.experiment, protocol_of(f"evaluations.{EVALUATION}", what), "test",
        params.figures.images, params=params,
        model=model, features=features, prepared=prepared, body=body, sampling=sampling,
    ) as inputs:  # fmt: skip
        shown = predict_shown(inputs, steps=count, guidance=what.guidance)
        source, where = inputs.source, origin(inputs)
        faces = inputs.body.faces
    caption = (
        f"Figure 2. HMDiff with DAT, {params.reverse.chains} chains of {count} steps. {where} "
        "Spread: root mean square distance of the chains from their mean, a vertex; error: "
        "distance of the mean from the truth. Images are evenly spaced over the test set, none "
        "was chosen."
    )
    if source == "real":
        caption += " Real images are left out: their licences forbid to pass them on."
    figure = draw_predictions(shown, faces, caption)
    write_figure("figure2", out, figure, numbers(shown), caption, source, params)
