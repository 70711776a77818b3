"""The reverse process and a training step as one would first write them, to be compared with.

Eager float32; one chain after another with a backward pass each; keys and values of the image and
the token's constant parts are computed anew at every step; attention is torch's own. The numbers
are those of :mod:`hmdiff.diffusion` and :mod:`hmdiff.training` up to rounding.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hmdiff.diffusion.alignment import distribution_gap, prior_spread
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.params.runs import ReverseParams
from hmdiff.training.objective import Batch


def _attend(layer: nn.Module, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    def split(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (layer.heads, -1)).transpose(1, 2)

    key, value = layer.key_value(context).chunk(2, -1)
    heads = functional.scaled_dot_product_attention(
        split(layer.query(x)), split(key), split(value), attn_mask=mask
    )
    return layer.out(heads.transpose(1, 2).flatten(2))


def denoise(model: MeshDiffusion, h: Tensor, k: int | Tensor, tokens: Tensor) -> Tensor:
    """g's raw output for meshes h (B, V, 3) at step k, given condition tokens (B, T, 128)."""
    network = model.denoiser
    step = network.step_table[k].expand(len(h), -1)[:, None].expand(-1, h.shape[1], -1)
    ids = network.vertex_id.weight.expand(len(h), -1, -1)
    x = torch.cat([ids, step, model.parametrisation.network_input(h, k)], -1)
    for block in network.blocks:
        normed = block.self_norm(x)
        x = x + _attend(block.self_attention, normed, normed, network.mask)
        x = x + _attend(block.cross_attention, block.cross_norm(x), tokens)
        if block.feedforward is not None:
            x = x + block.feedforward(x)
    return network.out(x)


def reverse(
    model: MeshDiffusion,
    image_feature: Tensor,
    draws: Tensor,
    h_K: Tensor,
    regressor: Tensor,
    steps: int,
    settings: ReverseParams,
) -> Tensor:
    """Algorithm 1 for chains h_K (B, N, V, 3); draws (B, n, J, 3) metres; eta must be 0."""
    meshes = torch.empty_like(h_K)
    for image in range(len(h_K)):
        for chain in range(h_K.shape[1]):
            own = (image_feature[image, None], draws[image, None].float())
            meshes[image, chain] = _chain(
                model, *own, h_K[image, chain], regressor, steps, settings
            )
    return meshes


def _chain(
    model: MeshDiffusion,
    image_feature: Tensor,
    draws: Tensor,
    h: Tensor,
    regressor: Tensor,
    steps: int,
    settings: ReverseParams,
) -> Tensor:
    schedule, scaled = model.schedule, model.scale * draws
    first, active = None, True
    for k, k_next in pairwise(schedule.visited_steps(steps)):
        with torch.set_grad_enabled(active):
            source = h.detach()[None].requires_grad_(active)
            output = denoise(model, source, k, model.condition(image_feature, draws))
            h0_hat, s = model.parametrisation.decode(output, source, k)  # Eq. 7
        push = 0.0
        if active:
            pose = (regressor @ h0_hat)[:, None]
            gap = distribution_gap(scaled, pose, settings.reduction)  # Eq. 10
            if settings.gap == "excess":
                gap = gap - prior_spread(scaled, settings.reduction)
            first = gap.detach() if first is None else first
            active = bool(gap >= settings.threshold * first)
        if active:
            push = settings.gamma * torch.autograd.grad(gap.sum(), source)[0][0]  # Eq. 9
        alpha = schedule.alpha(k_next)
        h = math.sqrt(1 - alpha) * s[0].detach() + math.sqrt(alpha) * h0_hat[0].detach() - push
    return h


def loss(
    model: MeshDiffusion, batch: Batch, regressor: Tensor, faces: Tensor, weights: dict[str, float]
) -> Tensor:
    """L_total of Sec. 4.4 for a batch in which every sample has its mesh and its joints."""
    truth, k = model.scale * batch.coarse, batch.k
    h_k = model.schedule.add_noise(truth, k, batch.z)  # Eq. 4
    output = denoise(model, h_k, k, model.condition(batch.image_feature, batch.draws))
    form = model.parametrisation
    h0_hat, _ = form.decode(output, h_k, k)
    edges, true_edges = (mesh[:, faces] - mesh[:, faces.roll(-1, 1)] for mesh in (h0_hat, truth))
    normals = torch.linalg.cross(true_edges[:, :, 0], true_edges[:, :, 1], dim=-1)
    normals = functional.normalize(normals, dim=-1)[:, :, None]
    cosines = (functional.normalize(edges, dim=-1) * normals).sum(-1).abs()
    lengths = (edges.norm(dim=-1) - true_edges.norm(dim=-1)).abs()
    pose = torch.einsum("jv,bvc->bjc", regressor, h0_hat)
    weight = form.mesh_weight(k)
    terms = {
        "diff": (output - form.target(truth, h_k, k)).square().mean((1, 2)),
        "v": weight * (h0_hat - truth).abs().mean((1, 2)),
        "j": weight * (pose - model.scale * batch.joints).abs().mean((1, 2)),
        "n": weight * cosines.mean((1, 2)),
        "e": weight * lengths.mean((1, 2)),
    }
    return sum(weights[name] * values.mean() for name, values in terms.items())
