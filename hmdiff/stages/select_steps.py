"""Stage ``select_steps@METHOD``: how many reverse steps a method needs, from validation images."""

from __future__ import annotations

from pathlib import Path

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.evaluation.protocols import load_protocol
from hmdiff.evaluation.recovery import recover_and_score, scorable
from hmdiff.evaluation.selection import RULE, fewest_steps
from hmdiff.extractor.features import read_features
from hmdiff.files import write_json
from hmdiff.inference import Predictor
from hmdiff.params import Params


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
        UserError: an input is missing or damaged, or no validation image can be scored.
    """
    what, choice = params.methods[method], params.evaluation
    if len(what.candidates) == 1:
        (steps,) = what.candidates
        write_json(out, {"steps": steps, "rule": "the only candidate", "candidates": [], "n": 0})
        print(f"select_steps@{method}: {steps}, the only candidate")
        return

    use_threads(params.compute.threads)
    protocol = load_protocol(what.dataset)
    rows = scorable(read_features(features, "val"), protocol, choice.selection_samples)
    body_model = BodyModel.load(body)
    predictor = Predictor.load(
        model, body_model, MeshSampling.load(sampling),
        resolve_device(params.compute.device), params.compute.precision,
    )  # fmt: skip
    errors = {}
    with PreparedFile(prepared) as file:
        for steps in sorted(what.candidates):
            recovered = recover_and_score(
                predictor, rows, file, body_model, protocol, steps=steps,
                guidance=what.guidance, reverse=params.reverse, seed=params.seed,
            )  # fmt: skip
            errors[steps] = float(recovered.samples[protocol.primary].mean())
    steps = fewest_steps(errors, choice.selection_tolerance)
    name = protocol.primary.lower()
    candidates = [{"steps": tried, name: round(error, 4)} for tried, error in errors.items()]
    write_json(out, {"steps": steps, "rule": RULE, "candidates": candidates, "n": len(rows)})
    tried = ", ".join(f"{count}: {error:.1f}" for count, error in errors.items())
    print(f"select_steps@{method}: {steps} ({protocol.primary} in mm by steps: {tried})")
