"""Training samples of g a second: the loop's step against the reference's, on the same batch.

On a processor also two trainings beside each other, of one thread each, as the engines run them.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor, nn

from hmdiff.benchmarks import reference
from hmdiff.benchmarks.timing import interleaved, rates, speed_up
from hmdiff.compute import generator, use_threads
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.extractor.features import Features
from hmdiff.optimiser import AdamW
from hmdiff.params.models import TrainingParams
from hmdiff.training.loop import update_average
from hmdiff.training.objective import Batch, Objective

BESIDE = 2  # trainings, one a core of the machines that this is made for


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
    """Samples a second of one process, ``steps`` steps a repeat, ``rows`` a batch, on the device
    of ``regressor``."""
    given = (model, rows, regressor, faces, params, precision, steps)
    times = interleaved(dict(zip(("g", "plain"), _steppers(*given), strict=True)), repeats)
    count = steps * len(rows)
    found = [
        rates("train g", count, times["g"], "samples/s"),
        rates("train g plain", count, times["plain"], "samples/s"),
        speed_up("train g speed-up", times["g"], "train g plain", times["plain"]),
    ]
    if regressor.device.type == "cpu":
        seconds = side_by_side(BESIDE, repeats, given)
        name = f"train g, {BESIDE} side by side"
        found += [
            rates(name, BESIDE * count, seconds, "samples/s"),
            speed_up(
                f"{name}, speed-up", [value / BESIDE for value in seconds],
                "train g plain", times["plain"],
            ),
        ]  # fmt: skip
    return found


def side_by_side(processes: int, repeats: int, given: tuple) -> list[float]:
    """Seconds of every repeat in which each of ``processes``, of one thread, does its steps.

    ``given`` are the arguments of :func:`_steppers`.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _meet, (barrier,)) as pool:
        jobs = [pool.submit(_beside_others, repeats, given) for _ in range(processes)]
        return [max(seconds) for seconds in zip(*(job.result() for job in jobs), strict=True)]


_barrier: Barrier | None = None  # of this process


def _meet(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    use_threads(1)


def _beside_others(repeats: int, given: tuple) -> list[float]:
    run, _ = _steppers(*given)
    times = []
    for _ in range(1 + repeats):
        _barrier.wait()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times[1:]


def _steppers(
    model: MeshDiffusion,
    rows: Features,
    regressor: Tensor,
    faces: Tensor,
    params: TrainingParams,
    precision: str,
    steps: int,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """``steps`` steps of the training loop, and of the reference."""
    device = regressor.device
    model = copy.deepcopy(model).to(device).train().requires_grad_(True)
    columns = vars(make_batch(rows, model))
    batch = Batch(**{name: column.to(device) for name, column in columns.items()})
    faces = faces.to(device)
    objective = Objective(model, regressor, faces, params, precision)

    def plain() -> Tensor:
        return reference.loss(model, batch, regressor, faces, objective.weights)

    return (
        _stepper(model, lambda: objective(batch)[0].sum(), AdamW, params, steps),
        _stepper(model, plain, torch.optim.AdamW, params, steps),
    )


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
