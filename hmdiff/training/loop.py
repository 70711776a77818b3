"""The one training loop, for diffusion and direct models alike.

Plain torch. g is small, and experiments that run side by side fill several cores or GPUs better
than one that is split; where several processes share one (hmdiff/distributed.py), each computes its
rows of every batch, and gradients are added up. A wrapper of the model, such as torch's DDP, would
hide the parts of g that the objective calls one by one.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from hmdiff.batches import sample_batches
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.compute import generator
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.distributed import (
    Share,
    gathered,
    greatest,
    own_share,
    require_rows,
    sum_gradients,
    summed,
    take_main_weights,
)
from hmdiff.errors import UserError
from hmdiff.extractor.features import FeatureFiles, Features
from hmdiff.optimiser import AdamW
from hmdiff.params.models import TrainingParams
from hmdiff.training.objective import Batch, Objective

CURVE_POINTS = 40  # rows of curve.csv


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up over ``warmup`` steps times a cosine that reaches 0 after ``steps``."""
    return peak * min(1.0, (step + 1) / max(1, warmup)) * (1 + math.cos(math.pi * step / steps)) / 2


def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """One step of the exponential moving average; young averages forget faster."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def train(
    model: MeshDiffusion,
    features: Features | FeatureFiles,
    regressor: Tensor,
    faces: Tensor,
    params: TrainingParams,
    *,
    weights: Tensor | None = None,
    seed: int,
    device: torch.device,
    precision: str,
    name: str = "train",
    checkpoints: Checkpoints = UNSAVED,
) -> tuple[MeshDiffusion, list[dict[str, float]]]:
    """Train ``model`` on ``features``; returns the averaged model and the curve.

    Args:
        regressor, faces: f (J, Vc) and the triangles (F, 3) of the coarse mesh.
        weights: (n,) how often each row of ``features`` is seen in an epoch; None: once.
        name: the experiment, for messages.
        checkpoints: snapshots to go on from, and where to write others.

    The curve has the mean of every loss term since its last row, and the samples seen. Several
    processes give all of them the same model and curve.

    Raises:
        UserError: the loss is no longer finite; the line names step and samples. There are more
            processes than samples in a batch.
    """
    require_rows(params.batch, "training.batch")
    model = model.to(device).train()
    take_main_weights(model)
    average = copy.deepcopy(model)
    objective = Objective(model, regressor.to(device), faces.to(device), params, precision)
    optimiser = AdamW(model.parameters(), weight_decay=params.weight_decay)
    random = generator(seed, "training noise")
    steps = math.ceil(params.samples / params.batch)
    warmup = params.warmup // params.batch
    curve: list[dict[str, float]] = []
    since: list[dict[str, Tensor]] = []
    weights = torch.ones(len(features)) if weights is None else weights
    order = sample_batches(weights, params.samples, params.batch, generator(seed, "training order"))
    kept = {"model": model, "average": average, "optimiser": optimiser, "noise": random}
    kept |= {"curve": curve, "since": since}
    batches = checkpoints.steps(lambda first: islice(order, first, None), steps, kept, name)
    for step, indices in batches:
        rate = learning_rate(step, steps, warmup, params.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        share = own_share(len(indices))
        batch = _batch(features, indices, share, model, random, device)
        shares, means = objective(batch, summed(objective.counts(batch)))
        wrong = [features.sample_id[i] for i in indices[share.rows][~shares.isfinite().cpu()]]
        if greatest(len(wrong)):
            wrong = [name for part in gathered(wrong) for name in part]
            raise UserError(
                f"train@{name}: the loss is not finite at step {step} for {len(wrong)} samples "
                f"({', '.join(wrong[:3])}); lower training.learning_rate or check their features"
            )
        optimiser.zero_grad()
        shares.sum().backward()
        sum_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), params.clip)
        optimiser.step()
        update_average(average, model, step, params.ema)
        terms = summed(torch.stack([*means.values()]))
        since.append(dict(zip(means, terms, strict=True)))
        if (step + 1) * CURVE_POINTS // steps > step * CURVE_POINTS // steps:
            row = {key: sum(float(m[key]) for m in since) / len(since) for key in means}
            seen = min((step + 1) * params.batch, params.samples)
            curve.append({"samples": seen, "learning_rate": rate, **row})
            since.clear()
    return average.eval(), curve


def _batch(
    features: Features | FeatureFiles,
    indices: Tensor,
    share: Share,
    model: MeshDiffusion,
    random: torch.Generator,
    device: torch.device,
) -> Batch:
    """A ``share`` of the rows ``indices``."""
    rows = features.select(indices[share.rows])
    k = share.draw(partial(torch.randint, 1, model.schedule.steps + 1), random=random)
    z = share.draw(torch.randn, *rows.coarse.shape[1:], random=random)
    return Batch(
        image_feature=rows.image_feature.to(device),
        draws=rows.draws.to(device),
        centre=rows.centre.to(device),
        coarse=rows.coarse.to(device),
        joints=rows.joints.to(device),
        valid_mesh=rows.valid_mesh.to(device),
        valid_joints=rows.valid_joints.to(device),
        k=k.to(device),
        z=z.to(device),
    )
