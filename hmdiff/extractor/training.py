"""Pre-training of phi_I and phi_P on images with known joints (Sec. 5); then both are frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

from hmdiff.compute import autocast, generator
from hmdiff.datasets.prepared import PreparedFile, PreparedImages
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import jitter_colour, mirror, mirror_order
from hmdiff.extractor.heatmaps import heatmap_loss
from hmdiff.extractor.model import Extractor
from hmdiff.params.models import ExtractorParams

Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, 3, S, S), joints (B, J, 3), valid (B, J)


@dataclass(frozen=True)
class Pool:
    """Images of one split of one or several data sets, and a name of each for messages."""

    images: Dataset  # of (uint8 (3, S, S), joints (J, 3), valid (J,)), as PreparedImages
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


def split_pool(paths: Sequence[Path], split: str, image_size: int) -> Pool:
    """The images of ``split`` in all prepared files ``paths``, in their order.

    Raises:
        UserError: no file has an image of this split.
    """
    images, names = [], []
    for path in paths:
        with PreparedFile(path) as file:
            rows = file.indices(split)
            ids = file.sample_ids()
        names += [f"{path.stem}/{ids[row]}" for row in rows]
        images.append(PreparedImages(path, rows, image_size))
    if not names:
        raise UserError(
            f"{', '.join(map(str, paths))}: split: no image of {split!r}; "
            "raise its count in params.yaml and run prepare again"
        )
    return Pool(ConcatDataset(images), names)


def unit_range(images: Tensor, device: torch.device) -> Tensor:
    """uint8 RGB -> float32 in 0..1 on ``device``."""
    return images.to(device).float() / 255


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to ``peak`` over ``warmup`` steps, then half a cosine to 0 at ``steps``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def batches(count: int, batch: int, steps: int, order: torch.Generator) -> list[list[int]]:
    """Row numbers of ``steps`` batches: one permutation of ``count`` rows after the other."""
    needed = batch * steps
    rows = torch.cat([torch.randperm(count, generator=order) for _ in range(-(-needed // count))])
    return rows[:needed].view(steps, batch).tolist()


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
) -> list[dict[str, float]]:
    """Train ``extractor`` in place; return the curve (samples, loss, val_mpjpe in mm).

    AdamW, warm-up and cosine, gradient norm clipped; ``settings.validations`` evenly spaced
    validations, the last one after the last step. The order of the images and their augmentation
    depend on ``seed`` alone.

    Raises:
        UserError: the loss is not finite; the line names the step and the images.
    """
    extractor.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(
        extractor.parameters(),
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),  # not every device has it
    )
    steps = max(settings.samples // settings.batch, 1)
    plan = batches(len(train), settings.batch, steps, generator(seed, "extractor", "order"))
    loader = DataLoader(train.images, batch_sampler=plan, num_workers=workers)
    marks = {round(steps * (i + 1) / settings.validations) for i in range(settings.validations)}
    noise = generator(seed, "extractor", "augmentation")
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    for step, batch in enumerate(tqdm(loader, "pre-train", disable=None)):
        rate = learning_rate(step, steps, settings.warmup, settings.learning_rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _loss(extractor, batch, settings, noise, device, precision)
        if not loss.isfinite():
            names = ", ".join(train.names[row] for row in plan[step][:8])
            raise UserError(
                f"params.yaml: extractor learning_rate: the loss is not finite at step {step} "
                f"(images {names}, ...); lower it, or look at these images"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(extractor.parameters(), settings.clip)
        optimiser.step()
        losses.append(loss.item())
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


def _loss(
    extractor: Extractor,
    batch: Batch,
    settings: ExtractorParams,
    noise: torch.Generator,
    device: torch.device,
    precision: str,
) -> Tensor:
    images, joints, valid = _placed(batch, device)
    images = jitter_colour(images, settings.colour_gain, settings.colour_offset, noise)
    images, joints, valid = mirror(
        images, joints, valid, mirror_order(extractor.kind), settings.mirror, noise
    )
    with autocast(device, precision):
        _, xy, z = extractor(images)
    return heatmap_loss(
        xy, z, joints, valid, extractor.grid, settings.target_sigma, settings.l1_weight
    )


@torch.no_grad()
def validate(
    extractor: Extractor, pool: Pool, batch: int, device: torch.device, precision: str
) -> float:
    """MPJPE of U's mean in millimetres: over an image's valid joints, then over images."""
    extractor.eval()
    errors = [
        _joint_errors(extractor, rows, device, precision)
        for rows in DataLoader(pool.images, batch_size=batch)
    ]
    return torch.cat(errors).mean().item() * 1000


def _joint_errors(
    extractor: Extractor, batch: Batch, device: torch.device, precision: str
) -> Tensor:
    images, joints, valid = _placed(batch, device)
    with autocast(device, precision):
        extraction = extractor(images)
    distance = (extractor.prior(extraction).centre - joints).norm(dim=-1)
    distance = torch.where(valid, distance, 0.0)
    return distance.sum(-1) / valid.sum(-1).clamp(min=1)
