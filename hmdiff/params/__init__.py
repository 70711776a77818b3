"""params.yaml as checked records: an unknown key or a value out of range is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hmdiff.errors import UserError
from hmdiff.params.base import Section, Whole
from hmdiff.params.data import AcquireParams, AnyDataset, AnyStandIn, PrepareParams
from hmdiff.params.models import (
    BodyModelParams,
    DenoiserParams,
    DiffusionParams,
    ExperimentParams,
    ExtractorParams,
    MeshSamplingParams,
    PriorParams,
    TrainingParams,
)
from hmdiff.params.runs import (
    Compute,
    EvaluationItem,
    EvaluationParams,
    MethodParams,
    PredictParams,
    ReverseParams,
    SpeedParams,
)


class Params(Section):
    """The whole of params.yaml."""

    preset: str
    seed: Whole
    compute: Compute
    body_models: dict[Literal["smpl", "mano"], BodyModelParams]
    mesh_sampling: dict[Literal["smpl", "mano"], MeshSamplingParams]
    acquire: AcquireParams
    standins: dict[str, AnyStandIn]
    prepare: PrepareParams
    extractor: dict[Literal["body", "hand"], ExtractorParams]
    prior: PriorParams
    diffusion: DiffusionParams
    denoiser: DenoiserParams
    training: TrainingParams
    reverse: ReverseParams
    evaluation: EvaluationParams
    speed: SpeedParams
    predict: PredictParams
    experiments: dict[str, ExperimentParams]
    methods: dict[str, MethodParams]
    evaluations: dict[str, EvaluationItem]
    datasets: dict[str, AnyDataset]


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check ``params.yaml``.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown or missing, or a value is
            out of range; the line names the file, the key and what is allowed.
    """
    raw = read_yaml(path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path}: {key}: {first['msg']} (found {first['input']!r}); mend the value"
        ) from None


def read_yaml(path: str | Path) -> Any:
    """Read YAML; a missing or broken file is a :class:`UserError` that names it."""
    path = Path(path)
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run hmdiff in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({reason}); mend or restore it") from None
