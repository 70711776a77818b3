"""The values of a sweep as the parameters that each of them is run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hmdiff.errors import UserError
from hmdiff.params import Params
from hmdiff.params.sweeps import STEPS, TOGETHER, SweepParams, Value, with_value

CONFIGURED = "configured"  # where no single value of params.yaml can name it


@dataclass(frozen=True)
class Setting:
    """One value of a sweep.

    Attributes:
        configured: it is the value of params.yaml, to which the others are compared.
        params: all parameters, with this value among them.
        steps: of the reverse process.
    """

    value: Value
    configured: bool
    params: Params
    steps: int


def find_sweep(name: str, params: Params) -> SweepParams:
    """``sweeps.NAME`` of params.yaml, which was checked when it was read.

    Raises:
        UserError: there is none.
    """
    if name not in params.sweeps:
        known = ", ".join(params.sweeps) or "none"
        raise UserError(f"params.yaml: sweeps: has no {name!r}; take one of {known}")
    return params.sweeps[name]


def settings(sweep: SweepParams, params: Params, steps: int) -> list[Setting]:
    """Every value once, the configured one among them; numbers ascend, others keep their order.

    Args:
        steps: that the sweep's method takes, chosen on validation images.
    """
    params = _one_training(sweep.experiment, params)
    if sweep.parameter == TOGETHER:
        return _together(sweep, params, steps)
    configured = _value(sweep.parameter, params, steps)
    found = {}
    for value in (configured, *sweep.values):
        changed = with_value(params, sweep.parameter, value)
        taken = value if sweep.parameter == STEPS else steps
        # As it was read into the section: 1 of a fraction is 1.0.
        value = _value(sweep.parameter, changed, taken)
        found[value] = Setting(value, value == configured, changed, taken)
    if all(isinstance(value, int | float) for value in found):
        return [found[value] for value in sorted(found)]
    return list(found.values())


def _one_training(experiment: str, params: Params) -> Params:
    """Each value is trained for once, and the experiment's own learning rate is one to sweep."""
    known = params.experiments.get(experiment)
    own: dict[str, Any] = {"repeats": 1}
    if known is None or known.learning_rate is None:
        experiments = params.experiments
    else:
        own["learning_rate"] = known.learning_rate
        changed = known.model_copy(update={"learning_rate": None})
        experiments = params.experiments | {experiment: changed}
    training = params.training.model_copy(update=own)
    return params.model_copy(update={"training": training, "experiments": experiments})


def _together(sweep: SweepParams, params: Params, steps: int) -> list[Setting]:
    """What is configured, and every value as the words that say it."""
    found = [Setting(CONFIGURED, True, params, steps)]
    for value in sweep.values:
        words = ", ".join(f"{name} {'all' if v is None else v}" for name, v in value.items())
        changed = with_value(params, sweep.parameter, value)
        found.append(Setting(words, False, changed, value.get(STEPS, steps)))
    return found


def _value(parameter: str, params: Params, steps: int) -> Value:
    section, _, field = parameter.partition(".")
    return steps if parameter == STEPS else getattr(getattr(params, section), field)
