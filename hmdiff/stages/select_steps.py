"""Stage ``select_steps@METHOD``: how many reverse steps a method needs, from validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmdiff.evaluation.items import find_method, protocol_of
from hmdiff.evaluation.selection import RULE, Selected, fewest_steps
from hmdiff.files import write_json
from hmdiff.params import Params
from hmdiff.params.runs import MethodParams

if TYPE_CHECKING:
    from hmdiff.evaluation.protocols import Protocol
    from hmdiff.evaluation.recovery import Recovered


def run(
    method: str,
    model: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Write the number of steps of ``params.methods[method]`` to ``out`` (JSON), and by what
    factor the spread of its chains is too small there. With it stands what the method changes of
    the section ``reverse``: whoever runs it reads both there.

    Args:
        model: folder of the trained experiment.
        features, prepared: files of the method's data set; only their validation rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: the method is unknown or disagrees with what it names, an input is missing,
            damaged or of another experiment, or no validation image can be scored.
    """
    what = find_method(method, params)
    params = Selected(what.candidates[0], None, what.reverse).params(params)
    record: dict[str, Any] = {
        "method": method, "steps": what.candidates[0], "reverse": what.reverse,
    }  # fmt: skip
    if len(what.candidates) == 1:
        record |= {"rule": "the only candidate", "candidates": [], "n": 0, "spread_scale": None}
        write_json(out, record)
        print(f"select_steps@{method}: {record['steps']}, the only candidate")
        return

    protocol = protocol_of(f"methods.{method}", what)
    found = _search(
        what, protocol, params,
        model=model, features=features, prepared=prepared, body=body, sampling=sampling,
    )  # fmt: skip
    primary = protocol.primary
    errors = {steps: float(part.samples[primary].mean()) for steps, part in found.items()}
    steps = fewest_steps(errors, params.evaluation.selection_tolerance)
    record |= {
        "steps": steps,
        "rule": RULE,
        "candidates": [
            {"steps": tried, primary.lower(): round(error, 4)} for tried, error in errors.items()
        ],
        "n": len(found[steps].samples),
        "spread_scale": _spread_scale(found[steps]),
    }
    write_json(out, record)
    tried = ", ".join(f"{number}: {error:.1f}" for number, error in errors.items())
    print(f"select_steps@{method}: {steps} ({primary} in mm by steps: {tried})")


def _search(
    what: MethodParams, protocol: Protocol, params: Params, **paths: Path
) -> dict[int, Recovered]:
    """The validation images as every candidate recovers them."""
    # Imported here: its libraries take seconds, and one candidate needs none of them.
    from hmdiff.evaluation.inputs import opened

    count = params.evaluation.selection_samples
    with opened(what.experiment, protocol, "val", count, params=params, **paths) as inputs:
        return {
            steps: inputs.recover(steps=steps, guidance=what.guidance)
            for steps in sorted(what.candidates)
        }


def _spread_scale(recovered: Recovered) -> float | None:
    """The scale of the chains' spread, for Table 7; rounded like the scores."""
    from hmdiff.evaluation.calibration import fit_scale

    scale = fit_scale(
        recovered.joint_error.astype(np.float64), recovered.joint_spread.astype(np.float64)
    )
    return None if scale is None else round(scale, 6)
