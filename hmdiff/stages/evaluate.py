"""Stage ``evaluate@EVALUATION``: one way of running a model, scored on test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmdiff.checkpoints import checkpoints
from hmdiff.distributed import is_main
from hmdiff.evaluation.bootstrap import SEED, figures
from hmdiff.evaluation.inputs import Inputs, opened
from hmdiff.evaluation.items import find_evaluation, protocol_of
from hmdiff.evaluation.protocols import Protocol
from hmdiff.evaluation.recovery import Recovered
from hmdiff.evaluation.selection import read_selected
from hmdiff.files import atomic_directory, write_json, write_text
from hmdiff.memory import return_large_blocks
from hmdiff.params import Params
from hmdiff.params.runs import EvaluationParams
from hmdiff.training.folder import repeat_label, repeats

SPLIT = "test"


def run(
    evaluation: str,
    model: Path,
    steps: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Recover and score test meshes; write samples.csv, predictions.npz, summary.json to ``out``.

    Scored with every training of the experiment; predictions.npz is of the first one.

    Args:
        model: folder of the trained experiment.
        steps: number of reverse steps of the method (select_steps), and its own ``reverse``.
        features, prepared: files of the evaluation's data set; only their test rows are used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: the evaluation is unknown or disagrees with its method, an input is missing,
            damaged or of another row, or no test image can be scored.
    """
    return_large_blocks()
    what = find_evaluation(evaluation, params)
    protocol = protocol_of(f"evaluations.{evaluation}", what)
    selected = read_selected(steps, what.method)
    params = selected.params(params)
    how = {
        "steps": selected.steps,
        "guidance": what.guidance,
        "start": what.start,
        "prior": what.prior,
        "activation": what.activation,
    }
    settings = {
        **how,
        "reverse": params.reverse.model_dump(),
        "protocol": protocol.model_dump(mode="json"),
        "samples": params.evaluation.samples,
    }
    shared = {"features": features, "prepared": prepared, "body": body, "sampling": sampling}
    runs: list[Recovered] = []
    facts: dict[str, Any] = {}
    with ExitStack() as stack:
        for number, folder in enumerate(repeats(model)):
            seeded = params.model_copy(update={"seed": params.seed + number})
            files = shared | {"model": folder}
            inputs = stack.enter_context(
                opened(
                    what.experiment, protocol, SPLIT, params.evaluation.samples,
                    params=seeded, **files,
                )
            )  # fmt: skip
            label = repeat_label(f"evaluate@{evaluation}", number)
            kept = stack.enter_context(checkpoints(label, seeded, settings, list(files.values())))
            runs.append(inputs.recover(kept, **how))
            facts = facts or _facts(inputs, how)  # of the first one
        if not is_main():
            return
        samples = _joined([run.samples for run in runs], params.seed)
        summary = {
            "evaluation": evaluation,
            "method": what.method,
            "experiment": what.experiment,
            "dataset": what.dataset,
            "split": SPLIT,
            "n": len(runs[0].samples),
            **how,
            "seeds": [params.seed + number for number in range(len(runs))],
            "spread_scale": selected.spread_scale,
            **facts,
            **_figures(samples, protocol, params.evaluation, params.seed),
            "protocol": protocol.model_dump(mode="json"),
            "reverse": params.reverse.model_dump(mode="json"),
        }
        _write(out, samples, runs[0], summary)
    means = ", ".join(
        f"{name} {figure['mean']:.3g} [{figure['low']:.3g}, {figure['high']:.3g}]"
        for name, figure in summary["means"].items()
    )
    print(
        f"evaluate@{evaluation}: {summary['n']} {summary['source']} images, {how['steps']} steps, "
        f"{len(runs)} trainings: {means}"
    )


def _facts(inputs: Inputs, how: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's inputs say of it, and what one image costs the network."""
    diffusion = inputs.trained["experiment"]["model"] == "diffusion"
    return {
        "source": inputs.source,
        "body_model": inputs.body.source,
        "chains": inputs.params.reverse.chains if diffusion else 1,
        "gflop": round(inputs.flop(**how) / 1e9, 6),
        "trained": inputs.trained,
    }


def _joined(samples: Sequence[pd.DataFrame], seed: int) -> pd.DataFrame:
    """The samples of all trainings; ``seed`` is that of the first one."""
    for number, frame in enumerate(samples):
        frame.insert(1, SEED, seed + number)
    return pd.concat(samples, ignore_index=True)


def _figures(
    samples: pd.DataFrame, protocol: Protocol, settings: EvaluationParams, seed: int
) -> dict[str, Any]:
    """Means over samples with their bootstrap intervals, and how DAT went."""
    guided = samples["ratio"].notna().all()
    return {
        "primary": protocol.primary,
        "means": figures(samples, protocol.metrics, settings.bootstrap, seed),
        "active_steps": float(samples["active_steps"].mean()),
        "ratio": float(samples["ratio"].mean()) if guided else None,
    }


def _write(out: Path, samples: pd.DataFrame, recovered: Recovered, summary: dict[str, Any]) -> None:
    with atomic_directory(out) as folder:
        table = samples.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(folder / "samples.csv", table)
        np.savez(
            folder / "predictions.npz",
            sample_id=recovered.samples["sample_id"].to_numpy(dtype=np.str_),
            coarse=recovered.coarse,
            joint_error=recovered.joint_error,
            joint_spread=recovered.joint_spread,
        )
        write_json(folder / "summary.json", summary)
