"""L_total of Sec. 4.4 for one batch, also of samples that lack a mesh or joints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmdiff.compute import autocast
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.params.models import TrainingParams
from hmdiff.training.losses import SurfaceLosses, diffusion_loss, joint_loss, vertex_loss


@dataclass(frozen=True)
class Batch:
    """Training samples on the model's device; meshes and joints in root-relative metres.

    ``coarse`` (B, Vc, 3) is anything where ``valid_mesh`` (B,) is False, ``joints`` (B, J, 3)
    where ``valid_joints`` (B, J) is. ``k`` (B,) and ``z`` (B, Vc, 3) are step and noise of Eq. 4.
    """

    image_feature: Tensor
    draws: Tensor
    centre: Tensor  # U's mean
    coarse: Tensor
    joints: Tensor
    valid_mesh: Tensor
    valid_joints: Tensor
    k: Tensor
    z: Tensor


class Objective:
    """Computes the loss terms of a batch. Lengths inside are model units, so that the weights
    mean the same for hands, whose metres are scaled up (A15)."""

    def __init__(
        self,
        model: MeshDiffusion,
        regressor: Tensor,
        faces: Tensor,
        params: TrainingParams,
        precision: str,
    ):
        """``regressor`` f (J, Vc) and ``faces`` (F, 3) belong to the coarse mesh."""
        self.model = model
        self.regressor = regressor
        self.surface = SurfaceLosses(faces)
        self.precision = precision
        self.weights = {
            "diff": 0.0 if model.direct else params.lambda_diff,
            "v": params.lambda_v,
            "j": params.lambda_j,
            "n": params.lambda_n,
            "e": params.lambda_e,
        }

    def _forward(
        self, batch: Batch, h_0: Tensor, shift: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(h0_hat (B, Vc, 3), L_Diff (B,), weights of the mesh losses (B,))."""
        model, form = self.model, self.model.parametrisation
        if model.direct:
            k: int | Tensor = model.schedule.steps
            h_k = model.direct_start(len(h_0))
        else:
            # Without a mesh there is nothing to add noise to: such a sample starts at K, where
            # alpha ~ 0 leaves noise alone, and only its joints are compared.
            k = torch.where(batch.valid_mesh, batch.k, model.schedule.steps)
            h_k = model.schedule.add_noise(h_0, k, batch.z)[:, None]  # Eq. 4
        with autocast(h_k.device, self.precision):
            context = model.context(batch.image_feature, batch.draws)
            output = model.output(h_k, k, context, model.seen(shift))
        h0_hat, _ = form.decode(output, h_k, k)  # Eq. 7
        if model.direct:
            zeros = torch.zeros(len(h_0), device=h_0.device)
            return h0_hat[:, 0], zeros, zeros + 1
        target = form.target(h_0[:, None], h_k, k)
        return h0_hat[:, 0], diffusion_loss(output, target), form.mesh_weight(k)

    @staticmethod
    def counts(batch: Batch) -> Tensor:
        """How many samples have a mesh, and how many have joints, (2,)."""
        return torch.stack([batch.valid_mesh.sum(), batch.valid_joints.any(1).sum()])

    def __call__(
        self, batch: Batch, counts: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss of each sample's share (B,), and the batch mean of every term.

        The shares add up to L_total; a term's mean runs over the samples that have its truth.

        Args:
            counts: of the batch of which this one is a part; the shares and the means of its parts
                add up to its own. None: this one is whole.
        """
        scale, has_mesh = self.model.scale, batch.valid_mesh
        with_mesh, with_joints = (self.counts(batch) if counts is None else counts).clamp_min(1)
        mean = self.model.parametrisation.mean
        h_0 = torch.where(has_mesh[:, None, None], batch.coarse * scale, mean)
        shift = self.model.shift(batch.centre)
        if shift is None:
            h0_hat, difference, mesh_weight = self._forward(batch, h_0, None)
        else:
            h0_hat, difference, mesh_weight = self._forward(batch, h_0 - shift[:, 0], shift)
            h0_hat = h0_hat + shift[:, 0]
        normal, edge = self.surface(h0_hat, h_0)
        pose = torch.einsum("jv,bvc->bjc", self.regressor, h0_hat)  # f(h^_0)
        joint = joint_loss(pose, batch.joints * scale, batch.valid_joints)
        terms = {
            "diff": (difference, has_mesh, with_mesh),
            "v": (mesh_weight * vertex_loss(h0_hat, h_0), has_mesh, with_mesh),
            "j": (mesh_weight * joint, batch.valid_joints.any(1), with_joints),
            "n": (mesh_weight * normal, has_mesh, with_mesh),
            "e": (mesh_weight * edge, has_mesh, with_mesh),
        }
        shares = torch.zeros_like(difference)
        means = {}
        for name, (values, mask, count) in terms.items():
            share = torch.where(mask, values, 0.0) / count
            means[name] = share.sum().detach()
            shares = shares + self.weights[name] * share
        return shares, means
