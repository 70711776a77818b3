"""Sections about what is built and trained: bodies, extractor, diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hmdiff.params.base import Count, Heads, NotNegative, Positive, Section, Unit, Whole


def _listed(value: Any) -> Any:
    """A plain list of names as the mapping in which each of them has weight 1."""
    if not isinstance(value, list | tuple):
        return value
    if not all(isinstance(name, str) for name in value):
        raise ValueError("must list names of data sets, or map them to weights")
    if len(set(value)) != len(value):
        raise ValueError("names a data set twice")
    return dict.fromkeys(value, 1.0)


# What the stage pretrain_extractor depends on, and so where its weights must lie.
BACKBONES = Path("data/licensed/backbone")


def _tracked(path: Path | str | None) -> Path | str | None:
    if isinstance(path, Path) and path.parent != BACKBONES:
        raise ValueError(f"must lie in {BACKBONES}, where DVC sees a change of it")
    return path


Mixture = Annotated[dict[str, Positive], BeforeValidator(_listed), Field(min_length=1)]
"""Data sets that something is trained on, in this order, each with its weight: how often one of its
samples is seen in an epoch. A plain list gives all of them weight 1, which is concatenation."""


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


class AugmentationParams(Section):
    colour_gain: Unit
    colour_offset: Unit
    mirror: Unit
    rotation: NotNegative
    rotation_limit: Annotated[float, Field(ge=0, le=180)]
    rotation_share: Unit
    scale: NotNegative
    scale_limit: Annotated[float, Field(ge=0, lt=1)]


class ExtractorParams(Section):
    datasets: Mixture
    backbone: str
    pretrained: Annotated[Literal["imagenet"] | Path | None, AfterValidator(_tracked)]
    image_size: Annotated[int, Field(ge=56, multiple_of=56)]
    channels: tuple[Count, Count, Count]
    feature: Literal["pooled", "projected"]
    half_extent: Positive
    samples: Count
    held_out: Annotated[float, Field(ge=0, lt=1)]
    batch: Annotated[int, Field(ge=2)]
    micro_batch: Annotated[int, Field(ge=2)] | None
    learning_rate: Positive
    weight_decay: NotNegative
    warmup: Whole
    clip: Positive
    target_sigma: Positive
    l1_weight: NotNegative
    validations: Count
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _whole_parts(self) -> ExtractorParams:
        # Equal parts: BatchNorm cannot do with one image, nor should one part count more.
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch must divide the batch of {self.batch}, or be null")
        return self


class FeaturesParams(Section):
    copies: Count


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
    centre: Literal["mean", "prior"]
    scale: ScaleParams


class DenoiserParams(Section):
    self_heads: Heads
    cross_heads: Heads
    feedforward: Whole
    adjacency_mask: bool
    sees_centre: bool


class TrainingParams(Section):
    samples: Count
    repeats: Count
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


class FastMETROParams(Section):
    """Size of FastMETRO's two transformers."""

    widths: tuple[Count, Count]
    heads: Heads
    layers: Count

    @model_validator(mode="after")
    def _divisible(self) -> FastMETROParams:
        if any(width % self.heads or width % 4 for width in self.widths):
            raise ValueError(f"widths must be multiples of 4 and of the {self.heads} heads")
        return self


class ExperimentParams(Section):
    kind: Literal["body", "hand"]
    model: Literal["diffusion", "direct", "linear", "fastmetro"]
    condition: Literal["image", "pose", "both"]
    depth: Whole
    datasets: Mixture
    fastmetro: FastMETROParams | None = None
    learning_rate: Positive | None = None  # None: that of training

    @model_validator(mode="after")
    def _sized(self) -> ExperimentParams:
        if self.depth == 0 and self.model in ("diffusion", "direct"):
            raise ValueError(f"depth must be 1 or more, for the model is {self.model}")
        if (self.fastmetro is not None) != (self.model == "fastmetro"):
            raise ValueError("fastmetro gives the size of the model fastmetro, and of no other")
        if self.model == "fastmetro" and self.condition != "image":
            raise ValueError("condition must be image, for the model is fastmetro")
        return self


class FinetuneParams(Section):
    kind: Literal["body", "hand"]
    base: str
    datasets: Mixture
    samples: Count
    learning_rate: Positive
    warmup: Whole
