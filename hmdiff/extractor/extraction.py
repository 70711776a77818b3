"""Running the frozen extractor over images: f_I and U of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hmdiff.compute import autocast, generator
from hmdiff.extractor.model import Extractor, image_feature
from hmdiff.extractor.training import unit_range


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
        images: (B, 3, S, S) uint8 RGB crops.
        names: one a crop; its draws depend on it and on ``seed``, not on the batch.
        draws: N, samples of U an image.

    Returns:
        image_feature (B, 49, 128) float16, draws (B, N, J, 3), centre, peak and spread
        (B, J, 3); float32 metres, root-relative camera frame.
    """
    device = extractor.mean.device
    with autocast(device, precision):
        extraction = extractor(unit_range(images, device))
    prior = extractor.prior(extraction)
    tensors = {
        "image_feature": image_feature(extraction.context).half(),
        "draws": prior.draws(draws, [generator(seed, "prior", name) for name in names]),
        "centre": prior.centre,
        "peak": prior.peak(),
        "spread": prior.spread,
    }
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
