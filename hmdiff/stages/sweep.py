"""Stage ``sweep@NAME``: values of one parameter, compared on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from hmdiff.batches import mixture_files
from hmdiff.checkpoints import checkpoints
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.errors import UserError
from hmdiff.evaluation.inputs import opened
from hmdiff.evaluation.items import find_method, protocol_of
from hmdiff.evaluation.protocols import Protocol
from hmdiff.evaluation.selection import read_selected
from hmdiff.figures.drawing import save_png
from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.params.runs import MethodParams
from hmdiff.params.sweeps import SweepParams
from hmdiff.stages import train
from hmdiff.sweeps.figure import caption, draw_sweep
from hmdiff.sweeps.results import SPLIT, Measured, records, table, write_sweep
from hmdiff.sweeps.runs import ABOUT, sweep_run
from hmdiff.sweeps.settings import Setting, find_sweep, settings
from hmdiff.tracking import log_run

DIVERGED = "not finite"  # what the messages of a training and of a reverse process that did have


def run(
    name: str,
    model: Path,
    steps: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    out: Path,
    params: Params,
) -> None:
    """Write ``out``/NAME.csv, .json and .png of ``params.sweeps[name]``; log one run a value.

    A value of ``training``, ``denoiser`` or ``diffusion`` is trained for, by the stage train
    itself; the configured one is ``model`` already. A value that diverges is a row that says so.

    Args:
        model: folder of the trained experiment.
        steps: number of reverse steps of the method (select_steps).
        features, prepared: folders of the files of one kind; no test row is used.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: the sweep is unknown, an input is missing, damaged or of another experiment, or
            no validation image can be scored.
    """
    what = find_sweep(name, params)
    method = find_method(what.method, params)
    protocol = protocol_of(f"methods.{what.method}", method)
    selected = read_selected(steps, what.method)
    params = selected.params(params)
    tried = settings(what, params, selected.steps)
    shared = {"body": body, "sampling": sampling}
    own = {
        "features": features / f"{what.dataset}.h5", "prepared": prepared / f"{what.dataset}.h5",
    }  # fmt: skip
    inputs = [model, steps, *shared.values(), *own.values()]
    if what.trains:
        mixture = params.experiments[what.experiment].datasets
        inputs += [*mixture_files(features, mixture), *mixture_files(prepared, mixture)]
    sections = ("diffusion", "denoiser", "training", "reverse")
    identity = {
        "sweep": what.model_dump(mode="json"),
        "method": method.model_dump(mode="json"),
        "protocol": protocol.model_dump(mode="json"),
        **{section: getattr(params, section).model_dump(mode="json") for section in sections},
    }
    label = f"sweep@{name}"
    done: list[dict[str, Any]] = []
    with checkpoints(label, params, identity, inputs) as kept:
        for number, setting in kept.steps(
            lambda first: tried[first:], len(tried), {"done": done}, label
        ):
            try:
                trained = model
                if what.trains and not setting.configured:
                    scratch = params.checkpoint.folder / label / str(number)
                    trained = _train(
                        what.experiment, setting, scratch, features, prepared, **shared
                    )
                done.append(_measure(what, method, protocol, setting, trained, own | shared))
            except UserError as error:
                if DIVERGED not in str(error):
                    raise
                done.append({"errors": {}, "failure": str(error)})
    with PreparedFile(own["prepared"]) as file:
        source = str(file.attrs["source"])
    measured = [
        Measured(**part | {"errors": {m: v.numpy() for m, v in part["errors"].items()}})
        for part in done
    ]
    pairs = list(zip(tried, measured, strict=True))
    found = records(name, what, pairs, protocol, source, current_commit())
    paths = write_sweep(found, out)
    note = caption(found)
    save_png(draw_sweep(found, note), out / f"{name}.png")
    paths.append(out / f"{name}.png")
    log_run("sweeps", sweep_run(what, tried, found, note, paths), ABOUT)
    print(tabulate(table(found), headers="keys", showindex=False, floatfmt=".4g"), note, sep="\n\n")


def _train(
    experiment: str,
    setting: Setting,
    scratch: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
) -> Path:
    """The folder of ``experiment`` trained with ``setting``; it lies, like the training's own
    snapshots, in ``scratch``, which goes with the sweep's."""
    kept = setting.params.checkpoint.model_copy(update={"folder": scratch})
    params = setting.params.model_copy(update={"checkpoint": kept})
    train.run(experiment, features, sampling, body, prepared, scratch / "model", params)
    return scratch / "model"


def _measure(
    what: SweepParams,
    method: MethodParams,
    protocol: Protocol,
    setting: Setting,
    model: Path,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    """The validation images' errors with ``setting``, as a checkpoint can hold them."""
    with opened(
        method.experiment, protocol, SPLIT, what.images, model=model, params=setting.params, **files
    ) as inputs:
        samples = inputs.recover(
            steps=setting.steps, guidance=method.guidance, prior=what.prior
        ).samples
        diffusion = inputs.trained["experiment"]["model"] == "diffusion"
    return {
        "errors": {name: torch.tensor(samples[name].to_numpy()) for name in protocol.metrics},
        "chains": setting.params.reverse.chains if diffusion else 1,
        "active_steps": float(samples["active_steps"].mean()),
    }
