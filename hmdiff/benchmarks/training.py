"""Training samples of g a second: the loop's step against the reference's, on the same batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hmdiff.benchmarks import reference
from hmdiff.benchmarks.timing import interleaved, rates, speed_up
from hmdiff.compute import generator
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.extractor.features import Features
from hmdiff.optimiser import AdamW
from hmdiff.params.models import TrainingParams
from hmdiff.training.loop import update_average
from hmdiff.training.objective import Batch, Objective


def make_batch(rows: Features, model: MeshDiffusion, seed: int = 0) -> Batch:
    """``rows`` with steps and noise of their own; every mesh and joint counts as valid."""
    random = generator(seed, "benchmark")
    count = len(rows)
    return Batch(
        image_feature=rows.image_feature.float(),
        draws=rows.draws.float(),
        centre=rows.centre.float(),
        coarse=rows.coarse,
        joints=rows.joints,
        valid_mesh=torch.ones(count, dtype=torch.bool),
        valid_joints=torch.ones_like(rows.valid_joints),
        k=torch.randint(1, model.schedule.steps + 1, (count,), generator=random),
        z=torch.randn(rows.coarse.shape, generator=random),
    )


def records(
    model: MeshDiffusion,
    rows: Features,
    regressor: Tensor,
    faces: Tensor,
    params: TrainingParams,
    precision: str,
    repeats: int,
    steps: int = 5,
) -> list[dict[str, Any]]:
    """Samples a second on the CPU of one process, ``steps`` steps a repeat, ``rows`` a batch."""
    model = copy.deepcopy(model).cpu().train().requires_grad_(True)
    batch = make_batch(rows, model)
    objective = Objective(model, regressor.cpu(), faces, params, precision)

    def plain() -> Tensor:
        return reference.loss(model, batch, regressor.cpu(), faces, objective.weights)

    things = {
        "g": _stepper(model, lambda: objective(batch)[0].sum(), AdamW, params, steps),
        "plain": _stepper(model, plain, torch.optim.AdamW, params, steps),
    }
    times = interleaved(things, repeats)
    count = steps * len(rows)
    return [
        rates("train g", count, times["g"], "samples/s"),
        rates("train g plain", count, times["plain"], "samples/s"),
        speed_up("train g speed-up", times["g"], "train g plain", times["plain"]),
    ]


def _stepper(
    model: MeshDiffusion,
    loss: Callable[[], Tensor],
    optimiser: Callable[..., torch.optim.Optimizer],
    params: TrainingParams,
    steps: int,
) -> Callable[[], None]:
    average = copy.deepcopy(model)
    # No step changes a weight: both sides keep seeing the same numbers.
    chosen = optimiser(model.parameters(), lr=0.0, weight_decay=0.0)

    def run() -> None:
        for step in range(steps):
            chosen.zero_grad()
            loss().backward()
            nn.utils.clip_grad_norm_(model.parameters(), params.clip)
            chosen.step()
            update_average(average, model, step, params.ema)

    return run
