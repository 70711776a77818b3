"""Sections about what is built and trained: bodies, extractor, diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hmdiff.params.base import Count, Heads, NotNegative, Positive, Section, Unit, Whole


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
