"""What is assumed where nothing here measures it: assumptions.yaml as checked records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from hmdiff.errors import UserError
from hmdiff.params import read_yaml
from hmdiff.params.base import Count, NotNegative, Positive, Section, Whole

ASSUMPTIONS = Path(__file__).with_suffix(".yaml")


class Splits(Section):
    train: Whole
    val: Whole
    test: Whole

    @property
    def all(self) -> int:
        return self.train + self.val + self.test


class Price(Section):
    gpu: NotNegative
    cpu: NotNegative


class Assumptions(Section):
    """assumptions.yaml; see its comments."""

    counts: dict[str, Splits]
    gpus: Annotated[tuple[Count, ...], Field(min_length=1)]
    price: Price
    currency: str
    efficiency: Annotated[float, Field(gt=0, le=1)]
    prepare_at_once: Count
    megabytes_per_second: Positive
    steps: Count
    prepared_bytes: Count
    archives: NotNegative


def read_assumptions(path: Path = ASSUMPTIONS) -> Assumptions:
    """Raises: UserError: ``path`` is missing, a key is, or a value is out of its range."""
    try:
        return Assumptions.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {key}: {first['msg']}; mend the value") from None
