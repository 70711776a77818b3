"""Stage ``mesh_sampling``: D and U of a body model, and their error on meshes not fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.poses import random_poses
from hmdiff.bodies.sampling import build_sampling
from hmdiff.compute import use_threads
from hmdiff.errors import UserError
from hmdiff.files import write_json
from hmdiff.params import Params


def run(model: str, body: Path, out: Path, report: Path, params: Params) -> None:
    """Write the maps to ``out`` (.npz) and the round-trip error in mm to ``report`` (.json).

    Args:
        model: "smpl" or "mano", for its section of the parameters.
        body: folder of the body model.

    Raises:
        UserError: the levels do not fit the model.
    """
    options = params.mesh_sampling[model]
    body_model = BodyModel.load(body)
    kind = body_model.kind
    if options.levels[0] >= kind.vertices or options.levels[-1] != kind.coarse:
        raise UserError(
            f"params.yaml: mesh_sampling.{model}.levels: must fall from below {kind.vertices} to "
            f"{kind.coarse}; mend them"
        )
    rng = np.random.default_rng(params.seed)
    # One thread: the sums of a parallel matrix product depend on the number of threads.
    with threadpool_limits(1):
        use_threads(1)
        quadric, fit, test = (
            _random_meshes(body_model, count, rng)
            for count in (options.quadric_poses, options.fit_meshes, options.test_meshes)
        )
        sampling = build_sampling(
            body_model.template.numpy().astype(np.float64),
            body_model.faces,
            options.levels,
            options.stiffness,
            quadric,
            fit,
            options.neighbours,
            options.noise,
        )
    error = sampling.round_trip(test) * 1000
    figures = {
        "mean_mm": float(error.mean()),
        "p95_mm": float(np.percentile(error, 95)),
        "max_mm": float(error.max()),
        "meshes": len(test),
        "levels": [len(body_model.template), *options.levels],
        "body_model": body_model.source,
    }
    sampling.save(out)
    write_json(report, figures)
    print(
        f"{out}: round trip {figures['mean_mm']:.2f} mm mean, {figures['p95_mm']:.2f} p95, "
        f"{figures['max_mm']:.1f} max on {len(test)} meshes"
    )


def _random_meshes(model: BodyModel, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, V, 3) float64 meshes of random pose and shape, metres."""
    rest = model.kinematic(-model.pose_mean[None], torch.zeros(1, 10))[0]
    poses = random_poses(model.kind, rest.numpy().astype(np.float64), count, rng)
    betas = rng.normal(size=(count, 10))
    pose = torch.as_tensor(poses.reshape(count, -1), dtype=torch.float32) - model.pose_mean
    return model.vertices(pose, torch.as_tensor(betas)).numpy().astype(np.float64)
