"""Meshes from a user's own pictures, and the denoiser for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import app, option
from hmdiff.cli.stages import KindName

Checkpoint = Annotated[
    Path | None, option("Folder models/train/NAME [default: the one that is evaluated with DAT].")
]
Project = Annotated[Path, option("Folder in which the pipeline has run.")]


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Images, folders of them, videos.")],
    out: Annotated[Path, option("Folder of the results.")] = Path("predictions"),
    kind: Annotated[KindName, option("A hand is a right one.")] = KindName.body,
    bbox: Annotated[
        str | None,
        option(
            "x,y,w,h in pixels, tight about the person. Without a box the whole picture is "
            "the crop, and the person is taken to fill its middle."
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        option(
            'Boxes of many pictures: {"a.jpg": [[x, y, w, h], ...]}, or a COCO-like list of '
            '{"file_name": ..., "bbox": ...}.'
        ),
    ] = None,
    format: Annotated[str, option("Mesh files, any of glb,obj,ply.")] = "glb,obj,ply",
    viewer: Annotated[bool, option("Write a page: mesh, samples, reverse process.")] = True,
    steps: Annotated[
        int | None, option("Of the reverse process [default: as chosen on validation data].")
    ] = None,
    chains: Annotated[int | None, option("N, samples [default: reverse.chains].")] = None,
    focal: Annotated[
        float | None, option("Focal length in pixels, if known [default: a guess].")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame of a video.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Persons at once.")] = 8,
    device: Annotated[str | None, option("auto, cpu or cuda [default: compute.device].")] = None,
    checkpoint: Checkpoint = None,
    project: Project = Path("."),
) -> None:
    """Recover the mesh of the person (or right hand) in every picture; finished ones are skipped.

    One folder a person: overlay.png, mesh.glb/obj/ply (colour: spread of the samples),
    prediction.npz, viewer.html, record.json; and a contact sheet of all.
    """  # fmt: skip
    from hmdiff.compute import use_threads
    from hmdiff.errors import UserError
    from hmdiff.prediction.inputs import parse_box, read_detections
    from hmdiff.prediction.model import find_checkpoint, load
    from hmdiff.prediction.output import parse_formats
    from hmdiff.prediction.run import Options
    from hmdiff.prediction.run import predict as run

    if bbox and detections:
        raise UserError("--bbox: is given beside --detections; leave one of them out")
    if focal is not None and not focal > 0:
        raise UserError(f"--focal {focal:g}: not above 0; give pixels")
    options = Options(
        out=out,
        bbox=parse_box(bbox) if bbox else None,
        detections=read_detections(detections) if detections else None,
        focal=focal,
        formats=parse_formats(format),
        viewer=viewer,
        batch=batch,
        every=every,
    )
    folder = checkpoint or find_checkpoint(kind.value, project)
    recoverer = load(folder, device=device, steps=steps, chains=chains)
    if checkpoint and recoverer.body.kind.name != kind.value:
        raise UserError(f"{checkpoint}: recovers a {recoverer.body.kind.name}; give --kind")
    use_threads(recoverer.params.compute.threads_alone)
    outcome = run(recoverer, paths, options)
    typer.echo(f"{out}: {len(outcome.written)} written, {len(outcome.skipped)} were finished")
    if outcome.failed:
        raise UserError(
            f"{len(outcome.failed)} left out, see the warnings; mend them and run this again"
        )


@app.command()
def export_onnx(
    out: Annotated[Path, typer.Argument(help="The ONNX file.")] = Path("denoiser.onnx"),
    kind: KindName = KindName.body,
    checkpoint: Checkpoint = None,
    project: Project = Path("."),
) -> None:
    """Write one evaluation of the denoiser g as ONNX, after comparing it with torch."""
    from hmdiff.prediction.model import find_checkpoint
    from hmdiff.prediction.onnx_export import export_onnx as run
    from hmdiff.training.folder import load_model

    model = load_model(checkpoint or find_checkpoint(kind.value, project))
    difference = run(model, out)
    typer.echo(f"{out}: differs from torch by at most {difference:.1e} model units")
