"""Commands about predictions: scoring anybody's, and writing ours in the field's formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app, option

ProtocolName = Annotated[str, option("3dpw, 3dpw_gendered, human36m or freihand.")]


@app.command()
def score(
    protocol: ProtocolName,
    gt: Annotated[Path, option("Truth: an .npz; freihand: the folder of evaluation_*.json.")],
    pred: Annotated[Path, option("Predictions: an .npz; freihand: a submission, .json or .zip.")],
    body: Annotated[Path, option("Body model whose regressor makes the joints of meshes.")] = Path(
        "models/body"
    ),
    regressor: Annotated[
        Path | None, option("METRO's or GraphCMR's J_regressor_h36m .npy, in place of --body's.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=1, help="Resamples behind the 95 % intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, option("Also write the JSON here.")] = None,
) -> None:
    """Score anybody's predictions under a protocol, with intervals over the samples.

    An .npz holds `vertices` (n, 6890, 3), or for human36m `joints` (n, 17, 3) in METRO's order,
    and may hold `sample_id` (n,), by which samples are then matched.
    """
    import json

    from hmdiff.evaluation.score_files import score_files
    from hmdiff.evaluation.scoring import lines
    from hmdiff.files import write_json

    record = score_files(protocol, gt, pred, body, regressor, bootstrap, seed)
    if out is not None:
        write_json(out, record)
    typer.echo(json.dumps(record, indent=1) if as_json else "\n".join(lines(record)))


@app.command()
def export(
    protocol: Annotated[str, option("The format: freihand.")],
    evaluation: Annotated[Path, option("Folder of an evaluation, say runs/evaluate/freihand_dat.")],
    out: Annotated[Path, option("The submission (.zip).")],
    models: Annotated[Path, option("Folder of the trained and body models.")] = Path("models"),
    prepared: Annotated[Path, option("Folder of the prepared data.")] = Path("data/prepared"),
    allow_partial: Annotated[
        bool, option("Write what there is where the evaluation left images out.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Write an evaluation's predictions as a submission to the benchmark."""
    from hmdiff.evaluation.export import export as run

    typer.echo(run(protocol, evaluation, out, models, prepared, allow_partial, params))
