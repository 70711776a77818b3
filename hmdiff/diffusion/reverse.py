"""The reverse diffusion process (Eq. 6-7, Algorithm 1); DAT and its variants are arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.errors import UserError

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
    solver: Literal["ddim", "dpmpp_2m"] = "ddim",
) -> Tensor:
    """Denoise ``h_K`` (..., V, 3) in ``steps`` steps; returns h_0 in the same model units.

    ``guidance`` is None for the standard process, or an
    :class:`~hmdiff.diffusion.alignment.Alignment`. ``noise`` draws z_k and is only called when
    ``eta`` > 0. ``callback(k, h_k, h0_hat)`` is called once a step, before the step is taken.

    ``solver`` is DDIM (Eq. 6), or DPM-Solver++(2M) of Lu et al. 2022 (Algorithm 2), which takes
    DDIM's step with h^_0 carried on along its own change since the step before: second order at
    one evaluation of g a step. Its first step, which has no step before, and its last, to
    alpha_0 = 1, are DDIM's. DAT is the same with both: its gradient is taken at h_k through the
    h^_0 that g says there, and subtracted from the finished h_{k-1} (Algorithm 1, line 9). The
    h^_0 that was kept stays as it was said, at the h_k before that push; so the next step
    carries on what DAT changed, too.

    Raises:
        UserError: ``eta`` > 0 with a solver that has no noise, or more steps than K.
    """
    if solver != "ddim" and eta > 0:
        raise UserError(
            f"params.yaml: reverse.eta: {eta}, but reverse.solver {solver} takes no noise; set "
            "eta to 0 or the solver to ddim"
        )
    before: tuple[int, Tensor] | None = None  # k and h0_hat of the step before
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
        if solver == "dpmpp_2m":
            before, last = (k, h0_hat), before
            if last is not None and k_next > 0:
                h0_hat, s = _carried_on(schedule, h, h0_hat, last, k, k_next)
        alpha_next, sigma = schedule.alpha(k_next), schedule.sigma(k, k_next, eta)
        # Eq. 6, Alg. 1 line 11; the clamp absorbs rounding at the last step
        h = math.sqrt(max(1 - alpha_next - sigma**2, 0)) * s + math.sqrt(alpha_next) * h0_hat
        if push is not None:
            h = h - push  # Alg. 1 line 9
        if sigma > 0:
            h = h + sigma * noise()
    return h


def _carried_on(
    schedule: NoiseSchedule,
    h: Tensor,
    h0_hat: Tensor,
    before: tuple[int, Tensor],
    k: int,
    k_next: int,
) -> tuple[Tensor, Tensor]:
    """D_i of Lu et al. 2022 (Algorithm 2, line 8) for the step from k to k_next, and its s.

    With lambda = log(alpha_t / sigma_t) of their notation, half of the log signal-to-noise ratio,
    and r the ratio of the step before to this one: D = h^_0 + (h^_0 - h^_0 before) / (2 r).
    """
    k_before, h0_before = before
    last, this = (
        schedule.half_log_snr(b) - schedule.half_log_snr(a) for a, b in ((k_before, k), (k, k_next))
    )
    carried = h0_hat + this / (2 * last) * (h0_hat - h0_before)
    alpha = schedule.alpha(k)
    return carried, (h - math.sqrt(alpha) * carried) / math.sqrt(1 - alpha)  # Eq. 7
