"""What all sections of params.yaml are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Heads = Literal[1, 2, 4, 8, 16, 32, 64, 128]  # divisors of a token's 128 numbers


class Section(BaseModel):
    """A part of params.yaml. Unknown keys are errors; records are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
