"""How each native layout is read, cropped and rendered: a table, so that no stage asks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import (
    freihand,
    human36m,
    standin_freihand,
    standin_human36m,
    standin_threedpw,
    threedpw,
)
from hmdiff.datasets.crop import Square, central_square, square_about
from hmdiff.datasets.sample import Sample
from hmdiff.errors import UserError
from hmdiff.params import Params
from hmdiff.params.data import AnyDataset


@dataclass(frozen=True)
class Layout:
    """A native layout.

    The functions take the layout's own records of params.yaml (``Any``): of ``datasets``, and, to
    render, of ``standins``.
    """

    read: Callable[[Path, BodyModel, Any], list[Sample]]  # root, model, datasets.X
    square: Callable[[Sample, Any], Square]  # sample, datasets.X
    # root, folder of the model, standins.X, datasets.X, seed; persons per split
    render: Callable[[Path, Path, Any, Any, int], dict[str, int]]
    crop: str  # the crop rule in words, kept in the prepared file
    protocol: str  # likewise splits and ground truth
    annotations: str  # glob of the annotation files, hashed in the manifest


LAYOUTS = {
    "human36m": Layout(
        read=human36m.read,
        square=lambda sample, params: square_about(sample.bbox, params.crop),
        render=standin_human36m.render,
        crop="square about the native box, side = datasets.crop x its longer side",
        protocol="P2: train S1, 5, 6, 7, 8 less datasets.val_subjects; test S9, 11, one camera; "
        "motion capture joints; no mesh in test",
        annotations="annotations/*.json",
    ),
    "3dpw": Layout(
        read=lambda root, body, params: threedpw.read(root, body),
        square=lambda sample, params: square_about(sample.bbox, params.crop),
        render=lambda root, body, standin, _, seed: standin_threedpw.render(
            root, body, standin, seed
        ),
        crop="square about the tight box of the projected joints, side = datasets.crop x its "
        "longer side",
        protocol="native splits; frames with campose_valid; neutral body whatever the gender; "
        "joints regressed from the mesh",
        annotations="sequenceFiles/*/*.pkl",
    ),
    "freihand": Layout(
        read=lambda root, body, params: freihand.read(root, params.held_out),
        square=lambda sample, params: central_square(freihand.FRAME, params.crop * freihand.FRAME),
        render=standin_freihand.render,
        crop="square in the middle of the frame, side = datasets.crop x the frame's",
        protocol="train: all versions of the training images less the last datasets.held_out "
        "samples, which are val; evaluation set as test; native joints and vertices",
        annotations="*.json",
    ),
}


def find(dataset: str, params: Params) -> tuple[AnyDataset, Layout]:
    """The record of ``dataset`` in params.yaml and its layout.

    Raises:
        UserError: there is no such data set.
    """
    if dataset not in params.datasets:
        names = ", ".join(params.datasets)
        raise UserError(f"{dataset}: no such data set; params.yaml has {names}")
    settings = params.datasets[dataset]
    return settings, LAYOUTS[settings.layout]
