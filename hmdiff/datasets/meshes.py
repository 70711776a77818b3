"""From what a sample holds to its mesh and joints in the camera frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.sample import Sample
from hmdiff.kinds import GENDERS


class RestRoot:
    """J0, the root joint of the unposed body, as a function of betas.

    It is affine in betas, so that eleven bodies tell all, where posing one body a sample would
    take longer than everything else that a reader does.
    """

    def __init__(self, body: BodyModel) -> None:
        shapes = torch.cat([torch.zeros(1, 10), torch.eye(10)])
        poses = torch.zeros(len(shapes), body.kind.parameters)
        roots = body.kinematic(poses, shapes)[:, 0].cpu().double().numpy()
        self._mean, self._slopes = roots[0], roots[1:] - roots[0]

    def __call__(self, betas: np.ndarray) -> np.ndarray:
        """(3,) metres, model frame, for ``betas`` (10,)."""
        return self._mean + betas @ self._slopes


def camera_vertices(samples: Sequence[Sample], body: BodyModel) -> list[np.ndarray | None]:
    """(V, 3) float32 camera-frame vertices of each sample, metres; None where it has no mesh.

    ``body`` is the neutral model; a sample of another gender is posed with that gender's.
    """
    result: list[np.ndarray | None] = [sample.vertices for sample in samples]
    for gender in GENDERS:
        posed = [
            index
            for index, sample in enumerate(samples)
            if sample.vertices is None and sample.pose is not None and sample.gender == gender
        ]
        if posed:
            poses, betas, translations = (
                torch.as_tensor(
                    np.stack([getattr(samples[index], name) for index in posed]),
                    dtype=torch.float32,
                )
                for name in ("pose", "betas", "translation")
            )
            vertices = body.of_gender(gender).vertices(poses, betas) + translations[:, None]
            for index, value in zip(posed, vertices.numpy(), strict=True):
                result[index] = value
    return result


def camera_joints(
    sample: Sample, vertices: np.ndarray | None, regressor: np.ndarray, root: int
) -> np.ndarray:
    """(J, 3) camera-frame joints: the sample's own, else regressed from its mesh.

    Of joints that the sample does not know, the mesh gives the ``root`` alone: everything is
    relative to it, while regressed joints among annotated ones would mix two definitions.
    """
    if sample.joints is None:
        return regressor @ vertices
    if vertices is None or np.isfinite(sample.joints[root]).all():
        return sample.joints
    joints = np.array(sample.joints, np.float64)
    joints[root] = regressor[root] @ vertices
    return joints


def kinematic_joints(body: BodyModel, poses: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """(n, 24 or 16, 3) joints of the model's own skeleton for ``poses`` (n, P) at one shape."""
    shape = torch.as_tensor(betas, dtype=torch.float32).expand(len(poses), -1)
    return body.kinematic(torch.as_tensor(poses, dtype=torch.float32), shape).double().numpy()
