"""Figure 3: the N samples along the reverse process, as t-SNE and as curves.

t-SNE keeps neighbours and no distances, so that it alone says little; the curves have the
distances. Standard, Disrupted and DAT start from the same noise and see the same draws of U.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from hmdiff.diffusion.alignment import Alignment
from hmdiff.evaluation.metrics import MILLIMETRES
from hmdiff.extractor.features import Features
from hmdiff.figures.drawing import folded
from hmdiff.inference import Predictor
from hmdiff.params.runs import ReverseParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROCESSES = {
    "Standard": {"guidance": "none"},
    "Disrupted": {"guidance": "disrupted", "activation": False},
    "DAT": {"guidance": "dat"},
}
STYLES = {"Standard": "C0", "Disrupted": "C1", "DAT": "C2"}
SYMBOLS = {"h_k": "$h_k$", "h0_hat": r"$\hat{h}_0$"}
PERPLEXITY = 30  # sklearn's own; fewer points take a third of their number
ITERATIONS = 500


@dataclass(frozen=True)
class Trajectory:
    """One process on n images, from h_K to h_0.

    Attributes:
        k: (S + 1,) the visited steps, 0 last.
        meshes: (S + 1, n, N, Vc, 3) h_k, the last h_0; root-relative metres.
        estimates: (S + 1, n, N, Vc, 3) h^_0 at each of them; at 0 it is h_0.
        ratio: (S + 1, n, N) R_k; NaN where none was measured.
        active: (S + 1, n, N) 1 where the step was pulled towards U, else 0; NaN of h_0.
    """

    k: NDArray
    meshes: NDArray
    estimates: NDArray
    ratio: NDArray
    active: NDArray


def trace(
    predictor: Predictor, rows: Features, reverse: ReverseParams, steps: int, seed: int
) -> dict[str, Trajectory]:
    """Every process on ``rows``, with ``steps`` steps of ``reverse.chains`` chains."""
    return {
        name: _trajectory(predictor, rows, reverse=reverse, steps=steps, seed=seed, **how)
        for name, how in PROCESSES.items()
    }


def _trajectory(predictor: Predictor, rows: Features, **how) -> Trajectory:
    visited: list[tuple[int, NDArray, NDArray, NDArray, NDArray]] = []

    def record(_: int, k: int, h_k: Tensor, h0_hat: Tensor, alignment: Alignment | None) -> None:
        shape = h_k.shape[:2]
        ratio, active = torch.full(shape, torch.nan), torch.zeros(shape)
        if alignment is not None:
            active = alignment.active
            # Once every chain is off, R_k is no longer measured.
            ratio = alignment.ratio if active.any() else ratio
        parts = (h_k, h0_hat, ratio, active)
        visited.append((k, *(part.detach().float().cpu().numpy() for part in parts)))

    prediction = predictor.predict(rows, batch=len(rows), keep_chains=True, callback=record, **how)
    chains = prediction.chains.numpy()
    nothing = np.full(chains.shape[:2], np.nan)
    visited.append((0, chains, chains, nothing, nothing))
    return Trajectory(*(np.stack(part) for part in zip(*visited, strict=True)))


def curves(trajectories: dict[str, Trajectory], truth: NDArray) -> pd.DataFrame:
    """One row a process and step: means over images and chains, lengths in millimetres.

    ``distance`` is of a mesh from the truth (n, Vc, 3), mean over its vertices; ``spread`` the
    chains' root mean square distance from their mean. Both of h_k and of h^_0. ``ratio`` is R_k,
    ``active`` the share of chains that DAT (or Disrupted) pulled.
    """
    frames = []
    for name, part in trajectories.items():
        columns = {"process": name, "step": range(len(part.k)), "k": part.k}
        for label, meshes in (("h_k", part.meshes), ("h0_hat", part.estimates)):
            distance = np.linalg.norm(meshes - truth[None, :, None], axis=-1)
            columns[f"distance {label}"] = MILLIMETRES * distance.mean(axis=(1, 2, 3))
            squares = ((meshes - meshes.mean(axis=2, keepdims=True)) ** 2).sum(axis=-1)
            spread = np.sqrt(squares.sum(axis=2) / max(1, meshes.shape[2] - 1))
            columns[f"spread {label}"] = MILLIMETRES * spread.mean(axis=(1, 2))
        measured = ~np.isnan(part.ratio)
        total = np.where(measured, part.ratio, 0.0).sum(axis=(1, 2))
        counts = measured.sum(axis=(1, 2))
        columns["ratio"] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
        columns["active"] = part.active.mean(axis=(1, 2))
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True).round(6)


def embedding(trajectories: dict[str, Trajectory], truth: NDArray, seed: int) -> pd.DataFrame:
    """The first image's meshes of all processes and its truth (Vc, 3) in one t-SNE.

    One row a mesh: process (or ``truth``), step, chain, x, y.
    """
    from sklearn.manifold import TSNE  # takes a second

    points, labels = [truth.reshape(1, -1)], [("truth", -1, -1)]
    for name, part in trajectories.items():
        steps, _, chains = part.meshes.shape[:3]
        points.append(part.meshes[:, 0].reshape(steps * chains, -1))
        labels += [(name, step, chain) for step in range(steps) for chain in range(chains)]
    data = np.concatenate(points)
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(data) - 1) / 3),
        init="pca",
        max_iter=ITERATIONS,
        random_state=seed,
    )
    frame = pd.DataFrame(labels, columns=["process", "step", "chain"])
    with threadpool_limits(1):  # the last bits depend on how many threads there are
        frame[["x", "y"]] = tsne.fit_transform(data)
    return frame.round(4)


def draw_process(curve: pd.DataFrame, points: pd.DataFrame, caption: str) -> Figure:
    """t-SNE of each process above the curves, with ``caption`` below."""
    from matplotlib.figure import Figure

    figure = Figure((9.0, 6.6), layout="constrained")
    grid = figure.subplots(2, 3)
    last = int(curve["step"].max())
    (truth,) = points[points["process"] == "truth"][["x", "y"]].to_numpy()
    for name, panel in zip(PROCESSES, grid[0], strict=True):
        mine = points[points["process"] == name]
        for _, chain in mine.groupby("chain"):
            panel.plot(chain["x"], chain["y"], color="0.8", lw=0.5, zorder=1)
        colours = panel.scatter(
            mine["x"], mine["y"], c=mine["step"], s=8, cmap="viridis", vmin=0, vmax=last, zorder=2
        )
        panel.plot(*truth, "r*", ms=10, zorder=3)
        panel.set_title(f"{name}: t-SNE of $h_k$", fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    bar = figure.colorbar(colours, ax=grid[0], label="steps done")
    bar.ax.tick_params(labelsize=7)
    for name, lines in curve.groupby("process", sort=False):
        for label, style in zip(SYMBOLS, (":", "-"), strict=True):
            for panel, what in zip(grid[1], ("distance", "spread"), strict=False):
                panel.plot(
                    lines["step"], lines[f"{what} {label}"], style, color=STYLES[name],
                    label=f"{name}, {SYMBOLS[label]}",
                )  # fmt: skip
        if lines["ratio"].notna().any():
            grid[1, 2].plot(
                lines["step"], lines["ratio"], color=STYLES[name], label=f"{name}, $R_k$"
            )
            grid[1, 2].plot(
                lines["step"], lines["active"], "--", color=STYLES[name],
                label=f"{name}, active: {lines['active'].sum():.1f} of {last} steps",
            )  # fmt: skip
    titles = (
        "mean distance to the target (mm)",
        "spread of the chains (mm)",
        "$R_k$ and activation",
    )
    for panel, title in zip(grid[1], titles, strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("steps done", fontsize=8)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=6)
    for panel in grid[1, :2]:
        panel.set_yscale("log")
    figure.supxlabel(folded(caption), fontsize=7)
    return figure
