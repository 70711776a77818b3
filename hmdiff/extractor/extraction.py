"""Running the frozen extractor over images: f_I and U of each, or of changed copies of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hmdiff.compute import generator
from hmdiff.distributed import whole
from hmdiff.extractor.augmentation import draw_turn, jitter_colour, turn_images
from hmdiff.extractor.model import Extractor, image_feature
from hmdiff.params.models import AugmentationParams


@torch.no_grad()
def extract(
    extractor: Extractor,
    images: torch.Tensor,
    names: Sequence[str],
    *,
    draws: int,
    seed: int,
    precision: str,
) -> dict[str, np.ndarray]:
    """f_I and U of a batch.

    Args:
        images: (B, 3, S, S) RGB crops in 0..1, on the extractor's device.
        names: one a crop; its draws depend on it and on ``seed``, not on the batch.
        draws: N, samples of U an image.

    Returns:
        image_feature (B, 49, 128) float16, draws (B, N, J, 3), centre, peak and spread
        (B, J, 3); float32 metres, root-relative camera frame.
    """
    extraction = extractor.infer(images, precision)
    prior = extractor.prior(extraction)
    tensors = {
        "image_feature": image_feature(extraction.context).half(),
        "draws": prior.draws(draws, [generator(seed, "prior", name) for name in names]),
        "centre": prior.centre,
        "peak": prior.peak(),
        "spread": prior.spread,
    }
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


def changed_copies(
    images: torch.Tensor, names: Sequence[str], params: AugmentationParams, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Copies of images (B, 3, S, S) in 0..1 with other colours, angles and scales.

    They are not mirrored: a mirrored mesh would need to know which vertex takes whose place.

    Args:
        names: one a copy; its changes depend on it and on ``seed``, not on the batch.

    Returns:
        The copies, and the angles (B,) by which their truth must be turned
        (:func:`hmdiff.extractor.augmentation.turn_points`).
    """
    generators = [generator(seed, "copy", name) for name in names]
    coloured = [
        jitter_colour(image[None], params.colour_gain, params.colour_offset, random)
        for image, random in zip(images, generators, strict=True)
    ]
    turns = [draw_turn(whole(1), params, random) for random in generators]
    angles, sides = (torch.cat(column) for column in zip(*turns, strict=True))
    return turn_images(torch.cat(coloured), angles, sides), angles
