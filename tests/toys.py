"""Small models and exact toy denoisers shared by the tests of the diffusion."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import trimesh
from scipy import sparse

from hmdiff.bodies.sampling import MeshSampling
from hmdiff.diffusion.model import MeshDiffusion, build_model
from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.extractor.features import Features
from hmdiff.params.models import DenoiserParams, DiffusionParams, ExperimentParams, TrainingParams
from hmdiff.params.runs import CheckpointParams, ReverseParams
from hmdiff.training.folder import Recipe, TrainedModel
from hmdiff.training.linear import fit_ridge


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def diffusion_params(**changes) -> DiffusionParams:
    values = {
        "steps": 200,
        "schedule": "linear_alpha",
        "alpha_first": 0.9999,
        "alpha_last": 1e-3,
        "parametrisation": "edm",
        "sigma_data": 0.2,
        "centre": "mean",
        "scale": {"body": 1.0, "hand": 5.0},
    }
    return DiffusionParams(**(values | changes))


def experiment_params(**changes) -> ExperimentParams:
    values = {"kind": "body", "model": "diffusion", "condition": "both", "depth": 1}
    return ExperimentParams(**(values | {"datasets": ["toy"]} | changes))


def denoiser_params(**changes) -> DenoiserParams:
    values = {
        "self_heads": 2, "cross_heads": 4, "feedforward": 2, "adjacency_mask": False,
        "sees_centre": False,
    }  # fmt: skip
    return DenoiserParams(**(values | changes))


def make_model(
    vertices: int = 11, joints: int = 4, form: str = "edm", mask: torch.Tensor | None = None, **what
) -> MeshDiffusion:
    """An untrained g with K = 50; ``what`` changes the experiment."""
    return build_model(
        rng(),
        experiment_params(**what),
        diffusion_params(steps=50, parametrisation=form),
        denoiser_params(),
        0.3 * torch.randn(vertices, 3, generator=rng(5)),
        joints,
        mask,
    )


def make_schedule(count: int = 40) -> NoiseSchedule:
    return NoiseSchedule.from_params(diffusion_params(steps=count))


def noise_model(schedule: NoiseSchedule) -> tuple[Callable, Callable]:
    """A smooth made-up epsilon model, and (h_0-hat, epsilon) by Eq. 7."""

    def epsilon(h, k):
        return torch.tanh(h * (1 + 0.01 * k)) + 0.1 * h.mean((-2, -1), keepdim=True)

    def predict(h, k):
        s = epsilon(h, k)
        alpha = schedule.alpha(k)
        return (h - math.sqrt(1 - alpha) * s) / math.sqrt(alpha), s

    return epsilon, predict


def gaussian_model(schedule: NoiseSchedule, mean: torch.Tensor, deviation: float) -> Callable:
    """The exact denoiser of h_0 ~ N(mean, deviation^2 I)."""

    def predict(h, k):
        alpha = schedule.alpha(k)
        total = alpha * deviation**2 + 1 - alpha
        residual = h - math.sqrt(alpha) * mean
        h0_hat = mean + math.sqrt(alpha) * deviation**2 / total * residual
        return h0_hat, (h - math.sqrt(alpha) * h0_hat) / math.sqrt(1 - alpha)

    return predict


JOINTS = 4


def make_sampling() -> MeshSampling:
    """An icosahedron (12 vertices) as the coarse level of its subdivision (42)."""
    fine, coarse = trimesh.creation.icosphere(1), trimesh.creation.icosphere(0)
    distance = np.linalg.norm(fine.vertices[:, None] - coarse.vertices, axis=2)
    kept = distance.argmin(0)
    down = sparse.csr_matrix((np.ones(12), (np.arange(12), kept)), (12, 42))
    up = np.exp(-8 * distance**2)
    up[kept] = np.eye(12)
    up = sparse.csr_matrix(up / up.sum(1, keepdims=True))
    return MeshSampling([np.asarray(fine.faces), np.asarray(coarse.faces)], [down], [up])


def make_body() -> SimpleNamespace:
    """What the code under test reads of a BodyModel, for the 42-vertex sphere."""
    weights = torch.rand(JOINTS, 42, generator=rng(2))
    return SimpleNamespace(
        regressor=weights / weights.sum(1, keepdim=True),
        kind=SimpleNamespace(root=0),
        template=torch.zeros(42, 3),
    )


def make_features(count: int = 24, seed: int = 0) -> Features:
    """Smooth random deformations of the icosahedron; draws and f_I follow the mesh."""
    random, sampling = rng(seed), make_sampling()
    template = torch.as_tensor(trimesh.creation.icosphere(0).vertices, dtype=torch.float32)
    bend = torch.randn(count, 3, 3, generator=random)
    coarse = 0.4 * template + 0.15 * template @ bend
    regressor = torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy()))
    joints = torch.einsum("jv,nvc->njc", regressor, coarse)
    coarse, joints = coarse - joints[:, :1], joints - joints[:, :1]
    noise = 0.05 * torch.randn(count, 6, JOINTS, 3, generator=random)
    mixing = torch.randn(JOINTS * 3, 49 * 128, generator=rng(7))
    return Features(
        image_feature=(joints.flatten(1) @ mixing).view(count, 49, 128).half(),
        draws=joints[:, None] + noise,
        centre=joints + noise.mean(1),
        peak=joints + noise[:, 0],
        spread=noise.std(1),
        coarse=coarse,
        joints=joints,
        valid_mesh=torch.ones(count, dtype=torch.bool),
        valid_joints=torch.ones(count, JOINTS, dtype=torch.bool),
        sample_id=[f"{seed}/{row}" for row in range(count)],
        names=["toy"] * count,
    )


def training_params(**changes) -> TrainingParams:
    values = {
        "samples": 240, "repeats": 1, "batch": 8, "learning_rate": 2e-3, "weight_decay": 1e-4,
        "warmup": 16, "ema": 0.9, "clip": 1.0, "lambda_v": 1.0, "lambda_j": 1.0, "lambda_n": 0.1,
        "lambda_e": 1.0, "lambda_diff": 0.5, "upsampler_samples": 16,
        "upsampler_learning_rate": 1e-4, "ridge": [1e-6, 1e-4, 1e-2],
    }  # fmt: skip
    return TrainingParams(**(values | changes))


class Stopped(Exception):
    """What :func:`stop_after` raises."""


def stop_after(calls: int, function: Callable) -> Callable:
    """``function``, which raises :class:`Stopped` at its call after ``calls``."""
    left = calls

    def limited(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        return function(*args, **kwargs)

    return limited


_scratch = tempfile.TemporaryDirectory(prefix="hmdiff-")


def checkpoint_params(seconds: float = 60) -> CheckpointParams:
    """A folder of this process alone: stages of one name run beside each other in tests only."""
    return CheckpointParams(seconds=seconds, folder=Path(_scratch.name))


def reverse_params(**changes) -> ReverseParams:
    values = {
        "solver": "ddim", "eta": 0.0, "chains": 2, "antithetic": False, "draws": None,
        "guided_steps": None,
        "gamma": 0.2, "threshold": 0.05, "reduction": "sum", "gap": "h0", "gradient": "through_g",
        "peak_weight": "equal", "disrupted_reduction": "mean",
    }  # fmt: skip
    return ReverseParams(**(values | changes))


def make_trained(features: Features, **what) -> TrainedModel:
    """An untrained network (``model`` "diffusion" or "direct") or a fitted linear control."""
    recipe = Recipe(
        experiment_params(**what), diffusion_params(steps=50), denoiser_params(), JOINTS, (12, 42)
    )
    pairs = [(features.joints, features.coarse)]
    lift, _ = fit_ridge(pairs, pairs, [1e-6])
    network = None
    if what.get("model") != "linear":
        network = make_model(vertices=12, joints=JOINTS, **what)
    model = TrainedModel(recipe, network, lift, Upsampler.from_sampling(make_sampling().ups))
    return model.eval().requires_grad_(False)
