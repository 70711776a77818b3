"""The reverse diffusion process (Eq. 6-7, Algorithm 1); DAT and its variants are arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from hmdiff.diffusion.schedule import NoiseSchedule

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(h_k, k) -> (h0_hat, s), both shaped like h_k: g with Eq. 7."""

Guidance = Callable[[Predict, Tensor, int], tuple[Tensor, Tensor, Tensor | None]]
"""(predict, h_k, k) -> (h0_hat, s, push): ``push`` is what to subtract from h_{k-1}, or None."""


def reverse_process(
    predict: Predict,
    h_K: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    guidance: Guidance | None = None,
    eta: float = 0.0,
    noise: Callable[[], Tensor] | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Denoise ``h_K`` (..., V, 3) in ``steps`` steps; returns h_0 in the same model units.

    ``guidance`` is None for the standard process, or an
    :class:`~hmdiff.diffusion.alignment.Alignment`. ``noise`` draws z_k and is only called when
    ``eta`` > 0. ``callback(k, h_k, h0_hat)`` is called once a step, before the step is taken.
    """
    h = h_K  # Alg. 1 line 1
    for k, k_next in pairwise(schedule.visited_steps(steps)):  # Alg. 1 line 3, skipping (A17)
        if guidance is None:
            with torch.no_grad():
                h0_hat, s = predict(h, k)  # Alg. 1 lines 4-5, Eq. 7
            push = None
        else:
            h0_hat, s, push = guidance(predict, h, k)  # Alg. 1 lines 4-8
        if callback is not None:
            callback(k, h, h0_hat)
        alpha_next, sigma = schedule.alpha(k_next), schedule.sigma(k, k_next, eta)
        # Eq. 6, Alg. 1 line 11; the clamp absorbs rounding at the last step
        h = math.sqrt(max(1 - alpha_next - sigma**2, 0)) * s + math.sqrt(alpha_next) * h0_hat
        if push is not None:
            h = h - push  # Alg. 1 line 9
        if sigma > 0:
            h = h + sigma * noise()
    return h
