"""What a figure leaves: a picture, its numbers, its caption, and a run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hmdiff.evaluation.inputs import Inputs
from hmdiff.figures.drawing import save_png
from hmdiff.files import write_json, write_text
from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.tables.notices import STAND_IN
from hmdiff.tables.paper import dataset_title
from hmdiff.tracking import Run, dotted, log_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION = "3dpw_dat"  # whose model and images both figures show
ABOUT = "Figures 2 and 3 with our own models: pictures, and the numbers behind them."


def origin(inputs: Inputs) -> str:
    """A sentence on the images: real, or rendered stand-ins."""
    title = dataset_title(str(inputs.prepared.attrs["dataset"]))
    if inputs.source == "rendered":
        return f"Test images of {title}: {STAND_IN}."
    return f"Real test images of {title}."


def write_figure(
    name: str,
    out: Path,
    figure: Figure,
    numbers: pd.DataFrame,
    caption: str,
    source: str,
    params: Params,
    children: Sequence[Run] = (),
) -> None:
    """Write ``out``/NAME.png, .csv (``numbers``) and .json (``caption``), and log them."""
    commit = current_commit()
    paths = [out / f"{name}{suffix}" for suffix in (".png", ".csv", ".json")]
    save_png(figure, paths[0])
    write_text(paths[1], numbers.to_csv(index=False, lineterminator="\n"))
    write_json(paths[2], {"caption": caption, "source": source, "commit": commit})
    tags: dict[str, Any] = {"figure": name, "source": source, "commit": commit or "unknown"}
    sections = {
        "preset": params.preset, "seed": params.seed, "figures": params.figures,
        "reverse": params.reverse, "evaluations": params.evaluations[EVALUATION],
    }  # fmt: skip
    run = Run(
        f"{name} ({source}, preset {params.preset})",
        params=dict(dotted("", sections)),
        tags=tags,
        description=caption,
        artifacts=paths,
        children=children,
    )
    log_run("figures", run, ABOUT)
    print(f"{paths[0]}: {caption}")
