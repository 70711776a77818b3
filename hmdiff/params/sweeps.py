"""The section ``sweeps``: which values of one parameter are tried with which method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from hmdiff.errors import UserError
from hmdiff.params.base import Count, Section

if TYPE_CHECKING:
    from hmdiff.params import Params

STEPS = "steps"  # of the reverse process: chosen on validation images, and so in no section
TOGETHER = "reverse"  # several fields of it, and steps, in each value
RUN_TIME = ("reverse",)  # sections that a trained model is run with
TRAINING = ("diffusion", "denoiser", "training")  # sections that it is trained with
PULL = {
    f"reverse.{name}"
    for name in ("gamma", "threshold", "reduction", "gap", "gradient", "guided_steps")
}

Value = bool | int | float | str
Several = dict[str, Value | None]


class SweepParams(Section):
    """``parameter`` is ``steps`` or SECTION.FIELD of the sections above, or ``reverse``, whose
    values are fields of it with ``steps``, such as {steps: 5, chains: 4}; images: of validation."""

    parameter: str
    values: Annotated[tuple[Value | Several, ...], Field(min_length=1)]
    method: str
    experiment: str
    kind: Literal["body", "hand"]
    dataset: str
    images: Count | None  # None: all
    prior: Literal["draws", "peak"] = "draws"  # as in an evaluation

    @property
    def trains(self) -> bool:
        """Whether every value takes a training of its own."""
        return self.parameter.partition(".")[0] in TRAINING

    @property
    def swept(self) -> set[str]:
        """The parameters that values change, by dotted key."""
        if self.parameter != TOGETHER:
            return {self.parameter}
        return {f"{TOGETHER}.{name}" for value in self.values for name in value}


def with_value(params: Params, parameter: str, value: Value | Several) -> Params:
    """``params`` with one value changed; the steps are no part of them and change nothing.

    Raises:
        ValueError: there is no such parameter, or the value is out of its range.
    """
    section, _, field = parameter.partition(".")
    if isinstance(value, dict) != (parameter == TOGETHER):
        raise ValueError(f"{value!r} is no value of {parameter}")
    if parameter == TOGETHER:
        changes = dict(value)
        with_value(params, STEPS, changes.pop(STEPS, 1))
        return params.model_copy(update={"reverse": params.reverse.changed(changes)})
    if parameter == STEPS:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{value!r} is no number of steps")
        return params
    if (
        section not in (*RUN_TIME, *TRAINING)
        or field not in type(getattr(params, section)).model_fields
    ):
        sections = ", ".join(f"{name}.*" for name in (*RUN_TIME, *TRAINING))
        raise ValueError(f"{parameter!r} cannot be swept; take {STEPS} or one of {sections}")
    before = getattr(params, section)
    try:
        after = type(before).model_validate(before.model_dump() | {field: value})
    except ValidationError as error:
        raise ValueError(f"{value!r}: {error.errors()[0]['msg']}") from None
    return params.model_copy(update={section: after})


def check_sweeps(params: Params, path: str | Path) -> None:
    """Make sure that every sweep can be run, before hours are spent on what it needs.

    Raises:
        UserError: a sweep names a method that is missing or disagrees with it, or a parameter or
            value that there is not, or one that means nothing to the method.
    """
    for name, sweep in params.sweeps.items():
        label = f"{path}: sweeps.{name}"
        method = params.methods.get(sweep.method)
        if method is None:
            raise UserError(
                f"{label}.method: {sweep.method!r} is no method; take one of "
                f"{', '.join(params.methods)}"
            )
        for field in ("experiment", "kind", "dataset"):
            here, there = getattr(sweep, field), getattr(method, field)
            if here != there:
                raise UserError(
                    f"{label}.{field}: {here!r}, but method {sweep.method} has {there!r}; "
                    "make them agree"
                )
        try:
            for value in sweep.values:
                with_value(params, sweep.parameter, value)
            if any(value in sweep.values[:at] for at, value in enumerate(sweep.values)):
                raise ValueError("a value stands there twice")
        except ValueError as error:
            raise UserError(f"{label}: {error}; mend it") from None
        pull = sorted(sweep.swept & PULL)
        if pull and method.guidance == "none":
            raise UserError(
                f"{label}.parameter: {pull[0]} is of the guidance, which method "
                f"{sweep.method} does not have; sweep another method"
            )
        experiment = params.experiments.get(sweep.experiment)
        if sweep.trains and (experiment is None or experiment.model == "linear"):
            raise UserError(
                f"{label}.parameter: {sweep.parameter} takes trainings, but {sweep.experiment!r} "
                "is a fine-tuning or linear; sweep another experiment"
            )
        if not sweep.trains and experiment is not None and experiment.model != "diffusion":
            raise UserError(
                f"{label}.parameter: {sweep.parameter} is of the reverse process, which "
                f"{sweep.experiment!r} does not have; sweep a diffusion experiment"
            )
