"""params.yaml as checked records: an unknown key or a value out of range is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hmdiff.errors import UserError

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Heads = Literal[1, 2, 4, 8, 16, 32, 64, 128]  # divisors of a token's 128 numbers


class Section(BaseModel):
    """A part of params.yaml. Unknown keys are errors; records are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Compute(Section):
    device: str
    precision: Literal["bf16", "fp32"]
    threads: Count
    threads_alone: Count
    workers: Whole


class BodyModelParams(Section):
    shape_samples: Annotated[int, Field(ge=20)]
    pose_samples: Annotated[int, Field(ge=8)]
    detail: Positive
    stiffness: NotNegative
    regressor_candidates: Annotated[int, Field(ge=10)]


class MeshSamplingParams(Section):
    levels: tuple[Count, ...]
    quadric_poses: Whole
    stiffness: NotNegative
    neighbours: Annotated[int, Field(ge=3)]
    noise: Positive
    fit_meshes: Annotated[int, Field(ge=8)]
    test_meshes: Count

    @model_validator(mode="after")
    def _falling(self) -> MeshSamplingParams:
        if not self.levels or list(self.levels) != sorted(set(self.levels), reverse=True):
            raise ValueError("levels must be falling vertex counts")
        return self


class StandInParams(Section):
    train: Count
    test: Count
    yaw: Annotated[float, Field(ge=0, le=180)]
    workers: Count


class BodyStandInParams(StandInParams):
    val: Count
    frame: Annotated[int, Field(ge=64, le=2048)]
    frames: Count


class Human36MStandIn(BodyStandInParams):
    layout: Literal["human36m"]
    box: Annotated[float, Field(ge=1)]


class ThreeDPWStandIn(BodyStandInParams):
    layout: Literal["3dpw"]
    pairs: Unit
    occluders: Unit


class FreiHandStandIn(StandInParams):
    layout: Literal["freihand"]
    versions: Count
    occluders: Unit


AnyStandIn = Annotated[
    Human36MStandIn | ThreeDPWStandIn | FreiHandStandIn, Field(discriminator="layout")
]


class PrepareParams(Section):
    size: Annotated[int, Field(ge=32, le=1024)]
    quality: Annotated[int, Field(ge=1, le=100)]
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"]
    workers: Count


class ExtractorParams(Section):
    backbone: str
    pretrained: Path | None
    image_size: Annotated[int, Field(ge=56, multiple_of=56)]
    channels: tuple[Count, Count, Count]
    half_extent: Positive
    samples: Count
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NotNegative
    warmup: Whole
    clip: Positive
    target_sigma: Positive
    l1_weight: NotNegative
    colour_gain: Unit
    colour_offset: Unit
    mirror: Unit
    validations: Count


class PriorParams(Section):
    draws: Count


class ScaleParams(Section):
    """Model units per metre."""

    body: Positive
    hand: Positive


class DiffusionParams(Section):
    steps: Count
    schedule: Literal["linear_alpha", "linear_beta", "cosine"]
    alpha_first: Annotated[float, Field(gt=0, lt=1)]
    alpha_last: Annotated[float, Field(gt=0, lt=1)]
    parametrisation: Literal["edm", "noise", "h0", "v"]
    sigma_data: Positive
    scale: ScaleParams


class DenoiserParams(Section):
    self_heads: Heads
    cross_heads: Heads
    feedforward: Whole
    adjacency_mask: bool


class TrainingParams(Section):
    samples: Count
    batch: Count
    learning_rate: Positive
    weight_decay: NotNegative
    warmup: Whole
    ema: Annotated[float, Field(ge=0, lt=1)]
    clip: Positive
    lambda_v: NotNegative
    lambda_j: NotNegative
    lambda_n: NotNegative
    lambda_e: NotNegative
    lambda_diff: NotNegative
    upsampler_samples: Whole
    upsampler_learning_rate: Positive
    ridge: Annotated[tuple[NotNegative, ...], Field(min_length=1)]


class ReverseParams(Section):
    eta: Unit
    chains: Count
    gamma: NotNegative
    threshold: NotNegative
    reduction: Literal["sum", "mean"]
    gap: Literal["h0", "raw", "excess"]
    gradient: Literal["through_g", "frozen"]
    peak_weight: Literal["equal", "as_printed"]
    disrupted_reduction: Literal["sum", "mean"]


class EvaluationParams(Section):
    samples: Count | None
    selection_samples: Count | None
    selection_tolerance: NotNegative
    bootstrap: Count


class SpeedParams(Section):
    repeats: Count
    warmup: Count
    chains: Count
    steps: Count


class ExperimentParams(Section):
    kind: Literal["body", "hand"]
    model: Literal["diffusion", "direct", "linear"]
    condition: Literal["image", "pose", "both"]
    depth: Whole
    features: Path

    @model_validator(mode="after")
    def _deep_enough(self) -> ExperimentParams:
        if self.depth == 0 and self.model != "linear":
            raise ValueError(f"depth must be 1 or more, for the model is {self.model}")
        return self


class MethodParams(Section):
    experiment: str
    kind: Literal["body", "hand"]
    dataset: str
    guidance: Literal["none", "dat", "disrupted"]
    candidates: Annotated[tuple[Count, ...], Field(min_length=1)]


class EvaluationItem(Section):
    method: str
    experiment: str
    kind: Literal["body", "hand"]
    dataset: str
    guidance: Literal["none", "dat", "disrupted"]
    start: Literal["noise", "prior"]
    prior: Literal["draws", "peak"]
    activation: bool


class DatasetParams(Section):
    kind: Literal["body", "hand"]


class Human36MDataset(DatasetParams):
    layout: Literal["human36m"]
    kind: Literal["body"]
    crop: Positive
    frame_step: Count
    test_camera: Annotated[int, Field(ge=1, le=4)]
    val_subjects: tuple[Literal[1, 5, 6, 7, 8], ...]
    fit_limit: Positive

    @model_validator(mode="after")
    def _some_train(self) -> Human36MDataset:
        if len(set(self.val_subjects)) != len(self.val_subjects) or len(self.val_subjects) == 5:
            raise ValueError("val_subjects must be distinct and leave a training subject")
        return self


class ThreeDPWDataset(DatasetParams):
    layout: Literal["3dpw"]
    kind: Literal["body"]
    crop: Positive


class FreiHandDataset(DatasetParams):
    layout: Literal["freihand"]
    kind: Literal["hand"]
    crop: Positive
    held_out: Count


AnyDataset = Annotated[
    Human36MDataset | ThreeDPWDataset | FreiHandDataset, Field(discriminator="layout")
]


class Params(Section):
    """The whole of params.yaml."""

    preset: str
    seed: Whole
    compute: Compute
    body_models: dict[Literal["smpl", "mano"], BodyModelParams]
    mesh_sampling: dict[Literal["smpl", "mano"], MeshSamplingParams]
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
    path = Path(path)
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run hmdiff in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({reason}); mend or restore it") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path}: {key}: {first['msg']} (found {first['input']!r}); mend the value"
        ) from None
