"""Sections about how models are run and scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from hmdiff.params.base import Count, NotNegative, Positive, Section, Unit, Whole


class Compute(Section):
    device: str
    precision: Literal["auto", "bf16", "fp32"]
    threads: Count
    threads_alone: Count
    processes: Count
    workers: Whole


class CheckpointParams(Section):
    seconds: NotNegative
    folder: Path


class MemoryParams(Section):
    pretrain_extractor: Count
    train: Count


class ReverseParams(Section):
    solver: Literal["ddim", "dpmpp_2m"]
    eta: Unit
    chains: Count
    antithetic: bool
    draws: Count | None  # None: all that are stored
    guided_steps: Count | None  # None: all
    gamma: NotNegative
    threshold: NotNegative
    reduction: Literal["sum", "mean"]
    gap: Literal["h0", "raw", "excess"]
    gradient: Literal["through_g", "frozen"]
    peak_weight: Literal["equal", "as_printed"]
    disrupted_reduction: Literal["sum", "mean"]

    @model_validator(mode="after")
    def _noise_is_of_ddim(self) -> ReverseParams:
        if self.solver != "ddim" and self.eta > 0:
            raise ValueError(f"solver {self.solver} takes no noise: it needs eta 0")
        return self

    def changed(self, changes: Mapping[str, Any]) -> ReverseParams:
        """With other values of some fields.

        Raises:
            ValueError: there is no such field, or a value is out of its range.
        """
        try:
            return ReverseParams.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


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


class PerKind(Section):
    body: Positive
    hand: Positive


class PredictParams(Section):
    margin: PerKind
    focal: Positive


class FiguresParams(Section):
    images: Count
    process_images: Count
    process_chains: Annotated[int, Field(ge=2)]
    process_steps: Count


class MethodParams(Section):
    experiment: str
    kind: Literal["body", "hand"]
    dataset: str
    guidance: Literal["none", "dat", "disrupted"]
    protocol: str | None = None  # of evaluation/protocols.yaml; None: that of the data set
    candidates: Annotated[tuple[Count, ...], Field(min_length=1)]
    # Values of the section reverse that are this method's own.
    reverse: Annotated[dict[str, Any], Field(default_factory=dict)]


class EvaluationItem(Section):
    method: str
    experiment: str
    kind: Literal["body", "hand"]
    dataset: str
    guidance: Literal["none", "dat", "disrupted"]
    start: Literal["noise", "prior"]
    prior: Literal["draws", "peak"]
    activation: bool
    protocol: str | None = None
