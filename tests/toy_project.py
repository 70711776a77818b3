"""A toy project of hands or bodies as the pipeline leaves it: untrained, but whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from toy_bodies import write_toy_model
from toy_hand import write_models, write_sampling

from hmdiff.bodies.model import BodyModel
from hmdiff.extractor.model import Architecture, Extractor, save_extractor
from hmdiff.kinds import BODY, HAND, Kind

ROOT = Path(__file__).resolve().parent.parent
FORMS = {BODY: {"image": "diffusion"}, HAND: {"hand": "diffusion", "hand_linear": "linear"}}
HALF_EXTENT = {BODY: 1.1, HAND: 0.22}  # metres


def make_picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Coloured noise."""
    numbers = np.random.default_rng(seed).integers(0, 255, (height, width, 3))
    return Image.fromarray(numbers.astype(np.uint8))


def write_project(folder: Path, kind: Kind = HAND) -> Path:
    """All that ``hmdiff.load`` reads, for hands or bodies; three steps, fp32 on one CPU."""
    body = BodyModel.load(write_toy_model(folder / "models" / kind.name, kind))
    (folder / "models/sampling").mkdir()
    (folder / "models/train").mkdir()
    sampling = write_sampling(folder / f"models/sampling/{kind.name}.npz", body)
    write_models(folder / "models/train", sampling, kind, FORMS[kind])
    extractor = folder / "models/extractor" / kind.name
    extractor.mkdir(parents=True)
    architecture = Architecture(kind.name, "resnet10t", 56, (16, 16, 16), HALF_EXTENT[kind])
    save_extractor(Extractor(architecture, seed=3), extractor, {})
    (folder / "runs/steps").mkdir(parents=True)
    for method in ("hand", "dat"):
        steps = {"method": method, "steps": 3}
        (folder / f"runs/steps/{method}.json").write_text(json.dumps(steps))
    params = (ROOT / "params.yaml").read_text()
    for old, new in (("device: auto", "device: cpu"), ("precision: auto", "precision: fp32")):
        assert old in params
        params = params.replace(old, new, 1)
    (folder / "params.yaml").write_text(params)
    return folder
