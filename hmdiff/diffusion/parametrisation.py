"""What the network's output means. Every choice yields an h^_0 and an s that satisfy Eq. 7.

All four are linear in the network's input and output,

    h^_0 = mean + c_skip (h_k - sqrt(alpha_k) mean) + c_out F(c_in (h_k - sqrt(alpha_k) mean)),

so one table of coefficients describes them (A4):

=====  ==========================  ===============================  ============================
kind   c_skip                      c_out                            F is trained towards
=====  ==========================  ===============================  ============================
noise  1 / sqrt(a)                 -sqrt((1 - a) / a)               z, as DDPM; the mean is 0
h0     0                           1                                h_0 - mean
v      sqrt(a)                     -sqrt(1 - a)                     v of Salimans and Ho 2022
edm    sqrt(a) S / (a S + 1 - a)   sqrt(S (1 - a) / (a S + 1 - a))  unit variance (Karras et al.
                                                                    2022, Table 1)
=====  ==========================  ===============================  ============================

with a = alpha_k and S = sigma_data^2. c_in is 1, and 1 / sqrt(a S + 1 - a) for edm: Karras's
preconditioning rewritten for the variance-preserving h_k of Eq. 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmdiff.diffusion.schedule import NoiseSchedule


class Parametrisation(nn.Module):
    """Translates between meshes (B, ..., V, 3) in model units and what the network sees and says.

    Steps k are an int, or a tensor (B,) with one step a sample.
    """

    def __init__(self, kind: str, schedule: NoiseSchedule, mean: Tensor, sigma_data: float):
        """``mean`` (V, 3) is the mean training mesh, ``sigma_data`` the deviation from it."""
        super().__init__()
        # The paper's noise prediction knows no mean mesh.
        self.register_buffer("mean", torch.zeros_like(mean) if kind == "noise" else mean.clone())
        alpha = schedule.alphas
        beta, variance = 1 - alpha, sigma_data**2
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        total = alpha * variance + beta
        c_in, c_skip, c_out = {
            "noise": (one, 1 / alpha.sqrt(), -(beta / alpha).sqrt()),
            "h0": (one, zero, one),
            "v": (one, alpha.sqrt(), -beta.sqrt()),
            "edm": (
                total.rsqrt(),
                alpha.sqrt() * variance / total,
                (variance * beta / total).sqrt(),
            ),
        }[kind]
        # 1 / sqrt(alpha_k) makes the noise kind's h^_0 useless near K: its mesh losses weigh
        # by alpha_k (A4).
        mesh_weight = alpha if kind == "noise" else one
        table = torch.stack([alpha.sqrt(), beta.sqrt(), c_in, c_skip, c_out, mesh_weight], 1)
        self.register_buffer("table", table, persistent=False)

    def _coefficients(self, k: int | Tensor, like: Tensor) -> tuple[Tensor, ...]:
        rows = self.table[k].to(like.dtype)
        if rows.ndim == 2:
            rows = rows.view(rows.shape[0], *[1] * (like.ndim - 1), rows.shape[1])
        return rows.unbind(-1)

    def network_input(self, h_k: Tensor, k: int | Tensor) -> Tensor:
        """c_in (h_k - sqrt(alpha_k) mean), the coordinates inside the vertex tokens."""
        signal, _, c_in, *_ = self._coefficients(k, h_k)
        return c_in * (h_k - signal * self.mean)

    def decode(self, output: Tensor, h_k: Tensor, k: int | Tensor) -> tuple[Tensor, Tensor]:
        """The network's ``output`` at h_k as (h0_hat, s)."""
        signal, noise, _, c_skip, c_out, _ = self._coefficients(k, h_k)
        h0_hat = self.mean + c_skip * (h_k - signal * self.mean) + c_out * output
        return h0_hat, (h_k - signal * h0_hat) / noise  # Eq. 7, solved for g

    def target(self, h_0: Tensor, h_k: Tensor, k: int | Tensor) -> Tensor:
        """The output for which :meth:`decode` returns ``h_0``: what L_Diff compares with."""
        signal, _, _, c_skip, c_out, _ = self._coefficients(k, h_k)
        return (h_0 - self.mean - c_skip * (h_k - signal * self.mean)) / c_out

    def mesh_weight(self, k: Tensor) -> Tensor:
        """(B,) weights of the mesh losses on h^_0."""
        return self.table[k, -1].to(self.mean.dtype)
