"""Pre-training of phi_I and phi_P on images with known joints (Sec. 5); then both are frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from hmdiff.batches import row_weights, sample_batches
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.compute import autocast, generator
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.distributed import (
    Share,
    gathered,
    own_share,
    process_count,
    process_number,
    require_rows,
    sum_gradients,
    summed,
    take_main_weights,
)
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import jitter_colour, mirror, mirror_order, turn
from hmdiff.extractor.batchnorm import shared_statistics
from hmdiff.extractor.heatmaps import heatmap_loss
from hmdiff.extractor.held_out import divide
from hmdiff.extractor.model import Extractor, unit_range
from hmdiff.optimiser import AdamW
from hmdiff.params.models import ExtractorParams

Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, 3, S, S), joints (B, J, 3), valid (B, J)


@dataclass(frozen=True)
class Pool:
    """Images of one split of one or several data sets."""

    images: Dataset  # of (uint8 (3, S, S), joints (J, 3), valid (J,)), as PreparedImages
    names: Sequence[str]  # of each image, for messages
    weights: Tensor  # (n,) how often each image is seen in an epoch

    def __len__(self) -> int:
        return len(self.names)


def split_pool(
    paths: Sequence[Path],
    weights: Sequence[float],
    split: str,
    image_size: int,
    held_out: float = 0.0,
) -> Pool:
    """The images of ``split`` in all prepared files ``paths``, in their order.

    Args:
        weights: one a file, see :class:`Pool`.
        held_out: share of each file's images that is left out, see :func:`divide`.

    Raises:
        UserError: no file has an image of this split.
    """
    images, names = [], []
    for path in paths:
        with PreparedFile(path) as file:
            rows, _ = divide(file.indices(split), held_out)
            ids = file.sample_ids()
        names += [f"{path.stem}/{ids[row]}" for row in rows]
        images.append(PreparedImages(path, rows, image_size))
    if not names:
        raise UserError(
            f"{', '.join(map(str, paths))}: split: no image of {split!r}; "
            "raise its count in params.yaml and run prepare again"
        )
    counts = [len(part) for part in images]
    return Pool(ConcatDataset(images), names, row_weights(counts, weights))


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to ``peak`` over ``warmup`` steps, then half a cosine to 0 at ``steps``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def train_extractor(
    extractor: Extractor,
    train: Pool,
    validation: Pool,
    settings: ExtractorParams,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    workers: int,
    checkpoints: Checkpoints = UNSAVED,
) -> list[dict[str, float]]:
    """Train ``extractor`` in place; return the curve (samples, loss, val_mpjpe in mm).

    AdamW, warm-up and cosine, gradient norm clipped; ``settings.validations`` evenly spaced
    validations, the last one after the last step. The order of the images and their augmentation
    depend on ``seed`` alone. With ``settings.micro_batch`` the gradients are those of the whole
    batch but for BatchNorm, whose statistics are then those of each part. Several processes decode
    and compute their share of each part, with the statistics of all of it.

    Raises:
        UserError: the loss is not finite; the line names the step and the images. There are more
            processes than images in a part.
    """
    part = settings.micro_batch or settings.batch
    require_rows(part, "extractor batch, micro_batch")
    extractor.to(device, memory_format=torch.channels_last).train()
    take_main_weights(extractor)
    optimiser = AdamW(
        extractor.parameters(),
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),  # not every device has it
    )
    steps = max(settings.samples // settings.batch, 1)

    def plan() -> Iterator[list[int]]:
        order = generator(seed, "extractor", "order")
        for rows in sample_batches(train.weights, steps * settings.batch, settings.batch, order):
            yield rows.tolist()

    share = own_share(settings.batch, part)

    def loader(first: int) -> DataLoader:
        batches = ([rows[i] for i in share.rows] for rows in islice(plan(), first, None))
        # A generator of its own: a loader that starts anew must not move torch's.
        own = torch.Generator()
        return DataLoader(train.images, batch_sampler=batches, num_workers=workers, generator=own)

    marks = {round(steps * (i + 1) / settings.validations) for i in range(settings.validations)}
    noise = generator(seed, "extractor", "augmentation")
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    kept = {"model": extractor, "optimiser": optimiser, "noise": noise}
    kept |= {"curve": curve, "losses": losses}
    for step, batch in checkpoints.steps(loader, steps, kept, "pre-train"):
        rate = learning_rate(step, steps, settings.warmup, settings.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss = _backward(extractor, batch, share, settings, noise, device, precision)
        if not math.isfinite(loss):
            rows = next(islice(plan(), step, None))
            names = ", ".join(train.names[row] for row in rows[:8])
            raise UserError(
                f"params.yaml: extractor learning_rate: the loss is not finite at step {step} "
                f"(images {names}, ...); lower it, or look at these images"
            )
        sum_gradients(extractor)
        nn.utils.clip_grad_norm_(extractor.parameters(), settings.clip)
        optimiser.step()
        losses.append(loss)
        if step + 1 in marks:
            error = validate(extractor, validation, settings.batch, device, precision)
            curve.append(
                {
                    "samples": (step + 1) * settings.batch,
                    "loss": round(sum(losses) / len(losses), 5),
                    "val_mpjpe": round(error, 3),
                }
            )
            losses.clear()
            extractor.train()
    extractor.eval()
    return curve


def _placed(batch: Batch, device: torch.device) -> Batch:
    images, joints, valid = batch
    return unit_range(images, device), joints.to(device), valid.to(device)


def _backward(
    extractor: Extractor,
    batch: Batch,
    share: Share,
    settings: ExtractorParams,
    noise: torch.Generator,
    device: torch.device,
    precision: str,
) -> float:
    """Add the gradients of a share of an augmented batch, part by part; return its loss."""
    changes = settings.augmentation
    images, joints, valid = _placed(batch, device)
    images = jitter_colour(images, changes.colour_gain, changes.colour_offset, noise, share)
    images, joints, valid = mirror(
        images, joints, valid, mirror_order(extractor.kind), changes.mirror, noise, share
    )
    images, joints = turn(images, joints, changes, noise, share)
    total = 0.0
    known = summed(valid.sum())
    size = settings.micro_batch or share.count
    sizes = [len(own_share(size).rows)] * (share.count // size)
    for part in zip(images.split(sizes), joints.split(sizes), valid.split(sizes), strict=True):
        with autocast(device, precision), shared_statistics():
            _, xy, z = extractor(part[0])
        loss = heatmap_loss(
            xy, z, *part[1:], extractor.grid, settings.target_sigma, settings.l1_weight
        )
        # Each part's loss is a mean over its own valid joints.
        loss = loss * (part[2].sum() / known.clamp(min=1))
        loss.backward()
        total += loss.item()
    return summed(torch.tensor(total, dtype=torch.float64)).item()


@torch.no_grad()
def validate(
    extractor: Extractor, pool: Pool, batch: int, device: torch.device, precision: str
) -> float:
    """MPJPE of U's mean in millimetres: over an image's valid joints, then over images.

    Several processes take batches in turn.
    """
    extractor.eval()
    batches = list(torch.arange(len(pool)).split(batch))
    mine = [rows.tolist() for rows in batches[process_number() :: process_count()]]
    errors = [
        _joint_errors(extractor, rows, device, precision).cpu()
        for rows in DataLoader(pool.images, batch_sampler=mine)
    ]
    every = gathered(errors)
    in_turn = [every[i % len(every)][i // len(every)] for i in range(len(batches))]
    return torch.cat(in_turn).mean().item() * 1000


def _joint_errors(
    extractor: Extractor, batch: Batch, device: torch.device, precision: str
) -> Tensor:
    images, joints, valid = _placed(batch, device)
    with autocast(device, precision):
        extraction = extractor(images)
    distance = (extractor.prior(extraction).centre - joints).norm(dim=-1)
    distance = torch.where(valid, distance, 0.0)
    return distance.sum(-1) / valid.sum(-1).clamp(min=1)
