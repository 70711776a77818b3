"""3DPW's native layout: one pickle a sequence, frames as JPEG.

``sequenceFiles/{train,validation,test}/NAME.pkl`` and ``imageFiles/NAME/image_00000.jpg``. Every
pickle is a dictionary of lists with one entry a person; image i belongs to row i of its arrays.
Poses are those of SMPL in the world frame, and each frame has its own camera.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.unpickle import as_numbers, read_pickle
from hmdiff.datasets.camera import body_to_camera, project, tight_box, to_camera
from hmdiff.datasets.meshes import RestRoot
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.errors import UserError
from hmdiff.files import atomic_file

FOLDERS = {"train": "train", "validation": "val", "test": "test"}
SEQUENCES, IMAGES = "sequenceFiles", "imageFiles"
LETTERS = {"m": "male", "f": "female"}  # of `genders`
SKEW = 1e-2  # largest error of R R^T in a camera pose

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


def read(
    root: Path, body: BodyModel, gendered: bool = False, tally: Tally | None = None
) -> Iterator[Sample]:
    """Every person in every frame whose camera pose is valid, if wholly in front of the camera.

    The neutral body is used whatever ``genders`` says, as METRO, Mesh Graphormer and FastMETRO
    do; or, where ``gendered``, that of the person's gender, as SPIN and its followers do. ``bbox``
    is the tight box of the 24 projected ``jointPositions``.

    Raises:
        UserError: the layout lacks a folder, a pickle lacks a key, has a wrong shape or holds a
            number that is not finite, or a camera pose is no rotation; or there is no model of a
            gender.
    """
    if gendered:
        roots = {letter: RestRoot(body.of_gender(name)) for letter, name in LETTERS.items()}
    else:
        roots = dict.fromkeys(LETTERS, RestRoot(body))
    for folder, split in FOLDERS.items():
        paths = sorted((root / SEQUENCES / folder).glob("*.pkl"))
        if not paths:
            raise UserError(
                f"{root / SEQUENCES / folder}: no sequence (*.pkl); unpack sequenceFiles.zip there"
            )
        for path in paths:
            yield from _read_sequence(root, path, split, roots, gendered, tally or Tally())


def _read_sequence(
    root: Path, path: Path, split: str, roots: dict[str, RestRoot], gendered: bool, tally: Tally
) -> Iterator[Sample]:
    camera, people = _parse(path, gendered)
    for index, person in enumerate(people):
        # Frames whose camera pose is not trusted may hold anything.
        frames = np.flatnonzero(person.valid)
        _check(path, person, camera, frames)
        rotations, offsets = camera.extrinsics[frames, :3, :3], camera.extrinsics[frames, :3, 3]
        try:
            poses, translations = body_to_camera(
                person.poses[frames],
                person.translations[frames],
                roots[person.gender](person.betas),
                rotations,
                offsets,
            )
        except ValueError as error:
            raise UserError(f"{path}: poses: {error}; put back the file") from None
        for row, frame in enumerate(frames):
            name = f"{path.stem}/{frame:05d}/{index}"
            joints = to_camera(person.joints[frame], rotations[row], offsets[row])
            if not (joints[:, 2] > 0).all():
                tally.skip("partly behind the camera", name)  # so the joints have no box
                continue
            yield Sample(
                sample_id=name,
                image=image_path(root, path.stem, frame),
                split=split,
                bbox=tight_box(project(joints, camera.intrinsics)),
                camera=camera.intrinsics,
                pose=poses[row],
                betas=person.betas,
                translation=translations[row],
                gender=LETTERS[person.gender] if gendered else "neutral",
            )


def _check(path: Path, person: Person, camera: CameraTrack, frames: np.ndarray) -> None:
    """Raise a UserError for numbers that are not finite or a camera pose that is no rotation."""
    numbers = {
        "betas": person.betas,
        "poses": person.poses[frames],
        "trans": person.translations[frames],
        "jointPositions": person.joints[frames],
        "cam_intrinsics": camera.intrinsics,
        "cam_poses": camera.extrinsics[frames],
    }
    for key, values in numbers.items():
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {key}: not finite; put back the file")
    rotations = camera.extrinsics[frames, :3, :3]
    product = rotations @ rotations.transpose(0, 2, 1)
    if np.abs(product - np.eye(3)).max(initial=0) > SKEW or (np.linalg.det(rotations) < 0).any():
        raise UserError(f"{path}: cam_poses: not rotations; put back the file")
    if (np.diag(camera.intrinsics)[:2] <= 0).any():
        raise UserError(f"{path}: cam_intrinsics: no positive focal length; put back the file")


def _parse(path: Path, gendered: bool) -> tuple[CameraTrack, list[Person]]:
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
            raise UserError(
                f"{path}: betas: {len(betas)} numbers, expected 10 or more; put back the file"
            )
        joints = _array(path, value, "jointPositions", index, (frames, 72))
        people.append(
            Person(
                # Files with 300 betas are zero beyond the first ten.
                betas=betas[:10],
                poses=_array(path, value, "poses", index, (frames, 72)),
                translations=_array(path, value, "trans", index, (frames, 3)),
                joints=joints.reshape(frames, 24, 3),
                valid=_array(path, value, "campose_valid", index, (frames,)) > 0,
                gender=_gender(path, value, index) if gendered else "m",
            )
        )
    return camera, people


def _gender(path: Path, value: dict[str, Any], index: int) -> str:
    genders = _entry(path, value, "genders")
    gender = genders[index] if isinstance(genders, list) and index < len(genders) else None
    if not isinstance(gender, str) or gender not in LETTERS:
        # Of a text alone, for lists may hold each other a thousandfold.
        found = repr(gender[:10]) if isinstance(gender, str) else f"a {type(gender).__name__}"
        raise UserError(f"{path}: genders: {found} for person {index}; put back the file")
    return gender


def _entry(path: Path, value: dict[str, Any], key: str) -> Any:
    if key not in value:
        raise UserError(f"{path}: has no {key!r}; put back the file of 3DPW")
    return value[key]


def _array(
    path: Path, value: dict[str, Any], key: str, index: int | None, shape: tuple[int | None, ...]
) -> np.ndarray:
    entry = _entry(path, value, key)
    try:
        array = as_numbers(entry if index is None else entry[index])
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
