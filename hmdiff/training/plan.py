"""What one run of the train stage does: an experiment from nothing, or a fine-tuning of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmdiff.errors import UserError
from hmdiff.params import Params
from hmdiff.params.models import DenoiserParams, DiffusionParams, ExperimentParams, TrainingParams
from hmdiff.training.folder import TrainedModel, load_model


@dataclass(frozen=True)
class Plan:
    """Parameters of one training."""

    name: str
    experiment: ExperimentParams
    diffusion: DiffusionParams
    denoiser: DenoiserParams
    training: TrainingParams
    datasets: Mapping[str, float]  # the mixture: data sets and their weights
    start: TrainedModel | None = None  # whose networks are trained further
    notes: dict[str, Any] = field(default_factory=dict)  # provenance, for the reader


def make_plan(name: str, base: Path | None, params: Params) -> Plan:
    """The training ``name``: of ``params.experiments`` without ``base``, else of ``finetunes``.

    Args:
        base: model folder of the experiment that is fine-tuned. It keeps its architecture and
            diffusion, whatever params.yaml says of them now.

    Raises:
        UserError: there is no such training, or ``base`` is damaged or of another experiment.
    """
    section, entries = (
        ("experiments", params.experiments) if base is None else ("finetunes", params.finetunes)
    )
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise UserError(f"params.yaml: {section}: has no {name!r}; take one of {known}")
    if base is None:
        what, training = params.experiments[name], params.training
        if what.learning_rate is not None:
            training = training.model_copy(update={"learning_rate": what.learning_rate})
        return Plan(name, what, params.diffusion, params.denoiser, training, what.datasets)
    settings = params.finetunes[name]
    start = load_model(base)
    recipe = start.recipe
    if recipe.experiment.model == "linear" or recipe.experiment.kind != settings.kind:
        raise UserError(
            f"{base}: is a {recipe.experiment.model} model of kind {recipe.experiment.kind}, which "
            f"finetunes.{name} cannot start from; give the folder of {settings.base}"
        )
    own = {key: getattr(settings, key) for key in ("samples", "learning_rate", "warmup")}
    return Plan(
        name,
        recipe.experiment,
        recipe.diffusion,
        recipe.denoiser,
        params.training.model_copy(update=own),
        settings.datasets,
        start,
        {"base": settings.base},
    )
