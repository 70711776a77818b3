"""One command a stage, with the paths that dvc.yaml gives it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hmdiff import launch
from hmdiff.cli.app import PARAMS, ParamsFile, app, option

ModelName = StrEnum("ModelName", ["smpl", "mano"])
KindName = StrEnum("KindName", ["body", "hand"])

Body = Annotated[Path, option("Folder of the body or hand model.")]
Sampling = Annotated[Path, option("Mesh sampling (npz).")]
Model = Annotated[Path, option("Folder of the trained experiment.")]
Extractor = Annotated[Path, option("Folder of the pre-trained extractor.")]
Prepared = Annotated[Path, option("Prepared HDF5 file, or the folder of one kind.")]
Features = Annotated[Path, option("Stored features, a file or a folder.")]
Steps = Annotated[Path, option("Number of steps of the method (JSON).")]
Out = Annotated[Path, option("What the stage writes.")]


def _run(stage: str, params: Path, **arguments: Any) -> None:
    """Import one stage, run it on checked parameters and write down what it cost.

    Where ``compute.processes`` asks for several, this one starts them and they do that instead.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    launch.end_with_parent()
    with _without_collection():
        from hmdiff.costs import address, recorded
        from hmdiff.params import load_params

        checked = load_params(params)
        processes = launch.wanted(stage, checked.compute.processes)
        if not processes:
            run = importlib.import_module(f"hmdiff.stages.{stage}").run
    cost = recorded(address(stage, arguments)) if launch.records() else contextlib.nullcontext()
    with cost:
        if processes:
            launch.launch(processes)
        elif stage in launch.SHARING:
            from hmdiff.distributed import joined

            with joined(checked.compute.device):
                run(**arguments, params=checked)
        else:
            run(**arguments, params=checked)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no garbage while modules are imported, a sixth of their time, nor in them later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@app.command()
def body_models(
    model: ModelName,
    licensed: Annotated[Path, option("Folder in which a user places the licensed model.")],
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Build the open stand-in, or convert the licensed model that was placed."""
    _run("body_models", params, model=model.value, licensed=licensed, out=out)


@app.command()
def mesh_sampling(
    model: ModelName,
    body: Body,
    out: Out,
    report: Annotated[Path, option("Round-trip errors (JSON).")],
    params: ParamsFile = PARAMS,
) -> None:
    """Choose the coarse vertices (D) and the way back to the full mesh (U)."""
    _run("mesh_sampling", params, model=model.value, body=body, out=out, report=report)


@app.command()
def acquire(
    dataset: str,
    body: Body,
    placed: Annotated[Path, option("Folder in which a user places the real data set.")],
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Take the real data set that was placed by hand, or render its stand-in."""
    _run("acquire", params, dataset=dataset, body=body, placed=placed, out=out)


@app.command()
def prepare(
    dataset: str,
    raw: Annotated[Path, option("Data in their native layout.")],
    body: Body,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Read a native layout, crop, join the ground truth and write one HDF5 file."""
    _run("prepare", params, dataset=dataset, raw=raw, body=body, out=out)


@app.command()
def pretrain_extractor(
    kind: KindName, prepared: Prepared, out: Out, params: ParamsFile = PARAMS
) -> None:
    """Pre-train the backbone phi_I and the pose head phi_P."""
    _run("pretrain_extractor", params, kind=kind.value, prepared=prepared, out=out)


@app.command()
def extract_features(
    prepared: Prepared,
    extractor: Extractor,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Store the image feature f_I and the prior U of every image once."""
    _run("extract_features", params, prepared=prepared, extractor=extractor, body=body,
         sampling=sampling, out=out)  # fmt: skip


@app.command()
def train(
    experiment: str,
    features: Features,
    sampling: Sampling,
    body: Body,
    prepared: Prepared,
    out: Out,
    base: Annotated[Path | None, option("Model to fine-tune; NAME is then of finetunes.")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Train g and the upsampling MLP, a baseline, or the linear control; or fine-tune one."""
    _run("train", params, experiment=experiment, features=features, sampling=sampling, body=body,
         prepared=prepared, out=out, base=base)  # fmt: skip


@app.command()
def select_steps(
    method: str,
    model: Model,
    features: Features,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Find the number of reverse steps of a method on validation data."""
    _run("select_steps", params, method=method, model=model, features=features,
         prepared=prepared, body=body, sampling=sampling, out=out)  # fmt: skip


@app.command()
def evaluate(
    evaluation: str,
    model: Model,
    steps: Steps,
    features: Features,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Recover the meshes of the test images and score them under the data set's protocol."""
    _run("evaluate", params, evaluation=evaluation, model=model, steps=steps, features=features,
         prepared=prepared, body=body, sampling=sampling, out=out)  # fmt: skip


@app.command()
def sweep(
    name: str,
    model: Model,
    steps: Steps,
    features: Features,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Try values of one parameter on validation images: CSV, JSON, a figure and MLflow."""
    _run("sweep", params, name=name, model=model, steps=steps, features=features,
         prepared=prepared, body=body, sampling=sampling, out=out)  # fmt: skip


@app.command()
def probe(name: str, features: Features, out: Out, params: ParamsFile = PARAMS) -> None:
    """Fit plain regressions to the frozen features: CSV, JSON and MLflow."""
    _run("probe", params, name=name, features=features, out=out)


@app.command()
def speed(
    model: Model,
    extractor: Extractor,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    steps: Steps,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Time HMDiff and FastMETRO's architecture, image to full mesh, in one run."""
    _run("speed", params, model=model, extractor=extractor, prepared=prepared, body=body,
         sampling=sampling, steps=steps, out=out)  # fmt: skip


@app.command()
def table(
    number: Annotated[int, typer.Argument(min=1, max=6)],
    evaluations: Annotated[Path, option("Folder of the evaluations.")],
    out: Out,
    speed: Annotated[Path | None, option("Timings of the speed stage (Table 6).")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Put the measured rows of a table beside the paper's: CSV, LaTeX, JSON and MLflow."""
    _run("table", params, number=number, evaluations=evaluations, out=out, speed=speed)


@app.command()
def table7(
    evaluations: Annotated[Path, option("Folder of the evaluations.")],
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Ours: whether the spread of the chains predicts the error, as CSV, LaTeX, JSON and MLflow."""
    _run("table7", params, evaluations=evaluations, out=out)


@app.command()
def figure2(
    model: Model,
    steps: Steps,
    features: Features,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Draw predictions over images, from the side, with the spread of the chains (Figure 2)."""
    _run("figure2", params, model=model, steps=steps, features=features, prepared=prepared,
         body=body, sampling=sampling, out=out)  # fmt: skip


@app.command()
def figure3(
    model: Model,
    features: Features,
    prepared: Prepared,
    body: Body,
    sampling: Sampling,
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Draw the chains along the reverse process, as t-SNE and as curves (Figure 3)."""
    _run("figure3", params, model=model, features=features, prepared=prepared, body=body,
         sampling=sampling, out=out)  # fmt: skip


@app.command()
def report(
    evaluations: Annotated[Path, option("Folder of the evaluations.")],
    speed: Annotated[Path, option("Timings of the speed stage.")],
    trained: Annotated[Path, option("Folder of the trained experiments.")],
    extractors: Annotated[Path, option("Folder of the pre-trained extractors.")],
    sampling: Annotated[Path, option("Folder of the mesh sampling's errors (JSON).")],
    figures: Annotated[Path, option("Folder of Figures 2 and 3.")],
    prepared: Annotated[Path, option("Folder of the prepared data, one folder a kind.")],
    notice: Annotated[Path, option("The project's NOTICE.")],
    metrics: Annotated[Path, option("Means of every evaluation (JSON), for `dvc metrics`.")],
    out: Out,
    params: ParamsFile = PARAMS,
) -> None:
    """Write the page with everything, the metrics, and the training runs in MLflow."""
    _run("report", params, evaluations=evaluations, speed=speed, trained=trained,
         extractors=extractors, sampling=sampling, figures=figures, prepared=prepared,
         notice=notice, metrics=metrics, out=out)  # fmt: skip
