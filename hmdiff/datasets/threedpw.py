"""3DPW's native layout: one pickle a sequence, frames as JPEG.

``sequenceFiles/{train,validation,test}/NAME.pkl`` and ``imageFiles/NAME/image_00000.jpg``. Every
pickle is a dictionary of lists with one entry a person; image i belongs to row i of its arrays.
Poses are those of SMPL in the world frame, and each frame has its own camera.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.unpickle import read_pickle
from hmdiff.datasets.camera import body_to_camera, project, tight_box, to_camera
from hmdiff.datasets.meshes import RestRoot
from hmdiff.datasets.sample import Sample
from hmdiff.errors import UserError
from hmdiff.files import atomic_file

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
SEQUENCES, IMAGES = "sequenceFiles", "imageFiles"

# OpenPose's 18 joints in `poses2d` as SMPL's 24; -1: SMPL has no such joint (nose, eyes, ears).
OPENPOSE = (-1, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, -1, -1, -1, -1)


@dataclass(frozen=True)
class Person:
    """One person's track through a sequence of N frames; world frame, metres."""

    betas: np.ndarray  # (10,)
    poses: np.ndarray  # (N, 72)
    translations: np.ndarray  # (N, 3)
    joints: np.ndarray  # (N, 24, 3) SMPL's kinematic joints
    valid: np.ndarray  # (N,) bool: the camera pose is trusted
    gender: str = "m"


@dataclass(frozen=True)
class CameraTrack:
    """The moving camera of a sequence of N frames."""

    intrinsics: np.ndarray  # (3, 3)
    extrinsics: np.ndarray  # (N, 4, 4) world to camera, metres


def image_path(root: Path, sequence: str, frame: int) -> Path:
    """Where the image of row ``frame`` lies."""
    return root / IMAGES / sequence / f"image_{frame:05d}.jpg"


def write_sequence(
    root: Path, folder: str, name: str, people: Sequence[Person], camera: CameraTrack
) -> None:
    """Write ``sequenceFiles/FOLDER/NAME.pkl``; the images are the caller's."""
    frames = len(camera.extrinsics)
    value = {
        "sequence": name,
        "betas": [person.betas for person in people],
        "poses": [person.poses for person in people],
        "trans": [person.translations for person in people],
        "genders": [person.gender for person in people],
        "jointPositions": [person.joints.reshape(frames, 72) for person in people],
        "poses2d": [_openpose(person.joints, camera) for person in people],
        "campose_valid": [person.valid.astype(np.int64) for person in people],
        "cam_poses": camera.extrinsics,
        "cam_intrinsics": camera.intrinsics,
        "img_frame_ids": np.arange(frames),
    }
    with atomic_file(root / SEQUENCES / folder / f"{name}.pkl") as temporary:
        temporary.write_bytes(pickle.dumps(value, protocol=2))


def read(root: Path, body: BodyModel) -> list[Sample]:
    """Every person in every frame whose camera pose is valid, if wholly in front of the camera.

    The neutral body is used whatever ``genders`` says, as METRO, Mesh Graphormer and FastMETRO
    do. ``bbox`` is the tight box of the 24 projected ``jointPositions``.

    Raises:
        UserError: the layout lacks a folder, or a pickle lacks a key or has a wrong shape.
    """
    rest_root = RestRoot(body)
    samples: list[Sample] = []
    for folder, split in FOLDERS.items():
        paths = sorted((root / SEQUENCES / folder).glob("*.pkl"))
        if not paths:
            raise UserError(
                f"{root / SEQUENCES / folder}: no sequence (*.pkl); unpack sequenceFiles.zip there"
            )
        for path in paths:
            samples.extend(_read_sequence(root, path, split, rest_root))
    return samples


def _read_sequence(root: Path, path: Path, split: str, rest_root: RestRoot) -> list[Sample]:
    camera, people = _parse(path)
    rotations, offsets = camera.extrinsics[:, :3, :3], camera.extrinsics[:, :3, 3]
    samples = []
    for index, person in enumerate(people):
        poses, translations = body_to_camera(
            person.poses, person.translations, rest_root(person.betas), rotations, offsets
        )
        for frame in np.flatnonzero(person.valid):
            joints = to_camera(person.joints[frame], rotations[frame], offsets[frame])
            if not (joints[:, 2] > 0).all():
                continue  # partly behind the camera: there is no box about the projected joints
            samples.append(
                Sample(
                    sample_id=f"{path.stem}/{frame:05d}/{index}",
                    image=image_path(root, path.stem, frame),
                    split=split,
                    bbox=tight_box(project(joints, camera.intrinsics)),
                    camera=camera.intrinsics,
                    pose=poses[frame],
                    betas=person.betas,
                    translation=translations[frame],
                )
            )
    return samples


def _parse(path: Path) -> tuple[CameraTrack, list[Person]]:
    value = read_pickle(path)
    camera = CameraTrack(
        intrinsics=_array(path, value, "cam_intrinsics", None, (3, 3)),
        extrinsics=_array(path, value, "cam_poses", None, (None, 4, 4)),
    )
    frames = len(camera.extrinsics)
    poses = _entry(path, value, "poses")
    if not isinstance(poses, list):
        raise UserError(f"{path}: poses: not a list with one entry a person; put back the file")
    people = []
    for index in range(len(poses)):
        betas = _array(path, value, "betas", index, (None,))
        if len(betas) < 10:
            raise UserError(f"{path}: betas: {len(betas)} numbers, expected 10 or more")
        joints = _array(path, value, "jointPositions", index, (frames, 72))
        people.append(
            Person(
                # Files with 300 betas are zero beyond the first ten.
                betas=betas[:10],
                poses=_array(path, value, "poses", index, (frames, 72)),
                translations=_array(path, value, "trans", index, (frames, 3)),
                joints=joints.reshape(frames, 24, 3),
                valid=_array(path, value, "campose_valid", index, (frames,)) > 0,
            )
        )
    return camera, people


def _entry(path: Path, value: dict[str, Any], key: str) -> Any:
    if key not in value:
        raise UserError(f"{path}: has no {key!r}; put back the file of 3DPW")
    return value[key]


def _array(
    path: Path, value: dict[str, Any], key: str, index: int | None, shape: tuple[int | None, ...]
) -> np.ndarray:
    entry = _entry(path, value, key)
    try:
        array = np.asarray(entry if index is None else entry[index], dtype=np.float64)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {key}: not readable ({error}); put back the file") from None
    if array.ndim != len(shape) or any(
        wanted is not None and size != wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    ):
        expected = tuple("any" if size is None else size for size in shape)
        raise UserError(
            f"{path}: {key}: shape {array.shape}, expected {expected}; put back the file"
        )
    return array


def _openpose(joints: np.ndarray, camera: CameraTrack) -> np.ndarray:
    """(N, 3, 18) x, y and confidence, as 3DPW stores OpenPose's detections."""
    rotations, offsets = camera.extrinsics[:, :3, :3], camera.extrinsics[:, :3, 3]
    points = np.einsum("nij,nkj->nki", rotations, joints) + offsets[:, None]
    pixels = project(points, camera.intrinsics)[:, OPENPOSE]
    seen = np.asarray(OPENPOSE) >= 0
    detections = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1) * seen[:, None]
    return detections.transpose(0, 2, 1)
