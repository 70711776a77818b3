"""A toy project of hands as the pipeline leaves it: untrained, but with every artefact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import sparse
from toy_bodies import write_toy_model
from toys import denoiser_params, diffusion_params, experiment_params, rng

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.diffusion.model import build_model
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.extractor.model import Architecture, Extractor, save_extractor
from hmdiff.kinds import HAND
from hmdiff.training.folder import Recipe, TrainedModel, save_model
from hmdiff.training.linear import PoseToMesh

ROOT = Path(__file__).resolve().parent.parent


def make_picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Coloured noise."""
    numbers = np.random.default_rng(seed).integers(0, 255, (height, width, 3))
    return Image.fromarray(numbers.astype(np.uint8))


def write_sampling(path: Path, body: BodyModel) -> MeshSampling:
    """D keeps every fourth vertex; U copies to each vertex the nearest kept one."""
    kept = np.arange(778)[::4][: HAND.coarse]
    template = body.template.numpy()
    nearest = np.linalg.norm(template[:, None] - template[kept], axis=-1).argmin(1)
    ones = np.ones(778)
    down = sparse.csr_matrix((ones[: len(kept)], (np.arange(len(kept)), kept)), (len(kept), 778))
    up = sparse.csr_matrix((ones, (np.arange(778), nearest)), (778, len(kept)))
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    sampling = MeshSampling([body.faces, faces], [down], [up])
    sampling.save(path)
    return sampling


def write_models(folder: Path, sampling: MeshSampling) -> None:
    """``hand``: an untrained g. ``hand_linear``: one constant mesh, whatever the image."""
    for name, form in (("hand", "diffusion"), ("hand_linear", "linear")):
        what = experiment_params(kind="hand", model=form, condition="image")
        lift = PoseToMesh(21, HAND.coarse)
        lift.bias = 0.08 * torch.randn(HAND.coarse * 3, generator=rng(1))
        network = None
        if form == "diffusion":
            network = build_model(
                rng(), what, diffusion_params(steps=50), denoiser_params(),
                0.08 * torch.randn(HAND.coarse, 3, generator=rng(5)), 21, None,
            )  # fmt: skip
        recipe = Recipe(
            what, diffusion_params(steps=50), denoiser_params(), 21, (HAND.coarse, 778),
            {"name": name},
        )  # fmt: skip
        (folder / name).mkdir()
        model = TrainedModel(recipe, network, lift, Upsampler.from_sampling(sampling.ups))
        save_model(model, folder / name)


def write_project(folder: Path) -> Path:
    """All that ``hmdiff.load`` reads, for hands; three steps, fp32 on one CPU."""
    body = BodyModel.load(write_toy_model(folder / "models/hand", HAND))
    (folder / "models/sampling").mkdir()
    (folder / "models/train").mkdir()
    write_models(folder / "models/train", write_sampling(folder / "models/sampling/hand.npz", body))
    extractor = folder / "models/extractor/hand"
    extractor.mkdir(parents=True)
    architecture = Architecture("hand", "resnet10t", 56, (16, 16, 16), 0.22)
    save_extractor(Extractor(architecture, seed=3), extractor, {})
    (folder / "runs/steps").mkdir(parents=True)
    steps = {"method": "hand", "steps": 3}
    (folder / "runs/steps/hand.json").write_text(json.dumps(steps))
    params = (ROOT / "params.yaml").read_text()
    for old, new in (("device: auto", "device: cpu"), ("precision: bf16", "precision: fp32")):
        assert old in params
        params = params.replace(old, new, 1)
    (folder / "params.yaml").write_text(params)
    return folder
