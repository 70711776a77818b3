"""Figure 2: predictions over images, from the side, and where chains disagree or are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hmdiff.evaluation.inputs import Inputs
from hmdiff.evaluation.metrics import MILLIMETRES
from hmdiff.figures.drawing import PLAIN, draw_mesh, folded, side_view

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = ("image", "prediction", "from the side", "truth, from the side", "spread", "error")
SIZE = 1.6  # inches of a picture's side


@dataclass(frozen=True)
class Shown:
    """One image with what was predicted; lengths in metres, camera frame.

    Attributes:
        image: (S, S, 3) uint8 crop; white of real images, which nobody may pass on with the
            figure. camera: (3, 3), its pixels.
        root: (3,) where the true root joint is; the prediction, which has no place, is put there.
        mesh, truth: (V, 3) root-relative.
        spread, error: (V,) millimetres: the chains' root mean square distance from their mean,
            and the mean's distance from the truth.
    """

    sample_id: str
    image: NDArray
    camera: NDArray
    root: NDArray
    mesh: NDArray
    truth: NDArray
    spread: NDArray
    error: NDArray


def predict_shown(inputs: Inputs, **how: Any) -> list[Shown]:
    """Predictions for the rows of ``inputs``; ``how`` is handed to :meth:`Predictor.predict`."""
    file, rows = inputs.prepared, inputs.loaded()
    row_of = {name: row for row, name in enumerate(file.sample_ids())}
    indices = np.array([row_of[name] for name in rows.sample_id])
    cameras, roots = file.array("camera")[indices], file.array("root")[indices]
    truths = file.meshes(indices, inputs.body)
    prediction = inputs.predictor.predict(
        rows, keep_chains=True, reverse=inputs.params.reverse, seed=inputs.params.seed, **how
    )
    shown = []
    for at, index in enumerate(indices):
        chains = inputs.predictor.full(prediction.chains[at]).numpy()
        mesh = prediction.full[at].numpy()
        squares = ((chains - chains.mean(axis=0)) ** 2).sum(axis=-1).sum(axis=0)
        shown.append(
            Shown(
                sample_id=rows.sample_id[at],
                image=_shareable(inputs, int(index)),
                camera=cameras[at],
                root=roots[at],
                mesh=mesh,
                truth=truths[at],
                spread=MILLIMETRES * np.sqrt(squares / max(1, len(chains) - 1)),
                error=MILLIMETRES * np.linalg.norm(mesh - truths[at], axis=-1),
            )
        )
    return shown


def _shareable(inputs: Inputs, index: int) -> NDArray:
    image = inputs.prepared.image(index)
    return image if inputs.source == "rendered" else np.full_like(image, 255)


def numbers(shown: list[Shown]) -> pd.DataFrame:
    """One row an image: mean spread and error of its vertices, and how they go together."""
    return pd.DataFrame(
        {
            "sample_id": one.sample_id,
            "spread (mm)": round(float(one.spread.mean()), 3),
            "error (mm)": round(float(one.error.mean()), 3),
            "correlation over vertices": round(_correlation(one.spread, one.error), 3),
        }
        for one in shown
    )


def draw_predictions(shown: list[Shown], faces: NDArray, caption: str) -> Figure:
    """One row an image, with ``caption`` below; the colours have one range for all rows."""
    from matplotlib import cm, colors
    from matplotlib.figure import Figure

    figure = Figure((SIZE * len(TITLES) + 1.2, SIZE * len(shown) + 0.9), layout="constrained")
    panels = figure.subplots(len(shown), len(TITLES), squeeze=False)
    limits = {
        name: max(1.0, max(float(np.percentile(getattr(one, name), 99)) for one in shown))
        for name in ("spread", "error")
    }
    maps = {
        name: cm.ScalarMappable(colors.Normalize(0, limit), "viridis")
        for name, limit in limits.items()
    }
    for line, one in zip(panels, shown, strict=True):
        plain = np.broadcast_to(PLAIN, one.mesh.shape)
        white = np.full_like(one.image, 255)
        place = one.mesh + one.root
        pictures = [
            one.image,
            draw_mesh(place, faces, plain, one.camera, one.image),
            *(
                draw_mesh(side_view(mesh, one.root), faces, plain, one.camera, white)
                for mesh in (one.mesh, one.truth)
            ),
            *(
                draw_mesh(
                    place, faces, maps[name].to_rgba(getattr(one, name))[:, :3], one.camera, white
                )
                for name in maps
            ),
        ]
        for panel, picture in zip(line, pictures, strict=True):
            panel.imshow(picture)
            panel.set_xticks([])
            panel.set_yticks([])
    for panel, title in zip(panels[0], TITLES, strict=True):
        panel.set_title(title, fontsize=9)
    for name, mapping in maps.items():
        bar = figure.colorbar(mapping, ax=panels[:, TITLES.index(name)], location="bottom")
        bar.set_label(f"{name} (mm)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    figure.supxlabel(folded(caption), fontsize=7)
    return figure


def _correlation(first: NDArray, second: NDArray) -> float:
    if not first.std() or not second.std():
        return float("nan")
    return float(torch.corrcoef(torch.tensor(np.stack([first, second])))[0, 1])
