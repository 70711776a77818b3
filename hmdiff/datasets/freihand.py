"""FreiHAND version 2: flat JSON lists with one entry a unique sample; metres, camera frame.

``training_{K,xyz,verts,mano,scale}.json`` and ``training/rgb/00000000.jpg``; the images hold
several versions of every sample (composited backgrounds), version v of sample i at number
``i + v n``. ``evaluation_*.json`` and ``evaluation/rgb`` hold one version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from hmdiff.datasets.camera import project, tight_box
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.streaming import entries
from hmdiff.errors import UserError
from hmdiff.files import write_text

LISTS = ("K", "xyz", "verts", "mano", "scale")
FRAME = 224  # pixels, both sides of every image
DECIMALS = 7  # of the numbers written: a tenth of a micrometre, and half the file of a full float
SHAPES = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (1, 61)}  # of an entry
SCALE_BONE = (9, 10)  # `scale` is the length of the middle finger's proximal bone


@dataclass(frozen=True)
class Hands:
    """The lists of one set of n unique samples."""

    cameras: np.ndarray  # (n, 3, 3)
    joints: np.ndarray  # (n, 21, 3) metres, order of Kind.joints
    vertices: np.ndarray  # (n, 778, 3) metres
    poses: np.ndarray  # (n, 48)
    betas: np.ndarray  # (n, 10)


def image_path(root: Path, part: str, number: int) -> Path:
    """Image ``number`` of ``part`` (training or evaluation)."""
    return root / part / "rgb" / f"{number:08d}.jpg"


def write_lists(root: Path, part: str, hands: Hands) -> None:
    """Write the five JSON lists of ``part``; the images are the caller's."""
    roots = project(hands.joints[:, :1], hands.cameras)[:, 0]
    scales = np.linalg.norm(np.diff(hands.joints[:, SCALE_BONE], axis=1)[:, 0], axis=-1)
    mano = np.concatenate([hands.poses, hands.betas, roots, scales[:, None]], axis=1)
    values = (hands.cameras, hands.joints, hands.vertices, mano[:, None], scales)
    for name, value in zip(LISTS, values, strict=True):
        write_text(_path(root, part, name), json.dumps(value.round(DECIMALS).tolist()))


def read(root: Path, held_out: int) -> Iterator[Sample]:
    """All versions of the training samples, and the evaluation samples as the test split.

    FreiHAND has no validation split: the last ``held_out`` unique training samples are taken,
    first version only, and none of their versions is trained on. The versions of a sample follow
    each other, so that the lists are walked through once, side by side.

    Raises:
        UserError: a list is missing or has a wrong shape, or the number of training images is
            not a multiple of the number of samples.
    """
    count = sum(1 for _ in entries(_path(root, "training", "K")))
    images = sum(1 for _ in (root / "training" / "rgb").glob("*.jpg"))
    if images == 0 or count == 0 or images % count:
        raise UserError(
            f"{root / 'training' / 'rgb'}: {images} images for {count} samples, expected a "
            "multiple; unpack FreiHAND_pub_v2.zip again"
        )
    if held_out >= count:
        raise UserError(
            f"{root}: {count} training samples; lower datasets.freihand.held_out in params.yaml"
        )
    for index, hand in enumerate(_hands(root, "training")):
        if index < count - held_out:
            for version in range(images // count):
                yield _sample(root, "training", hand, version * count + index, "train")
        else:
            yield _sample(root, "training", hand, index, "val")
    for index, hand in enumerate(_hands(root, "evaluation")):
        yield _sample(root, "evaluation", hand, index, "test")


def _sample(root: Path, part: str, hand: dict[str, np.ndarray], number: int, split: str) -> Sample:
    joints, camera, mano = hand["xyz"], hand["K"], hand["mano"][0]
    return Sample(
        sample_id=f"{part}/{number:08d}",
        image=image_path(root, part, number),
        split=split,
        bbox=tight_box(project(joints, camera)),
        camera=camera,
        pose=mano[:48],
        betas=mano[48:58],
        vertices=hand["verts"].astype(np.float32),
        joints=joints,
    )


def _hands(root: Path, part: str) -> Iterator[dict[str, np.ndarray]]:
    """The entries of the lists of ``part``, by the list's name."""
    lists = [_entries(_path(root, part, name), shape) for name, shape in SHAPES.items()]
    for values in zip_longest(*lists):
        short = [name for name, value in zip(SHAPES, values, strict=True) if value is None]
        if short:
            raise UserError(
                f"{_path(root, part, short[0])}: shorter than the other lists; unpack them from "
                "one archive"
            )
        yield dict(zip(SHAPES, values, strict=True))


def _entries(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for entry in entries(path):
        try:
            array = np.array(entry, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            array = np.empty(0)
        if array.shape != shape:
            raise UserError(
                f"{path}: entries are not numbers of shape {shape}; unpack FreiHAND again"
            )
        yield array


def _path(root: Path, part: str, name: str) -> Path:
    return root / f"{part}_{name}.json"
