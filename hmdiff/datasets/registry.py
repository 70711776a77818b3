"""How each native layout is read, cropped and rendered: a table, so that no stage asks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import Checkpoints
from hmdiff.datasets import (
    coco,
    freihand,
    human36m,
    mpii,
    muco,
    standin_freihand,
    standin_human36m,
    standin_threedpw,
    standin_wild,
    threedpw,
    up3d,
)
from hmdiff.datasets.crop import Square, central_square, square_about
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.errors import UserError
from hmdiff.params import Params
from hmdiff.params.data import AnyDataset


@dataclass(frozen=True)
class Layout:
    """A native layout.

    The functions take the layout's own records of params.yaml (``Any``): of ``datasets``, and, to
    render, of ``standins``.
    """

    # root, model, datasets.X; the tally takes what the reader leaves out
    read: Callable[[Path, BodyModel, Any, Tally], Iterator[Sample]]
    square: Callable[[Sample, Any], Square]  # sample, datasets.X
    # root, folder of the model, standins.X, datasets.X, seed, unfinished work; persons per split
    render: Callable[[Path, Path, Any, Any, int, Checkpoints], dict[str, int]]
    crop: str  # the crop rule in words, kept in the prepared file
    # Likewise splits and ground truth, from root and datasets.X; it names the fits that are read.
    protocol: Callable[[Path, Any], str]
    annotations: str  # glob of the annotation files, hashed in the manifest
    images: str = "*.jpg"  # glob of the images in any folder, counted in the manifest


def _about_box(sample: Sample, params: Any) -> Square:
    return square_about(sample.bbox, params.crop)


NATIVE_BOX = "square about the native box, side = datasets.crop x its longer side"
TRAIN_ONLY = "all train; joints regressed from the fit; people without a fit are left out; fits: "

LAYOUTS = {
    "human36m": Layout(
        read=lambda root, body, params, tally: human36m.read(root, body, params),
        square=_about_box,
        render=standin_human36m.render,
        crop=NATIVE_BOX,
        protocol=lambda root, params: (
            "P2: train S1, 5, 6, 7, 8 less datasets.val_subjects; test S9, 11, one camera; "
            "motion capture joints; no mesh in test; pseudo-fits: "
            + " and ".join(human36m.fit_names(root))
        ),
        annotations="annotations/*.json",
    ),
    "3dpw": Layout(
        read=lambda root, body, params, tally: threedpw.read(
            root, body, params.ground_truth == "gendered", tally
        ),
        square=_about_box,
        render=standin_threedpw.render,
        crop="square about the tight box of the projected joints, side = datasets.crop x its "
        "longer side",
        protocol=lambda root, params: (
            "native splits; frames with campose_valid; "
            + (
                "body of the person's gender; "
                if params.ground_truth == "gendered"
                else "neutral body whatever the gender; "
            )
            + "joints regressed from the mesh"
        ),
        annotations="sequenceFiles/*/*.pkl",
    ),
    "freihand": Layout(
        read=lambda root, body, params, tally: freihand.read(root, params.held_out),
        square=lambda sample, params: central_square(freihand.FRAME, params.crop * freihand.FRAME),
        render=standin_freihand.render,
        crop="square in the middle of the frame, side = datasets.crop x the frame's",
        protocol=lambda root, params: (
            "train: all versions of the training images less the last datasets.held_out "
            "samples, which are val; evaluation set as test; native joints and vertices"
        ),
        annotations="*.json",
    ),
    "up3d": Layout(
        read=up3d.read,
        square=_about_box,
        render=standin_wild.render,
        crop="square about the tight box of the projected mesh, side = datasets.crop x its longer "
        "side",
        protocol=lambda root, params: TRAIN_ONLY + "UP-3D's own (SMPLify)",
        annotations=f"{up3d.FOLDER}/{up3d.LIST}",
        images="*_image.png",
    ),
    "muco": Layout(
        read=lambda root, body, params, tally: muco.read(root, params, tally),
        square=_about_box,
        render=standin_wild.render,
        crop=NATIVE_BOX,
        protocol=lambda root, params: (
            "all train; of each image the person nearest the camera; motion capture joints; "
            "no mesh without a fit; pseudo-fits: I2L-MeshNet's smpl_param (SMPLify-X)"
        ),
        annotations="annotations/*.json",
    ),
    "coco": Layout(
        read=lambda root, body, params, tally: coco.read(root, params, tally),
        square=_about_box,
        render=standin_wild.render,
        crop=NATIVE_BOX,
        protocol=lambda root, params: f"{TRAIN_ONLY}pseudo-fits {coco.fits_path(root).stem}",
        annotations="annotations/*.json",
    ),
    "mpii": Layout(
        read=lambda root, body, params, tally: mpii.read(root, params, tally),
        square=_about_box,
        render=standin_wild.render,
        crop=NATIVE_BOX,
        protocol=lambda root, params: f"{TRAIN_ONLY}pseudo-fits {mpii.fits_path(root).stem}",
        annotations="annotations/*.json",
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
