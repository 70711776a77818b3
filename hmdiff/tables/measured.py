"""What the stages evaluate and speed have measured, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hmdiff.errors import UserError
from hmdiff.files import read_json
from hmdiff.params.models import FastMETROParams


class Mean(BaseModel):
    """A mean over the test samples with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class Experiment(BaseModel):
    """What was trained, of model.json."""

    model: Literal["diffusion", "direct", "linear", "fastmetro"]
    depth: int
    fastmetro: FastMETROParams | None = None


class Trained(BaseModel):
    """The record of the training, of model.json."""

    experiment: Experiment
    parameters: int | None  # of the network; None: the linear control has none


class Reverse(BaseModel):
    """What a caption says of the reverse process."""

    disrupted_reduction: Literal["sum", "mean"]


class Scored(BaseModel):
    """What Table 7 says of the protocol."""

    joints: list[str]


class Summary(BaseModel):
    """The fields of an evaluation's summary.json that the tables use."""

    evaluation: str
    method: str
    dataset: str
    source: Literal["rendered", "real"]
    n: int
    steps: int
    chains: int
    seeds: list[int]
    gflop: float  # of the network, an image
    means: dict[str, Mean]
    active_steps: float  # with DAT, the mean over images and chains
    spread_scale: float | None  # fitted on validation images; None: nothing was run there
    trained: Trained
    reverse: Reverse
    protocol: Scored


class Timing(BaseModel):
    """Frames a second of one model; ``low`` and ``high`` are the slowest and fastest repeat."""

    model_config = ConfigDict(extra="forbid")

    name: str
    value: float
    unit: Literal["1/s"]
    low: float
    high: float
    repeats: int
    chains: int | None  # None: not a diffusion model
    steps: int | None


class Machine(BaseModel):
    """What the timings were taken on and with."""

    model_config = ConfigDict(extra="forbid")

    device: str
    cpus: int
    threads: int
    precision: str
    torch: str
    backbone: str
    image_size: int


class Speed(BaseModel):
    """speed.json. ``dataset`` and ``source`` are of the timed images."""

    model_config = ConfigDict(extra="forbid")

    records: list[Timing]
    dataset: str
    source: Literal["rendered", "real"]
    seed: int
    machine: Machine

    def timing(self, name: str) -> Timing:
        """The timing ``name``, which :func:`read_speed` has made sure of."""
        return next(record for record in self.records if record.name == name)


def read_summary(folder: Path, evaluation: str, metrics: list[str]) -> Summary:
    """``folder``/``evaluation``/summary.json with all of ``metrics``.

    Raises:
        UserError: it is missing or not complete; the line names the stage to run.
    """
    path = folder / evaluation / "summary.json"
    remedy = f"run `dvc repro evaluate@{evaluation}`"
    summary = _read(path, Summary, remedy)
    for metric in metrics:
        if metric not in summary.means:
            raise UserError(f"{path}: means has no {metric!r}; {remedy}")
    return summary


def read_speed(path: Path | None, names: list[str]) -> Speed:
    """speed.json with the timings ``names``.

    Raises:
        UserError: it is missing or not complete; the line names the stage to run.
    """
    remedy = "run `dvc repro speed`"
    if path is None:
        raise UserError(f"hmdiff table: --speed: Table 6 needs the timings; {remedy} and name it")
    speed = _read(path, Speed, remedy)
    missing = set(names) - {record.name for record in speed.records}
    if missing:
        raise UserError(f"{path}: records has no {sorted(missing)[0]!r}; {remedy}")
    return speed


_Record = TypeVar("_Record", bound=BaseModel)


def _read(path: Path, model: type[_Record], remedy: str) -> _Record:
    if not path.exists():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {key}: {first['msg']}; {remedy}") from None
