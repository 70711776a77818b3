"""Models and rows of the real sizes with random numbers in them: speed does not depend on those."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy import sparse

from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import generator
from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.lift import PoseToMesh
from hmdiff.diffusion.model import build_model, needs_mask
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.extractor.backbone import GRID
from hmdiff.extractor.features import Features
from hmdiff.extractor.model import FEATURE, Architecture, Extractor
from hmdiff.kinds import KINDS, Kind
from hmdiff.params import Params
from hmdiff.params.models import ExperimentParams
from hmdiff.training.folder import Recipe, TrainedModel

LEVELS = {"body": (1723,), "hand": ()}  # of METRO, between the full mesh and the coarse one


def make_extractor(architecture: Architecture, seed: int, device: torch.device) -> Extractor:
    """phi_I and phi_P in evaluation mode, whose numbers stay finite."""
    extractor = Extractor(architecture, seed)
    extractor.to(device, memory_format=torch.channels_last)
    # So many random layers overflow unless each is normalised as training would.
    for layer in extractor.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    size = architecture.image_size
    with torch.no_grad():
        extractor.train()(torch.rand(2, 3, size, size, device=device))
    return extractor.eval()


def make_sampling(kind: Kind) -> MeshSampling:
    """Levels of METRO's sizes on no surface: every vertex has a few neighbours by its number."""
    sizes = (kind.vertices, *LEVELS[kind.name], kind.coarse)
    faces = [_strip(size) for size in sizes]
    downs, ups = [], []
    for fine, coarse in pairwise(sizes):
        downs.append(_selection(np.arange(coarse) * fine // coarse, fine))
        ups.append(_selection(np.arange(fine) * coarse // fine, coarse))
    return MeshSampling(faces, downs, ups)


def _selection(columns: np.ndarray, width: int) -> sparse.csr_matrix:
    """One 1 a row, in ``columns``."""
    rows = np.arange(len(columns))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(rows), width))


def _strip(vertices: int) -> np.ndarray:
    """(2 V - 4, 3) triangles, as many as a closed surface of V vertices has."""
    first = np.arange(2 * vertices - 4)
    return np.stack([first, first + 1, first + 2], 1) % vertices


def make_trained(
    experiment: ExperimentParams, sampling: MeshSampling, params: Params
) -> TrainedModel:
    """The untrained model of ``experiment``, with its upsampling layers; on the CPU."""
    joints = KINDS[experiment.kind].joint_count
    coarse = sampling.down.shape[0]
    random = generator(params.seed, "random model")
    network = None
    if experiment.model != "linear":
        faces = torch.as_tensor(sampling.coarse_faces).long()
        masked = needs_mask(experiment, params.denoiser)
        network = build_model(
            random, experiment, params.diffusion, params.denoiser,
            0.3 * torch.randn(coarse, 3, generator=random), joints,
            adjacency_mask(faces, coarse) if masked else None,
        )  # fmt: skip
    upsampler = Upsampler.from_sampling(sampling.ups)
    recipe = Recipe(experiment, params.diffusion, params.denoiser, joints, upsampler.sizes)
    return TrainedModel(recipe, network, PoseToMesh(joints, coarse), upsampler)


def make_rows(kind: Kind, count: int, params: Params) -> Features:
    """Rows as extract_features stores them, all of whose truth is known."""
    random = generator(params.seed, "random rows")

    def numbers(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(count, *shape, generator=random)

    joints = kind.joint_count
    return Features(
        image_feature=numbers(GRID * GRID, FEATURE).half(),
        draws=numbers(params.prior.draws, joints, 3),
        centre=numbers(joints, 3),
        peak=numbers(joints, 3),
        spread=numbers(joints, 3).abs(),
        coarse=numbers(kind.coarse, 3),
        joints=numbers(joints, 3),
        valid_mesh=torch.ones(count, dtype=torch.bool),
        valid_joints=torch.ones(count, joints, dtype=torch.bool),
        sample_id=[f"random/{row}" for row in range(count)],
        names=["random"] * count,
    )
