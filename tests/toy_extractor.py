"""A small extractor of hands, and the settings of its training."""

from __future__ import annotations

from pathlib import Path

from hmdiff.extractor.model import Architecture
from hmdiff.params import load_params
from hmdiff.params.models import AugmentationParams

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
SMALL = Architecture("hand", "resnet10t", 56, (16, 16, 16), 0.22)


def toy_settings(**changes):
    values = {"image_size": 56, "backbone": "resnet10t", "channels": (16, 16, 16), "warmup": 2}
    values |= {"batch": 8, "samples": 16, "validations": 1, "learning_rate": 1e-3}
    values |= {"datasets": {"toy": 1.0}}
    return PARAMS.extractor["hand"].model_copy(update=values | changes)


def toy_augmentation(**changes) -> AugmentationParams:
    values = dict.fromkeys(AugmentationParams.model_fields, 0.0)
    return AugmentationParams(**(values | {"rotation_limit": 60, "scale_limit": 0.25} | changes))
