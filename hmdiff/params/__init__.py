"""params.yaml as checked records: an unknown key or a value out of range is one clear line."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as brief
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
    FeaturesParams,
    FinetuneParams,
    MeshSamplingParams,
    PriorParams,
    TrainingParams,
)
from hmdiff.params.probes import ProbeParams, check_probes
from hmdiff.params.runs import (
    CheckpointParams,
    Compute,
    EvaluationItem,
    EvaluationParams,
    FiguresParams,
    MemoryParams,
    MethodParams,
    PredictParams,
    ReverseParams,
    SpeedParams,
)
from hmdiff.params.sweeps import SweepParams, check_sweeps

# Besides its own errors: of a date or a number that is none, of odd tags, of thousands of brackets.
_NOT_YAML = (
    YAMLError, ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError,
    RecursionError,
)  # fmt: skip


class Params(Section):
    """The whole of params.yaml."""

    preset: str
    seed: Whole
    compute: Compute
    checkpoint: CheckpointParams
    memory: MemoryParams
    body_models: dict[Literal["smpl", "mano"], BodyModelParams]
    mesh_sampling: dict[Literal["smpl", "mano"], MeshSamplingParams]
    acquire: AcquireParams
    standins: dict[str, AnyStandIn]
    prepare: PrepareParams
    extractor: dict[Literal["body", "hand"], ExtractorParams]
    features: FeaturesParams
    prior: PriorParams
    diffusion: DiffusionParams
    denoiser: DenoiserParams
    training: TrainingParams
    reverse: ReverseParams
    evaluation: EvaluationParams
    speed: SpeedParams
    figures: FiguresParams
    predict: PredictParams
    experiments: dict[str, ExperimentParams]
    finetunes: dict[str, FinetuneParams]
    methods: dict[str, MethodParams]
    evaluations: dict[str, EvaluationItem]
    sweeps: dict[str, SweepParams]
    probes: dict[str, ProbeParams]
    datasets: dict[str, AnyDataset]

    @property
    def trained(self) -> dict[str, ExperimentParams | FinetuneParams]:
        """All that is trained and can be evaluated, by name."""
        return {**self.experiments, **self.finetunes}


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check ``params.yaml``.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown or missing, or a value is
            out of range; the line names the file, the key and what is allowed.
    """
    raw = read_yaml(path)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        # Of a key that is missing, pydantic's input is the whole section.
        found = "" if first["type"] == "missing" else f" (found {brief(first['input'])})"
        raise UserError(f"{path}: {key}: {first['msg']}{found}; mend the value") from None
    check_training(params, path)
    check_methods(params, path)
    check_sweeps(params, path)
    check_probes(params, path)
    return params


def check_methods(params: Params, path: str | Path = "params.yaml") -> None:
    """Make sure that what methods change of the section ``reverse`` can be.

    Raises:
        UserError: one of them changes a field that there is not, or gives it a wrong value.
    """
    for name, item in params.methods.items():
        try:
            params.reverse.changed(item.reverse)
        except ValueError as error:
            raise UserError(f"{path}: methods.{name}.reverse: {error}; mend it") from None


def check_training(params: Params, path: str | Path = "params.yaml") -> None:
    """Make sure that extractors, experiments and fine-tunings name what there is.

    Raises:
        UserError: one of them names a data set or an experiment that is missing, is of another
            kind, or cannot be fine-tuned.
    """
    extractors = {name: (name, item.datasets) for name, item in params.extractor.items()}
    experiments, finetunes = (
        {name: (item.kind, item.datasets) for name, item in section.items()}
        for section in (params.experiments, params.finetunes)
    )
    sections = {"extractor": extractors, "experiments": experiments, "finetunes": finetunes}
    for section, entries in sections.items():
        for name, (kind, datasets) in entries.items():
            known = [key for key, item in params.datasets.items() if item.kind == kind]
            for dataset in datasets:
                if dataset not in known:
                    raise UserError(
                        f"{path}: {section}.{name}.datasets: {dataset!r} is no data set of kind "
                        f"{kind}; take of {', '.join(known)}"
                    )
    for name, item in params.finetunes.items():
        base = params.experiments.get(item.base)
        if base is None or base.kind != item.kind or base.model == "linear":
            raise UserError(
                f"{path}: finetunes.{name}.base: {item.base!r} is no diffusion or direct "
                f"experiment of kind {item.kind}; name one"
            )
        if name in params.experiments:
            raise UserError(
                f"{path}: finetunes.{name}: an experiment has this name too; take another"
            )


def read_yaml(path: str | Path, yaml: YAML | None = None) -> Any:
    """Read YAML; a missing or broken file is a :class:`UserError` that names it.

    Args:
        yaml: what reads it, where that is not ruamel's safe and fast reader.
    """
    path = Path(path)
    try:
        return (yaml or YAML(typ="safe")).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run hmdiff in the project's folder") from None
    except _NOT_YAML as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({reason}); mend or restore it") from None
