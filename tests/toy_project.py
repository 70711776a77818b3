"""A toy project of hands as the pipeline leaves it: untrained, but with every artefact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from toy_bodies import write_toy_model
from toy_hand import write_models, write_sampling

from hmdiff.bodies.model import BodyModel
from hmdiff.extractor.model import Architecture, Extractor, save_extractor
from hmdiff.kinds import HAND

ROOT = Path(__file__).resolve().parent.parent


def make_picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Coloured noise."""
    numbers = np.random.default_rng(seed).integers(0, 255, (height, width, 3))
    return Image.fromarray(numbers.astype(np.uint8))


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
    for old, new in (("device: auto", "device: cpu"), ("precision: auto", "precision: fp32")):
        assert old in params
        params = params.replace(old, new, 1)
    (folder / "params.yaml").write_text(params)
    return folder
