"""FreiHAND version 2: flat JSON lists with one entry a unique sample; metres, camera frame.

``training_{K,xyz,verts,mano,scale}.json`` and ``training/rgb/00000000.jpg``; the images hold
several versions of every sample (composited backgrounds), version v of sample i at number
``i + v n``. ``evaluation_*.json`` and ``evaluation/rgb`` hold one version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmdiff.datasets.camera import project, tight_box
from hmdiff.datasets.sample import Sample
from hmdiff.errors import UserError
from hmdiff.files import read_json, write_text
from hmdiff.kinds import HAND

LISTS = ("K", "xyz", "verts", "mano", "scale")
FRAME = 224  # pixels, both sides of every image
DECIMALS = 7  # of the numbers written: a tenth of a micrometre, and half the file of a full float
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
        write_text(root / f"{part}_{name}.json", json.dumps(value.round(DECIMALS).tolist()))


def read(root: Path, held_out: int) -> list[Sample]:
    """All versions of the training samples, and the evaluation samples as the test split.

    FreiHAND has no validation split: the last ``held_out`` unique training samples are taken,
    first version only, and none of their versions is trained on.

    Raises:
        UserError: a list is missing or has a wrong shape, or the number of training images is
            not a multiple of the number of samples.
    """
    hands = _read_lists(root, "training")
    count = len(hands.joints)
    images = sum(1 for _ in (root / "training" / "rgb").glob("*.jpg"))
    if images == 0 or images % count:
        raise UserError(
            f"{root / 'training' / 'rgb'}: {images} images for {count} samples, expected a "
            "multiple; unpack FreiHAND_pub_v2.zip again"
        )
    if held_out >= count:
        raise UserError(
            f"{root}: {count} training samples; lower datasets.freihand.held_out in params.yaml"
        )
    first_held_out = count - held_out
    samples = []
    for version in range(images // count):
        for index in range(count if version == 0 else first_held_out):
            split = "train" if index < first_held_out else "val"
            samples.append(_sample(root, "training", hands, index, version * count + index, split))
    evaluation = _read_lists(root, "evaluation")
    for index in range(len(evaluation.joints)):
        samples.append(_sample(root, "evaluation", evaluation, index, index, "test"))
    return samples


def _sample(root: Path, part: str, hands: Hands, index: int, number: int, split: str) -> Sample:
    return Sample(
        sample_id=f"{part}/{number:08d}",
        image=image_path(root, part, number),
        split=split,
        bbox=tight_box(project(hands.joints[index], hands.cameras[index])),
        camera=hands.cameras[index],
        pose=hands.poses[index],
        betas=hands.betas[index],
        vertices=hands.vertices[index],
        joints=hands.joints[index],
    )


def _read_lists(root: Path, part: str) -> Hands:
    cameras = _read_list(root, part, "K", (3, 3))
    joints = _read_list(root, part, "xyz", (HAND.joint_count, 3))
    vertices = _read_list(root, part, "verts", (HAND.vertices, 3))
    mano = _read_list(root, part, "mano", (1, 61))[:, 0]
    counts = {len(cameras), len(joints), len(vertices), len(mano)}
    if len(counts) != 1 or 0 in counts:
        raise UserError(
            f"{root}: {part}_K, _xyz, _verts and _mano.json hold {sorted(counts)} samples; "
            "unpack them from one archive"
        )
    return Hands(cameras, joints, vertices.astype(np.float32), mano[:, :48], mano[:, 48:58])


def _read_list(root: Path, part: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    path = root / f"{part}_{name}.json"
    try:
        array = np.array(read_json(path), dtype=np.float64)
    except (ValueError, TypeError):
        array = np.empty(0)
    if array.shape[1:] != shape:
        raise UserError(f"{path}: entries are not numbers of shape {shape}; unpack FreiHAND again")
    return array
