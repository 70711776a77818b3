"""Refines the upsampling layers on meshes: coarse truth in, full truth out, vertex L1 (A11)."""

from __future__ import annotations

import torch
from scipy import sparse
from torch import Tensor

from hmdiff.batches import sample_batches
from hmdiff.compute import generator
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.optimiser import Adam
from hmdiff.params.models import TrainingParams
from hmdiff.training.loop import learning_rate
from hmdiff.training.losses import vertex_loss


def downsample(down: sparse.csr_matrix, meshes: Tensor) -> Tensor:
    """D applied to meshes (n, V, 3): (n, Vc, 3)."""
    count, vertices, _ = meshes.shape
    columns = meshes.permute(1, 0, 2).reshape(vertices, 3 * count).numpy()
    coarse = torch.from_numpy((down @ columns).astype("float32"))
    return coarse.view(-1, count, 3).transpose(0, 1).contiguous()


def train_upsampler(
    upsampler: Upsampler,
    meshes: Tensor,
    coarse: Tensor,
    params: TrainingParams,
    *,
    seed: int,
    device: torch.device,
) -> Upsampler:
    """Train on full ``meshes`` (n, V, 3) and their ``coarse`` (n, Vc, 3), one pass in batches.

    Float32 throughout: bf16 would round a metre to 4 mm.
    """
    upsampler = upsampler.to(device)
    optimiser = Adam(upsampler.parameters())
    order = generator(seed, "upsampler order")
    steps = -(-len(meshes) // params.batch)
    batches = sample_batches(torch.ones(len(meshes)), len(meshes), params.batch, order)
    for step, indices in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, steps // 10, params.upsampler_learning_rate)
        loss = vertex_loss(upsampler(coarse[indices].to(device)), meshes[indices].to(device))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return upsampler
