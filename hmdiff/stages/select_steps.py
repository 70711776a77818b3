"""Stage ``select_steps@METHOD``: how many reverse steps a method needs, from validation images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmdiff.evaluation.items import find_method, protocol_of, read_trained
from hmdiff.evaluation.selection import RULE, fewest_steps
from hmdiff.files import write_json
from hmdiff.params import Params
from hmdiff.params.runs import MethodParams

if TYPE_CHECKING:
    from hmdiff.evaluation.protocols import Protocol


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
    """Write the number of steps of ``params.methods[method]`` to ``out`` (JSON).

    Args:
        model: folder of the trained experiment.
        features, prepared: files of the method's data set; only their validation rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: the method is unknown or disagrees with what it names, an input is missing,
            damaged or of another experiment, or no validation image can be scored.
    """
    what = find_method(method, params)
    if len(what.candidates) == 1:
        (steps,) = what.candidates
        _write(out, method, steps, "the only candidate", [], 0)
        print(f"select_steps@{method}: {steps}, the only candidate")
        return

    protocol = protocol_of(f"methods.{method}", what)
    errors, count = _search(what, protocol, model, features, prepared, body, sampling, params)
    steps = fewest_steps(errors, params.evaluation.selection_tolerance)
    primary = protocol.primary
    candidates = [
        {"steps": tried, primary.lower(): round(error, 4)} for tried, error in errors.items()
    ]
    _write(out, method, steps, RULE, candidates, count)
    tried = ", ".join(f"{number}: {error:.1f}" for number, error in errors.items())
    print(f"select_steps@{method}: {steps} ({primary} in mm by steps: {tried})")


def _search(
    what: MethodParams,
    protocol: Protocol,
    model: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    params: Params,
) -> tuple[dict[int, float], int]:
    """The mean of the primary metric for every candidate, and the number of images."""
    # Imported here: the libraries below take seconds, and one candidate needs none of them.
    from hmdiff.bodies.model import BodyModel
    from hmdiff.bodies.sampling import MeshSampling
    from hmdiff.compute import resolve_device, resolve_precision, use_threads
    from hmdiff.datasets.prepared import PreparedFile
    from hmdiff.evaluation.recovery import recover_and_score, scorable
    from hmdiff.extractor.features import read_features
    from hmdiff.inference import Predictor

    use_threads(params.compute.threads)
    read_trained(model, what.experiment)
    rows = scorable(read_features(features, "val"), protocol, params.evaluation.selection_samples)
    body_model = BodyModel.load(body)
    predictor = Predictor.load(
        model, body_model, MeshSampling.load(sampling),
        resolve_device(params.compute.device), resolve_precision(params.compute),
    )  # fmt: skip
    errors = {}
    with PreparedFile(prepared) as file:
        for steps in sorted(what.candidates):
            recovered = recover_and_score(
                predictor, rows, file, body_model, protocol, steps=steps,
                guidance=what.guidance, reverse=params.reverse, seed=params.seed,
            )  # fmt: skip
            errors[steps] = float(recovered.samples[protocol.primary].mean())
    return errors, len(rows)


def _write(
    out: Path, method: str, steps: int, rule: str, candidates: list[dict[str, Any]], n: int
) -> None:
    record = {"method": method, "steps": steps, "rule": rule, "candidates": candidates, "n": n}
    write_json(out, record)
