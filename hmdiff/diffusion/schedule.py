"""Noise levels: the sequence alpha_{0:K}, Eq. 4, sigma_k, and the steps that DDIM visits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hmdiff.errors import UserError
from hmdiff.params.models import DiffusionParams


@dataclass(frozen=True)
class NoiseSchedule:
    """The decreasing sequence alpha_{0:K} of Sec. 3, as (K+1,) float64 with alpha_0 = 1.

    The paper's alpha is cumulative (Eq. 3), the alpha-bar of DDPM. alpha_0 = 1 makes the last
    reverse step return h^_0 itself.
    """

    alphas: Tensor

    @classmethod
    def from_params(cls, params: DiffusionParams) -> NoiseSchedule:
        """Every kind starts at alpha_1 = ``alpha_first`` and ends at alpha_K = ``alpha_last``.

        ``linear_alpha`` interpolates alpha itself, the literal reading of "linear interpolation"
        in Sec. 5; ``linear_beta`` interpolates the one-step noise 1 - alpha_k / alpha_{k-1}
        (Ho et al. 2020); ``cosine`` follows Nichol and Dhariwal 2021.
        """
        count, first, last = params.steps, params.alpha_first, params.alpha_last
        if first <= last:
            raise UserError(
                f"params.yaml: diffusion.alpha_last: {last} is not below alpha_first {first}; "
                "alpha must decrease"
            )
        if params.schedule == "linear_alpha":
            alphas = torch.linspace(first, last, count, dtype=torch.float64)
        elif params.schedule == "linear_beta":
            alphas = _linear_beta(count, first, last)
        else:
            phase = torch.arange(1, count + 1, dtype=torch.float64) / count
            curve = torch.cos((phase + 0.008) / 1.008 * math.pi / 2) ** 2
            # Stretched onto the end points: clipping would repeat alpha_last at the end.
            fraction = (curve - curve[-1]) / (curve[0] - curve[-1]).clamp_min(1e-12)
            alphas = last + (first - last) * fraction
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), alphas]))

    @property
    def steps(self) -> int:
        """K."""
        return len(self.alphas) - 1

    def alpha(self, k: int) -> float:
        """alpha_k."""
        return float(self.alphas[k])

    def half_log_snr(self, k: int) -> float:
        """lambda_k = log sqrt(alpha_k / (1 - alpha_k)), for k > 0."""
        alpha = self.alpha(k)
        return 0.5 * math.log(alpha / (1 - alpha))

    def add_noise(self, h_0: Tensor, k: Tensor, z: Tensor) -> Tensor:
        """h_k of the forward process for meshes (B, ..., 3), steps k (B,) and noise z like h_0."""
        alpha = self.alphas[k.cpu()].view(-1, *[1] * (h_0.ndim - 1)).to(h_0)
        return alpha.sqrt() * h_0 + (1 - alpha).sqrt() * z  # Eq. 4

    def sigma(self, k: int, k_next: int, eta: float) -> float:
        """sigma_k of a step from k to k_next: ``eta`` times the value that gives DDPM.

        With skipped steps k_next takes the place of k - 1 (Song et al. 2021, Eq. 16).
        """
        alpha, alpha_next = self.alpha(k), self.alpha(k_next)
        # Eq. 6, text
        return eta * math.sqrt((1 - alpha_next) / (1 - alpha)) * math.sqrt(1 - alpha / alpha_next)

    def visited_steps(self, count: int) -> list[int]:
        """``count + 1`` decreasing indices from K to 0, evenly spaced (A17).

        Raises:
            UserError: more steps than K.
        """
        if not 1 <= count <= self.steps:
            raise UserError(
                f"params.yaml: methods.*.candidates or speed.steps: {count} is not between 1 and "
                f"diffusion.steps = {self.steps}; choose a number in that range"
            )
        return [round(self.steps * (count - i) / count) for i in range(count + 1)]


def _linear_beta(count: int, first: float, last: float) -> Tensor:
    """alpha_{1:K} for betas linear from 1 - first, the last one found so that alpha_K = last."""
    low, high = 0.0, 1.0
    for _ in range(100):  # bisection to float64 precision
        middle = (low + high) / 2
        betas = torch.linspace(1 - first, middle, count, dtype=torch.float64)
        betas[0] = 1 - first
        alphas = torch.cumprod(1 - betas, 0)
        low, high = (middle, high) if alphas[-1] > last else (low, middle)
    return alphas
