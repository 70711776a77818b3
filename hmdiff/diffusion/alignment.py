"""The Distribution Alignment Technique (Sec. 4.2, Eq. 9-10, Algorithm 1) and its ablations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hmdiff.diffusion.reverse import Predict
from hmdiff.diffusion.schedule import NoiseSchedule


def distribution_gap(draws: Tensor, pose: Tensor, reduction: str, weight: float = 1.0) -> Tensor:
    """D_k (B, N) between samples ``draws`` (B, n, J, 3) of U and poses (B, N, J, 3).

    ``reduction`` is Eq. 10's ``sum`` over the n draws, or ``mean``.
    """
    squares = (draws[:, None] - pose[:, :, None]).square().sum((-2, -1))  # (B, N, n)
    total = squares.sum(-1) if reduction == "sum" else squares.mean(-1)
    return weight * total  # Eq. 10


def prior_spread(draws: Tensor, reduction: str, weight: float = 1.0) -> Tensor:
    """The part (B, 1) of D_k that no mesh can reduce: U's own spread about its mean (A8, A9)."""
    centre = draws.mean(1, keepdim=True)
    return distribution_gap(draws, centre, reduction, weight)


@dataclass
class Alignment:
    """DAT as the ``guidance`` of one reverse process of B images with N chains each.

    Every chain sees the same draws of its image (A10) and has its own activation flag, which is
    never raised again once it fell (Alg. 1 line 11). After the process ``active_steps`` (B, N)
    counts the steps with DAT and ``ratio`` (B, N) is the last R_k that was measured.

    Attributes:
        draws: (B, n, J, 3) samples of U, or (B, 1, J, 3) with the one pose u_c; model units.
        regressor: f, (J, V).
        measured_on: ``h0`` compares U with h^_0 (DAT); ``h`` compares it with h_k itself, the
            "Disrupted" row of Table 5.
        first_gap: D_K is the gap of h^_0 at the first step (Alg. 1 line 6) for ``h0``, that of
            h_K itself for ``raw``; ``excess`` leaves U's own spread out of every D_k.
        gradient: ``through_g`` differentiates g as the text of Sec. 4.2 says; ``frozen`` takes
            s as a constant, so that dh^_0/dh_k = 1 / sqrt(alpha_k).
        activation: False keeps DAT on in every step ("Ours w/o AS").
        weight: factor on D_k (A8: n of the full prior where u_c stands for all of it).
        guided: steps k with a gradient, where it is not all of them; R_k is measured, and DAT
            switched off by it, in the others too, which take no backward pass.
        static: never ask whether a chain is still active, but go on for all of them and take no
            push from those that are not. The same numbers, for more operations; nothing depends
            on a number then, so that the process can be recorded (:mod:`hmdiff.replay`).
    """

    draws: Tensor
    regressor: Tensor
    schedule: NoiseSchedule
    gamma: float
    threshold: float
    reduction: Literal["sum", "mean"] = "sum"
    first_gap: Literal["h0", "raw", "excess"] = "h0"
    gradient: Literal["through_g", "frozen"] = "through_g"
    measured_on: Literal["h0", "h"] = "h0"
    activation: bool = True
    weight: float = 1.0
    guided: Collection[int] | None = None
    static: bool = False
    active: Tensor | None = field(default=None, init=False)
    active_steps: Tensor | None = field(default=None, init=False)
    ratio: Tensor | None = field(default=None, init=False)
    _initial: Tensor | None = field(default=None, init=False)

    def __call__(self, predict: Predict, h: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """One step's (h0_hat, s, gamma times the gradient of D_k) for h (B, N, V, 3)."""
        if self.active is None:
            self.active = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
            self.active_steps = torch.zeros(h.shape[:2], dtype=torch.long, device=h.device)
        if not (self.static or self.active.any()):
            with torch.no_grad():
                return *predict(h, k), None
        guided = self.guided is None or k in self.guided
        through_g = self.measured_on == "h0" and self.gradient == "through_g"
        with torch.set_grad_enabled(guided and through_g):
            source = h.detach().requires_grad_()
            h0_hat, s = predict(source, k)  # Alg. 1 lines 4-5
        through = source
        if self.measured_on == "h":
            mesh = source
        elif self.gradient == "frozen":
            mesh = through = h0_hat.detach().requires_grad_()
        else:
            mesh = h0_hat
        with torch.set_grad_enabled(guided):
            gap = self._gap(mesh)  # Alg. 1 line 6
        if self._initial is None:
            self._initial = self._gap(h) if self.first_gap == "raw" else gap.detach()
        ratio = gap.detach() / self._initial  # Alg. 1 line 7
        if self.static and self.ratio is not None:
            ratio = torch.where(self.active.any(), ratio, self.ratio)
        self.ratio = ratio
        if self.activation:
            self.active &= self.ratio >= self.threshold  # Alg. 1 lines 8 and 11
        h0_hat, s = h0_hat.detach(), s.detach()
        if not guided or not (self.static or self.active.any()):
            return h0_hat, s, None
        self.active_steps += self.active
        (gradient,) = torch.autograd.grad(gap.sum(), through)  # Eq. 9
        if self.measured_on == "h0" and self.gradient == "frozen":
            gradient = gradient / self.schedule.alpha(k) ** 0.5  # Eq. 7 with a constant s
        # where, not a product: a chain that is off must not inherit 0 x inf
        push = torch.where(self.active[..., None, None], self.gamma * gradient, 0.0)
        return h0_hat, s, push

    def _gap(self, mesh: Tensor) -> Tensor:
        """D_k (B, N) of meshes (B, N, V, 3)."""
        pose = torch.einsum("jv,bnvc->bnjc", self.regressor, mesh)  # f(h)
        gap = distribution_gap(self.draws, pose, self.reduction, self.weight)
        if self.first_gap == "excess":
            gap = gap - prior_spread(self.draws, self.reduction, self.weight)
        return gap
